"""Tensors that share memory, and the tensor that an overwritten one stands for."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.utils._pytree import tree_leaves

from . import bypassing
from .tensors import PLAIN, TensorTable, map_tensors, tensors_in

# The attributes of every module.
_OF_MODULES = frozenset(vars(nn.Module()))


class _Cell:
    """The value that an overwritten tensor has now, shared by all objects that are the same tensor to the model."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value


class _Cells(TensorTable[_Cell]):
    """The cell of each tensor that stands for another."""

    def now(self, tensor: Tensor) -> Tensor:
        """The tensor that a tensor stands for."""
        entry = self._entries.get(id(tensor))  # without another call: this is asked for every argument of every call
        if entry is not None:
            return entry[1].value
        return self._alias_now(tensor) if self._entries and tensor._is_view() else tensor

    def resolved(self, arguments: Any) -> Any:
        """The arguments of a call with their current values; in most calls the same objects."""
        if not self._entries:
            return arguments
        for value in arguments.values() if type(arguments) is dict else arguments:
            kind = type(value)
            if kind is Tensor or kind is Parameter:
                if id(value) in self._entries or value._is_view():
                    return map_tensors(self.now, arguments)
            elif kind not in PLAIN and not (kind is tuple and value and type(value[0]) is int):  # strides and the like
                return map_tensors(self.now, arguments)
        return arguments

    def _alias_now(self, alias: Tensor) -> Tensor:
        """The present values of a view: `as_subclass` is not seen, so that an alias may show overwritten memory."""
        base = alias._base
        cell = None if base is None or bypassing.is_of_function(alias) else self.get(base)
        if base is None or cell is None or not alias.dtype == base.dtype == cell.value.dtype:
            return alias
        if cell.value.untyped_storage().data_ptr() == base.untyped_storage().data_ptr():
            return alias
        shift = cell.value.storage_offset() - base.storage_offset()
        with torch._C.DisableTorchFunction():  # a subclass may see this
            return cell.value.as_strided(alias.size(), alias.stride(), alias.storage_offset() + shift)


