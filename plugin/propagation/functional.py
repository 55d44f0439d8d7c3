"""A function mode in which nothing is overwritten: in-place operations are computed out of place.

From then on, the object that would have been overwritten stands for the result. No tensor of the user's, and none that
a rule has saved, is ever written to. Only ReLUs and sums directly after the layer that computed their operand run in
place: this saves half of the memory traffic of many networks.
"""

from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..errors import UnseenOperationError
from ..kernels.tracing import memory_is_our_own
from ..observing import ModuleTrace, Observer, describe, running_module
from . import bypassing
from .convolution import ConvolutionGradient
from .in_place import InPlace, in_place_form
from .kinds import Kind
from .memory import Memory
from .modes import is_checkpointed, is_on, saving_hooks, unchanged, without
from .operations import OPERATIONS
from .subclasses import by_override, overriding
from .tensors import tensors_in
from .whole import WholeModules

# Queries about a tensor's type, shape and place: the most frequent calls.
_QUESTIONS = frozenset(function for row in OPERATIONS if row.kind is Kind.QUESTION for function in row.functions)
_DETACHING = frozenset(function for row in OPERATIONS if row.name in ("detach", "data") for function in row.functions)
_PLAIN_TYPES = frozenset({(), (Tensor,), (nn.Parameter,)})
_GRADIENTS = frozenset({torch.autograd.grad, torch.autograd.backward, Tensor.backward})
# Operations whose results PyTorch does not keep for the backward pass.
_RESULT_IS_NOT_KEPT = frozenset(
    f"{name}Backward0" for name in "Convolution NativeBatchNorm CudnnBatchNorm MiopenBatchNorm Addmm Add".split()
) | {f"{ConvolutionGradient.__name__}Backward"}


