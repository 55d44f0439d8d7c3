"""A function mode in which nothing is overwritten: in-place operations are computed out of place.

From then on, the object that would have been overwritten stands for the result. No tensor of the user's, and none that
a rule has saved, is ever written to. Only ReLUs and sums directly after the layer that computed their operand run in
place: this saves half of the memory traffic of many networks.
"""

import weakref
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode
from torch.utils._pytree import tree_leaves, tree_map

from ..kernels.tracing import memory_is_our_own
from ..observing import ModuleTrace, Observer
from .convolution import ConvolutionGradient
from .in_place import InPlace, in_place_form
from .kinds import Kind
from .operations import OPERATIONS
from .tensors import PLAIN, TensorTable, map_tensors
from .whole import WholeModules

# Queries about a tensor's type, shape and place: the most frequent calls.
_QUESTIONS = frozenset(function for row in OPERATIONS if row.kind is Kind.QUESTION for function in row.functions)
# The pair of functions that handles the tensors autograd saves now; None if autograd does.
_saving_hooks: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks
# Operations whose results PyTorch does not keep for the backward pass.
_RESULT_IS_NOT_KEPT = frozenset(
    f"{name}Backward0" for name in "Convolution NativeBatchNorm CudnnBatchNorm MiopenBatchNorm Addmm Add".split()
) | {f"{ConvolutionGradient.__name__}Backward"}


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
        return tensor if entry is None else entry[1].value

    def resolved(self, arguments: Any) -> Any:
        """The arguments of a call with their current values; in most calls the same objects."""
        if not self._entries:
            return arguments
        for value in arguments.values() if type(arguments) is dict else arguments:
            kind = type(value)
            if kind is Tensor or kind is Parameter:
                if id(value) in self._entries:
                    return map_tensors(self.now, arguments)
            elif kind not in PLAIN and not (kind is tuple and value and type(value[0]) is int):  # strides and the like
                return map_tensors(self.now, arguments)
        return arguments