class Memory:
    """The tensors of a forward pass that stand for others, and those that share memory.

    Args:
        model: the network that is about to be called.
        protected: the user's tensors besides parameters and buffers; nothing is written into their memory.

    Attributes:
        overwritten: see `bypassing`.
        began: the number of autograd's first node of this forward pass.
    """

    def __init__(self, model: nn.Module, protected: Iterable[Any] = ()) -> None:
        super().__init__()
        self.model, self.protected = model, protected
        self.overwritten: bypassing.Overwritten = {}
        self.began = bypassing.next_number()
        self._cells = _Cells()
        self._newest: TensorTable[weakref.ref[_Cell]] = TensorTable()
        self._views: TensorTable[list[weakref.ref[Tensor]]] = TensorTable()
        # The tensors that detached ones share memory with: autograd does not tell.
        self._roots: TensorTable[Tensor] = TensorTable()
        # Copies made here, into views of which values may be written.
        self._own: TensorTable[bool] = TensorTable()
        self._protected_memory: frozenset[int] | None = None

    def _forget(self) -> None:
        for table in (self._cells, self._newest, self._views, self._roots, self._own):
            table.clear()

    def current(self, value: Any) -> Any:
        """`value` with every tensor in it, however nested, replaced by the tensor that it stands for now."""
        with torch._C.DisableTorchFunction():
            return map_tensors(self._cells.now, value)

    def _has_overwritten(self, tensor: Tensor) -> bool:
        """Whether other objects stand for this tensor, or it stands for another."""
        newest = self._newest.get(tensor)
        return self._cells.get(tensor) is not None or (newest is not None and newest() is not None)

    def plain(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call, unchanged."""
        result = function(*args, **kwargs)
        if type(result) is not Tensor or result._is_view():
            self._note_views(result)
        return result

    def _note_views(self, result: Any) -> None:
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor._is_view() and (base := tensor._base) is not None:
                self._add_view(base, tensor)

    def _note_detached(self, tensor: Tensor, detached: Any) -> Any:
        """Note that two tensors share memory, which autograd does not tell."""
        if isinstance(detached, Tensor) and tensor.layout is torch.strided:
            root = self._root(tensor)
            self._roots[detached] = root
            self._add_view(root, detached)
        return detached

    def _root(self, tensor: Tensor) -> Tensor:
        """The tensor that a view shows, also one that is detached; else the tensor."""
        base = tensor._base if tensor._is_view() and not bypassing.is_of_function(tensor) else None
        root = tensor if base is None else base
        return root if (base := self._roots.get(root)) is None else base

    def _add_view(self, base: Tensor, view: Tensor) -> None:
        views = self._views.get(base)
        if views is None:
            views = self._views[base] = []
        views.append(weakref.ref(view))

    def _replace(self, base: Tensor, result: Tensor) -> Tensor:
        """The same values as `result`, in memory that all live views of `base` are views of from now on."""
        views = [view for reference in self._views.get(base) or () if (view := reference()) is not None]
        if not views:
            return result
        if result.stride() != base.stride() or result.storage_offset() != base.storage_offset():
            with torch.enable_grad():
                same = torch.empty_strided(base.size(), base.stride(), dtype=base.dtype, device=base.device)
                result = same.copy_(result)
        shift = result.storage_offset() - base.storage_offset()
        for view in views:
            if view.dtype == base.dtype:
                place = result.as_strided(view.size(), view.stride(), view.storage_offset() + shift)
                if self._roots.get(view) is None:
                    self._note_views(place)
                else:
                    place = self._note_detached(result, place.detach())
                self._overwrite(view, self._replace(view, place))
        return result

    def _overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        """From now on `target`, and every object that is the same tensor to the model, stands for `result`."""
        if result.dtype is not target.dtype:
            result = result.to(target.dtype)
        bypassing.note_overwritten(self.overwritten, target)
        newest = self._newest.get(target)
        cell = self._cells.get(target) or (newest() if newest is not None else None) or _Cell(target)
        self._cells[target] = cell
        if cell.value is not target:
            self._cells[cell.value] = cell
        cell.value = result
        self._newest[result] = weakref.ref(cell)
        return result

    def _note_hooked(self, alias: Tensor) -> None:
        """Let an alias made for the hooks of a module be to operations the tensor that it stands for."""
        source = bypassing.hooked_source(alias)
        if source is None or self._cells.get(alias) is not None:
            return
        cell = self._cells.get(source)
        if cell is not None and cell.value is not source:
            self._cells[alias] = cell
        else:
            self.pass_on(source, alias)

    def pass_on(self, source: Tensor, alias: Tensor) -> None:
        """Note that `alias` is the same to operations as `source`."""

    def is_earlier(self, tensor: Tensor) -> bool:
        """Whether a tensor with a graph was computed before this forward pass: it does not depend on the inputs."""
        return bypassing.is_earlier(tensor.grad_fn, self.began)

    def _copied(self, base: Tensor) -> Tensor:
        """A tensor whose views may be written into, from now on in place of `base`."""
        copy = self._overwrite(base, self._replace(base, base.clone()))
        self._own[copy] = True
        return copy

    def _is_users(self, tensor: Tensor) -> bool:
        """Whether the memory belongs to the model or to an argument, rather than to this forward pass."""
        if tensor.grad_fn is not None and not tensor._is_view() and not self.is_earlier(tensor):
            return False  # computed here
        if self._protected_memory is None:
            tensors = [*self.model.parameters(), *self.model.buffers(), *tree_leaves(self.protected)]
            attributes = (vars(module).items() for module in self.model.modules())
            tensors += tensors_in([value for items in attributes for name, value in items if name not in _OF_MODULES])
            self._protected_memory = frozenset(
                tensor.untyped_storage().data_ptr()
                for tensor in tensors
                if isinstance(tensor, Tensor) and tensor.layout is torch.strided
            )
        return tensor.untyped_storage().data_ptr() in self._protected_memory
