"""The function mode: PyTorch's own autograd, in which a few operations get another backward rule.

While a `Propagation` is open, every torch function that this thread calls passes through it. Operations of the table
in `operations` are handed to the rule for their kind; everything else runs as it is, so that autograd differentiates
it. In-place operations are computed out of place, and the object they would have overwritten stands for the result
from then on: no tensor of the user's, and none that a rule has saved, is ever written to. Only ReLUs and sums in place,
right after the layer that computed what they overwrite, are so: that is half of the memory traffic of many networks.
"""

import warnings
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ..kernels.tracing import is_tracing
from .convolution import ConvolutionGradient
from .in_place import InPlace, in_place_form
from .modules import ModuleTrace, Observer, describe, running_module
from .operations import recognise
from .tensors import TensorTable, map_tensors, tensors_in

Handler = Callable[[Any], Any]

# Where the running statistics stand, which these functions overwrite in train mode.
_STATISTICS: dict[Callable[..., Any], tuple[int, int]] = {
    F.batch_norm: (1, 2),
    F.instance_norm: (1, 2),
    torch.batch_norm: (3, 4),
    torch.instance_norm: (3, 4),
}
# The name and default of the sixth argument, which says that the batch's own statistics are used, and updates them.
_USES_BATCH: dict[Callable[..., Any], tuple[str, bool]] = {
    F.batch_norm: ("training", False),
    F.instance_norm: ("use_input_stats", True),
    torch.batch_norm: ("training", True),
    torch.instance_norm: ("use_input_stats", True),
}
# Where the argument stands that makes these functions random, or dependent on the rest of the batch.
_TRAINING: dict[Callable[..., Any], int] = {
    F.dropout: 2,
    F.dropout1d: 2,
    F.dropout2d: 2,
    F.dropout3d: 2,
    F.alpha_dropout: 2,
    F.feature_alpha_dropout: 2,
    F.batch_norm: 5,
}


# They ask for what a tensor is, and compute none.
_QUESTIONS = frozenset(
    [getattr(Tensor, name) for name in "dim size stride numel nelement is_floating_point is_complex __len__".split()]
    + [getattr(Tensor, name).__get__ for name in "shape ndim dtype device layout requires_grad is_cuda".split()]
)
# What PyTorch computes without keeping the result for the backward pass.
_RESULT_IS_NOT_KEPT = frozenset(
    f"{name}Backward0" for name in "Convolution NativeBatchNorm CudnnBatchNorm MiopenBatchNorm Addmm Add".split()
) | {f"{ConvolutionGradient.__name__}Backward"}