class FunctionalMode(TorchFunctionMode):
    """Sees every torch function of this thread, and leaves the model and the user's tensors as they are.

    Args:
        model: the network that is about to be called.
        protected: the user's tensors besides parameters and buffers; nothing is written into their memory.
        on_enter, on_exit: see `ModuleTrace`; they receive the current value of each tensor.
    """

    _really_in_place: Container[Callable[..., Any]] = frozenset({F.relu, Tensor.__iadd__, Tensor.add_})

    def __init__(
        self,
        model: nn.Module,
        protected: Iterable[Any] = (),
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
    ) -> None:
        super().__init__()
        self.model, self.protected = model, protected
        self.observed = on_enter is not None or on_exit is not None
        self._observers = on_enter, on_exit
        self._trace: AbstractContextManager[Any] = nullcontext()
        self._whole: WholeModules | None = None
        self._cells = _Cells()
        self._newest: TensorTable[weakref.ref[_Cell]] = TensorTable()
        self._views: TensorTable[list[weakref.ref[Tensor]]] = TensorTable()
        self._protected_memory: frozenset[int] | None = None
        # The last result, which no operation has read yet.
        self._unread: Any = None

    def __enter__(self) -> Self:
        whole = self.whole_modules()
        if whole:
            self.observed = True
            self._whole = WholeModules(whole, partial(is_on, self), self.current, self._replace_result)
        if self.observed:
            on_enter, on_exit = map(self._resolving, self._observers)
            self._trace = ModuleTrace(on_enter, on_exit, self._whole)
        self._trace.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        self._trace.__exit__(kind, error, traceback)
        # Their observers refer to this object: a cycle, which would outlive the call.
        self._trace, self._whole = nullcontext(), None
        self._unread = None
        self._cells.clear()
        self._newest.clear()
        self._views.clear()

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Inside a rule, where the mode is off: turn it on for the parts of a composite function."""
        super().__enter__()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @contextmanager
    def off(self) -> Iterator[None]:
        """Between operations: turn the mode off, as inside a rule."""
        with without(self):
            yield

    # -- modules that are taken as a whole -----------------------------------------------------------------------------

    def whole_modules(self) -> Collection[nn.Module]:
        """The modules that are taken as a whole."""
        return ()

    def whole_result(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """The value that replaces the output of such a module."""
        return output

    def _replace_result(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        result = self.whole_result(module, args, kwargs, self.current(output))
        if isinstance(output, Tensor) and isinstance(result, Tensor) and self._has_overwritten(output):
            self._overwrite(output, result)
        return result

    def _has_overwritten(self, tensor: Tensor) -> bool:
        """Whether other objects stand for this tensor, or it stands for another."""
        newest = self._newest.get(tensor)
        return self._cells.get(tensor) is not None or (newest is not None and newest() is not None)

    def as_received(self, tensor: Tensor) -> Tensor:
        """The earlier value of a tensor that now stands for another, in a form that operations can see."""
        if self._cells.get(tensor) is None:
            return tensor
        with self.off():
            return tensor.clone()

    def current(self, value: Any) -> Any:
        """`value` with every tensor in it, however nested, replaced by the tensor that it stands for now."""
        return map_tensors(self._cells.now, value)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _QUESTIONS:
            return function(*self._cells.resolved(args), **(kwargs or {}))
        if _saving_hooks(True) is not None and _is_checkpointed():
            # The function would run again in the backward pass, where the mode is off: its tensors are kept instead.
            with torch.autograd.graph.saved_tensors_hooks(_unchanged, _unchanged):
                self._unread = self._run(function, args, kwargs or {})
        else:
            self._unread = self._run(function, args, kwargs or {})
        return self._unread

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given, args, destination = args, self._cells.resolved(args), None
        if kwargs:
            destination, kwargs = kwargs.get("out"), self._cells.resolved(kwargs)
        if destination is not None:
            result = self._call(function, args, {name: value for name, value in kwargs.items() if name != "out"})
            return tree_map(self._overwrite, destination, result)
        form = in_place_form(function)
        if form is None or not form.requested(args, kwargs):
            return self._call(function, args, kwargs)
        if not given:  # by keyword: F.relu(input=x, inplace=True), init.zeros_(tensor=x)
            name = next(iter(kwargs))
            given, args, kwargs = (kwargs[name],), (kwargs[name],), {k: v for k, v in kwargs.items() if k != name}
        return self._call_in_place(form, function, given[0], args, kwargs)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An out-of-place call."""
        return self.plain(function, args, kwargs)

    def plain(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call, unchanged."""
        result = function(*args, **kwargs)
        if type(result) is not Tensor or result._is_view():
            self._note_views(result)
        return result

    def _call_in_place(
        self, form: InPlace, function: Callable[..., Any], target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """The values of an in-place call, and its effects on all references to the target."""
        value: Tensor = args[0]  # the target's, now
        if function in self._really_in_place and self._may_be_overwritten(value):
            result = self._call(function, args, kwargs)
            return result if result is value else self._overwrite(target, result)
        if value._is_view() and form.writes_values and not _is_of_function(value):
            return self._write_into_view(form, value, args, kwargs)
        result = self._call(form.functional, *form.out_of_place(args, kwargs))
        if form.writes_values:
            result = self._replace(value, result if result.dtype is value.dtype else result.to(value.dtype))
        result = self._overwrite(target, result)
        # `self.count += 1` assigns the result to the module's attribute: that must remain the user's own tensor.
        return target if self._is_users(target) else result

    def _may_be_overwritten(self, value: Tensor) -> bool:
        """Whether an operation may run in place: only the model's own later computations can notice it."""
        return (
            value is self._unread
            and self._is_free(value)
            and torch.is_grad_enabled()
            and not self.observed
            and memory_is_our_own()
            and not value._is_view()
            and not self._views.get(value)
            and _saving_hooks(True) is None
        )

    def _is_free(self, value: Tensor) -> bool:
        """Whether the operation that computed this tensor does not need it for the backward pass."""
        return value.grad_fn is not None and value.grad_fn.name() in _RESULT_IS_NOT_KEPT

    def _write_into_view(self, form: InPlace, view: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """A real in-place write, which the base and its other views see; never in memory that must stay unchanged."""
        base = view._base
        if base is not None and (self._is_users(view) or self._may_be_kept(base)):
            self._note_views(view)
            self._overwrite(base, self._replace(base, base.clone()))
            view = self._cells.now(view)
        args, kwargs = form.out_of_place(args, kwargs)
        # A rule may save its input, which is about to be overwritten.
        return view.copy_(self._call(form.functional, (view.clone(), *args[1:]), kwargs))

    def _may_be_kept(self, base: Tensor) -> bool:
        """Whether an operation or a rule may have saved a tensor for the backward pass."""
        return base.grad_fn is not None

    def _note_views(self, result: Any) -> None:
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor._is_view() and (base := tensor._base) is not None:
                views = self._views.get(base)
                if views is None:
                    views = self._views[base] = []
                views.append(weakref.ref(tensor))

    def _replace(self, base: Tensor, result: Tensor) -> Tensor:
        """The same values as `result`, in memory that all live views of `base` are views of from now on."""
        views = [view for reference in self._views.get(base) or () if (view := reference()) is not None]
        if not views:
            return result
        if result.stride() != base.stride() or result.storage_offset() != base.storage_offset():
            result = torch.empty_strided(base.size(), base.stride(), dtype=base.dtype, device=base.device).copy_(result)
        shift = result.storage_offset() - base.storage_offset()
        for view in views:
            if view.dtype == base.dtype:
                place = result.as_strided(view.size(), view.stride(), view.storage_offset() + shift)
                self._note_views(self._overwrite(view, place))
        return result

    def _overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        """From now on `target`, and every object that is the same tensor to the model, stands for `result`."""
        if result.dtype is not target.dtype:
            result = result.to(target.dtype)
        newest = self._newest.get(target)
        cell = self._cells.get(target) or (newest() if newest is not None else None) or _Cell(target)
        self._cells[target] = cell
        if cell.value is not target:
            self._cells[cell.value] = cell
        cell.value = result
        self._newest[result] = weakref.ref(cell)
        return result

    def _is_users(self, tensor: Tensor) -> bool:
        """Whether the memory belongs to the model or to an argument, rather than to this forward pass."""
        if tensor.grad_fn is not None and not tensor._is_view():
            return False  # computed here
        if self._protected_memory is None:
            tensors = [*self.model.parameters(), *self.model.buffers(), *tree_leaves(self.protected)]
            self._protected_memory = frozenset(
                tensor.untyped_storage().data_ptr() for tensor in tensors if isinstance(tensor, Tensor)
            )
        return tensor.untyped_storage().data_ptr() in self._protected_memory

    def _resolving(self, observer: Observer | None) -> Observer | None:
        if observer is None:
            return None

        def resolving(module: nn.Module, value: Any) -> None:
            if is_on(self):  # else a rule calls the module once more
                observer(module, self.current(value))

        return resolving


@contextmanager
def without(mode: TorchFunctionMode) -> Iterator[None]:
    """Turn off a mode that is on, and those above it, for the duration of this context."""
    above: list[Any] = []
    while (last := _pop_mode()) is not mode:
        above.append(last)
    kept = torch.autograd.graph.saved_tensors_hooks(_unchanged, _unchanged) if _is_checkpointed() else nullcontext()
    try:
        with kept:
            yield
    finally:
        for one in (mode, *reversed(above)):
            _push_mode(one)


def is_on(mode: TorchFunctionMode) -> bool:
    """Whether a mode sees the functions of this thread now."""
    count = torch._C._len_torch_function_stack()
    return any(torch._C._get_function_stack_at(index) is mode for index in range(count))


def _is_of_function(tensor: Tensor) -> bool:
    """Whether an autograd function returned it, such as a module's backward hook: no view of that may be written to."""
    return getattr(type(tensor.grad_fn), "_forward_cls", None) is not None


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _is_checkpointed() -> bool:
    """Whether `torch.utils.checkpoint` keeps autograd from saving tensors now."""
    hooks = _saving_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"