class FunctionalMode(Memory, TorchFunctionMode):
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
        super().__init__(model, protected)
        self.observed = on_enter is not None or on_exit is not None
        self._observers = on_enter, on_exit
        self._trace: AbstractContextManager[Any] = nullcontext()
        self._whole: WholeModules | None = None
        # The last result, which no operation has read yet.
        self.unread: Any = None

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
        self.unread = None
        self._forget()

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

    def as_received(self, tensor: Tensor) -> Tensor:
        """The earlier value of a tensor that now stands for another, in a form that operations can see."""
        if self._cells.get(tensor) is None:
            return tensor
        with self.off():
            return tensor.clone()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if types not in _PLAIN_TYPES and (kinds := overriding(types)):
            return by_override(self, function, kinds, args, kwargs or {})
        if function in _QUESTIONS:
            return self._answer(function, args, kwargs or {})
        if function in _GRADIENTS and not bypassing.is_transformed():
            self._refuse_gradient()
        if bypassing.is_transformed():
            if bypassing.is_differentiated(tensors_in((args, kwargs))):
                self._refuse_gradient()
            return self._transformed(function, self._cells.resolved(args), self._cells.resolved(kwargs or {}))
        if saving_hooks(True) is not None and is_checkpointed():
            # The function would run again in the backward pass, where the mode is off: its tensors are kept instead.
            with torch.autograd.graph.saved_tensors_hooks(unchanged, unchanged):
                self.unread = self._run(function, args, kwargs or {})
        else:
            self.unread = self._run(function, args, kwargs or {})
        return self.unread

    def _refuse_gradient(self) -> None:
        raise UnseenOperationError(
            f"{describe(self.model, running_module(self.model))} computes a gradient in its forward pass, which the "
            "rules would change: explain the values that it is the gradient of, or compute it outside the model and "
            "pass it as an additional argument"
        )

    def _transformed(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call under a transform of `torch.func`, on its own tensors."""
        return function(*args, **kwargs)

    def _answer(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        resolved = self._cells.resolved(args)
        answer = function(*resolved, **kwargs)
        if type(answer) is bypassing.HOOK_NODE:
            self._note_hooked(args[0])
        elif resolved is not args and bypassing.hooked_source(args[0]) is not None:
            return function(*args, **kwargs)  # PyTorch asks for the node of its alias, to put the hooks there
        return answer

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given, args, destination = args, self._cells.resolved(args), None
        if kwargs:
            destination, kwargs = kwargs.get("out"), self._cells.resolved(kwargs)
        if destination is not None:
            result = self._call(function, args, {name: value for name, value in kwargs.items() if name != "out"})
            return tree_map(self._overwrite, destination, result)
        if function in _DETACHING and args:
            return self._note_detached(args[0], self._call(function, args, kwargs))
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

    def _call_in_place(
        self, form: InPlace, function: Callable[..., Any], target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """The values of an in-place call, and its effects on all references to the target."""
        value: Tensor = args[0]  # the target's, now
        if not isinstance(value, Tensor):
            return self._write_several(form, target, args, kwargs)
        if not torch.is_grad_enabled() and not self._is_users(value) and bypassing.in_function():
            result = function(*args, **kwargs)  # it returns the object that it overwrites, or marks it dirty
            return cast(Tensor, result)
        if function in self._really_in_place and self._may_be_overwritten(value):
            result = self._call(function, args, kwargs)
            return result if result is value else self._overwrite(target, result)
        if form.writes_values and (root := self._root(value)) is not value:
            return self._write_into_view(form, value, root, args, kwargs)
        result = self._call(form.functional, *form.out_of_place(args, kwargs))
        if form.writes_values:
            result = result if result.dtype is value.dtype else result.to(value.dtype)
            if value.requires_grad and not (form.differentiated and torch.is_grad_enabled()):
                result = self._with_values(value, result)
            result = self._replace(value, result)
        result = self._overwrite(target, result)
        # `self.count += 1` assigns the result to the module's attribute: that must remain the user's own tensor.
        return target if self._is_users(target) else result

    def _may_be_overwritten(self, value: Tensor) -> bool:
        """Whether an operation may run in place: only the model's own later computations can notice it."""
        return (
            value is self.unread
            and self._is_free(value)
            and torch.is_grad_enabled()
            and not self.observed
            and memory_is_our_own()
            and not value._is_view()
            and not self._views.get(value)
            and saving_hooks(True) is None
        )

    def _is_free(self, value: Tensor) -> bool:
        """Whether the operation that computed this tensor does not need it for the backward pass."""
        return value.grad_fn is not None and value.grad_fn.name() in _RESULT_IS_NOT_KEPT

    def _write_into_view(
        self, form: InPlace, view: Tensor, base: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """A real in-place write, which the base and its other views see; never in memory that must stay unchanged."""
        if view._base is not base:
            return self._write_values(form, view, base, args, kwargs)
        value = view
        if self._own.get(base) is None or self._may_be_kept(base):
            self._note_views(view)
            if base.requires_grad and not (view.requires_grad and form.differentiated and torch.is_grad_enabled()):
                return self._write_values(form, view, base, args, kwargs)
            self._copied(base)
            view = self._cells.now(view)
        args, kwargs = form.out_of_place(args, kwargs)
        # A rule may save its input: it is not overwritten if the write goes to a copy, and is a copy else.
        value = value.clone() if value is view else value
        return view.copy_(self._call(form.functional, (value, *args[1:]), kwargs))

    def _write_values(
        self, form: InPlace, view: Tensor, base: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """A write that autograd does not see, as through `detach()`: the base has other values, and the same graph."""
        args, kwargs = form.out_of_place(args, kwargs)
        written = self._call(form.functional, (view.clone(), *args[1:]), kwargs).to(view.dtype)
        place = view.size(), view.stride(), view.storage_offset()
        values = torch.as_strided_scatter(base.detach(), written.detach(), *place)
        self._overwrite(base, self._replace(base, self._with_values(base, values)))
        if not written.requires_grad:
            return self._cells.now(view)
        if not view._is_view():
            return self._overwrite(view, written)
        # A signal was written into a view of a detached tensor: that has a graph of its own from now on.
        detached = self._cells.now(cast(Tensor, view._base))
        self._overwrite(detached, self._replace(detached, detached.clone()))
        return self._cells.now(view).copy_(written)

    def _with_values(self, value: Tensor, values: Tensor) -> Tensor:
        """Other values for a tensor, without a gradient: to the rules, a constant is added. A parameter is one."""
        if value.grad_fn is None:
            return values.detach()
        with torch.enable_grad():
            result: Tensor = self._call(torch.add, (value, (values - value).detach()), {})
        return result

    def _write_several(self, form: InPlace, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An operation in place on a list of tensors, such as `torch._foreach_mul_`."""
        results = self._call(form.functional, args, kwargs)
        for tensor, value, result in zip(target, args[0], results, strict=True):
            kept = value.requires_grad and not torch.is_grad_enabled()
            self._overwrite(tensor, self._replace(value, self._with_values(value, result) if kept else result))

    def _may_be_kept(self, base: Tensor) -> bool:
        """Whether an operation or a rule may have saved a tensor for the backward pass."""
        return base.grad_fn is not None

    def _resolving(self, observer: Observer | None) -> Observer | None:
        if observer is None:
            return None

        def resolving(module: nn.Module, value: Any) -> None:
            if is_on(self):  # else a rule calls the module once more
                observer(module, self.current(value))

        return resolving