class _Cell:
    """The value that an overwritten tensor has now, shared by all objects that are the same tensor to the model."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class Propagation(TorchFunctionMode):
    """Runs a model under backward rules, on this thread, leaving the model as it is.

    Args:
        model: the network that is about to be called.
        rules: for each type of operation, a function of the operation that returns its result, differentiable by the
            rule. Operations without an entry are differentiated as usual.
        protected: the user's tensors besides parameters and buffers; nothing is written into their memory.
        on_enter, on_exit: see `ModuleTrace`; tensors arrive as what they stand for now.

    Attributes:
        handled: the autograd nodes of all operations that a rule was applied to.
    """

    _really_in_place: Container[Callable[..., Any]] = frozenset({F.relu, Tensor.__iadd__, Tensor.add_})

    def __init__(
        self,
        model: nn.Module,
        rules: Mapping[type, Handler],
        protected: Iterable[Any] = (),
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
    ) -> None:
        super().__init__()
        self.model, self.rules, self.protected = model, rules, protected
        self._observed = on_enter is not None or on_exit is not None
        self._trace: AbstractContextManager[Any] = nullcontext()
        if self._observed:
            self._trace = ModuleTrace(self._resolving(on_enter), self._resolving(on_exit))
        self.handled: set[Any] = set()
        self._cells: TensorTable[_Cell] = TensorTable()
        self._newest: TensorTable[weakref.ref[_Cell]] = TensorTable()
        self._views: TensorTable[list[weakref.ref[Tensor]]] = TensorTable()
        self._protected_memory: frozenset[int] | None = None
        # The last result, which no operation has read yet.
        self._unread: Any = None
        self._warned: set[nn.Module] = set()

    def __enter__(self) -> "Propagation":
        self._trace.__enter__()
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._trace.__exit__(kind, error, traceback)
        self._trace = nullcontext()  # its observers refer to this object: a cycle, which would outlive the call
        self._unread = None
        self._cells.clear()
        self._newest.clear()
        self._views.clear()

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Inside a rule, where the mode is off: look at the parts of a composite function as well."""
        super().__enter__()
        try:
            yield
        finally:
            super().__exit__(None, None, None)

    def current(self, value: Any) -> Any:
        """`value` with every tensor in it, however nested, replaced by what it stands for now."""
        return map_tensors(self._now, value)

    def _now(self, tensor: Tensor) -> Tensor:
        cell = self._cells.get(tensor)
        return tensor if cell is None else cell.value

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _QUESTIONS:
            return function(*(self.current(args) if len(self._cells) else args), **(kwargs or {}))
        if _is_checkpointed():
            # The function would run again in the backward pass, where the mode is off: its tensors are kept instead.
            with torch.autograd.graph.saved_tensors_hooks(_unchanged, _unchanged):
                self._unread = self._run(function, args, kwargs or {})
        else:
            self._unread = self._run(function, args, kwargs or {})
        return self._unread

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        destination = kwargs.get("out")
        given = args
        if len(self._cells):
            args, kwargs = self.current(args), self.current(kwargs)
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
        """An out-of-place call: by its rule if it has one, else as it is."""
        if function in _TRAINING:
            self._warn_if_training(function, args, kwargs)
        if function in _STATISTICS and (args[5] if len(args) > 5 else kwargs.get(*_USES_BATCH[function])):
            args, kwargs = _with_own_statistics(_STATISTICS[function], args, kwargs)
        operation = recognise(function, args, kwargs, self.rules)
        if operation is None or not operation.input.requires_grad:
            result = function(*args, **kwargs)
            self._note_views(result)
            return result
        result = self.rules[type(operation)](operation)
        self.handled.update(tensor.grad_fn for tensor in tensors_in(result))
        return result

    def _call_in_place(
        self, form: InPlace, function: Callable[..., Any], target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """The same values as an in-place call, and the same consequences for whoever holds the target."""
        value = self.current(target)
        if function in self._really_in_place and self._may_be_overwritten(value):
            result = self._call(function, args, kwargs)
            return result if result is value else self._overwrite(target, result)
        if value._is_view() and form.writes_values:
            return self._write_into_view(form, value, args, kwargs)
        result = self._call(form.functional, *form.out_of_place(args, kwargs))
        if form.writes_values:
            result = self._replace(value, result if result.dtype is value.dtype else result.to(value.dtype))
        result = self._overwrite(target, result)
        # `self.count += 1` assigns what it gets to the module: that must remain the user's own tensor.
        return target if self._is_users(target) else result

    def _may_be_overwritten(self, value: Tensor) -> bool:
        """Whether an operation in place may be one: nothing but what the model computes from here on can tell."""
        return (
            value is self._unread
            and self._is_free(value)
            and torch.is_grad_enabled()
            and not self._observed
            and not is_tracing()
            and not value._is_view()
            and not self._views.get(value)
            and _saving_hooks() is None
        )

    def _is_free(self, value: Tensor) -> bool:
        """Whether the operation that computed this tensor does not need it for the backward pass."""
        return value.grad_fn is not None and value.grad_fn.name() in _RESULT_IS_NOT_KEPT

    def _write_into_view(self, form: InPlace, view: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Really in place, so that the base and its other views see it; but never in memory that must stay as it is."""
        base = view._base
        if base is not None and (self._is_users(view) or self._is_kept(base)):
            self._note_views(view)
            self._overwrite(base, self._replace(base, base.clone()))
            view = self._now(view)
        args, kwargs = form.out_of_place(args, kwargs)
        # A rule may save what it was given, which is about to be overwritten.
        return view.copy_(self._call(form.functional, (view.clone(), *args[1:]), kwargs))

    def _is_kept(self, base: Tensor) -> bool:
        """Whether a rule has saved the result of an operation that saves none in PyTorch."""
        return False

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
        self._cells[cell.value] = self._cells[target] = cell
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
        return None if observer is None else lambda module, value: observer(module, self.current(value))

    def _warn_if_training(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        position = _TRAINING[function]
        training = args[position] if len(args) > position else kwargs.get("training", function is not F.batch_norm)
        if not training:
            return
        module = running_module(self.model)
        if module.training and module not in self._warned:
            self._warned.add(module)
            warnings.warn(
                f"{describe(self.model, module)} is in train mode: the map is random (dropout) or depends on the rest "
                "of the batch (batch norm); call model.eval() first",
                stacklevel=2,
            )


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _saving_hooks() -> Any:
    """What handles the tensors that autograd saves now, as a pair of functions; None if autograd does."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def _is_checkpointed() -> bool:
    """Whether `torch.utils.checkpoint` keeps autograd from saving tensors now."""
    hooks = _saving_hooks()
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def _with_own_statistics(
    positions: tuple[int, int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with copies of the running statistics, which a module in train mode would update."""
    own = list(args)
    for position in positions:
        if position < len(own) and own[position] is not None:
            own[position] = own[position].clone()
    copies = {
        name: value.clone() if name in ("running_mean", "running_var") and value is not None else value
        for name, value in kwargs.items()
    }
    return tuple(own), copies
