"""The running module, and the arguments and results of modules, without changing the user's modules.

`outputs_of` and `LayerCapture` show the results of layers. They are based on `ModuleTrace`, which is notified of every
call of a module: PyTorch lets a process observe them. The observer registered here is shared by all traces that are
open at the same time and acts only on the thread that opened one; it is removed when the last of them ends. Threads may
share modules. `running_module` needs no observer: it reads the stack of Python calls.
"""

import difflib
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .errors import LayerError, OptionTypeError

Observer = Callable[[nn.Module, Any], None]


class Replacement(Protocol):
    """Replaces the results of some modules."""

    def has(self, module: nn.Module) -> bool:
        """Whether a module that is now called is one of them."""

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called when one of them begins."""

    def leave(self, module: nn.Module, output: Any) -> Any:
        """Called when one of them ends, without output if it raised an error; returns the output to use."""


# Every call of a module goes through this function, which has the module as `self`.
_MODULE_CALL = nn.Module._call_impl.__code__


def running_module(default: nn.Module) -> nn.Module:
    """The innermost module that is running on this thread; `default` if none is."""
    frame = _module_call(sys._getframe(1))
    return default if frame is None else cast(nn.Module, frame.f_locals["self"])


def _module_call(frame: FrameType | None) -> FrameType | None:
    """The innermost call of a module that a frame belongs to."""
    while frame is not None and frame.f_code is not _MODULE_CALL:
        frame = frame.f_back
    return frame


class ModuleTrace:
    """Notified of the calls of modules on this thread while it is open.

    Args:
        on_enter: called with a module and its arguments before it runs: those by position, or, if no tensor is among
            them, also the tensors by keyword that depend on the input.
        on_exit: called with a module and its output after it ran.
        replacement: replaces the output of modules, before `on_exit` is called.
    """

    def __init__(
        self,
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
        replacement: Replacement | None = None,
    ) -> None:
        self.on_enter, self.on_exit, self.replacement = on_enter, on_exit, replacement
        self.stack: list[nn.Module] = []

    def __enter__(self) -> "ModuleTrace":
        _observe(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _stop_observing()


class LayerCapture:
    """Captures the input or output of a layer; if the layer is used several times, the last use counts.

    Attributes:
        then: called with each value that is captured.
    """

    then: Callable[[Any], None] | None = None

    def __init__(self, model: nn.Module, layer: nn.Module, at_input: bool) -> None:
        self.model, self.layer, self.at_input = model, layer, at_input
        self.value: Any = None

    def on_enter(self, module: nn.Module, args: Any) -> None:
        if self.at_input and module is self.layer:
            self._capture(args)

    def on_exit(self, module: nn.Module, output: Any) -> None:
        if not self.at_input and module is self.layer:
            self._capture(output)

    def _capture(self, value: Any) -> None:
        self.value = value
        if self.then is not None:
            self.then(value)

    def tensors(self) -> tuple[Tensor, ...]:
        """The captured tensors.

        Raises:
            LayerError: the layer was not called, or its input or output is not made of tensors.
        """
        value = self.value if isinstance(self.value, (tuple, list)) else (self.value,)
        tensors = tuple(item for item in value if isinstance(item, Tensor))
        if not tensors:
            what = "has no tensor of its own to attribute to: choose a layer inside it, or the one before or after"
            if self.value is None:
                what = "was not reached by the forward pass: choose a layer that the model calls"
            raise LayerError(f"layer {describe(self.model, self.layer)} {what}")
        return tensors

    def dependent_tensors(self) -> tuple[Tensor, ...]:
        """The captured tensors, at least one of which depends on the inputs; errors as for `tensors`.

        Raises:
            LayerError: none of them does.
        """
        tensors = self.tensors()
        if not any(tensor.requires_grad and not isinstance(tensor, nn.Parameter) for tensor in tensors):
            what = "input" if self.at_input else "output"
            raise LayerError(
                f"the {what} of layer {describe(self.model, self.layer)} does not depend on the inputs: choose a layer "
                "that they reach, or look for torch.no_grad and detach() before it"
            )
        return tensors


class LayerCaptures(LayerCapture):
    """Several layers at once."""

    def __init__(self, captures: Sequence[LayerCapture]) -> None:
        self.captures = captures

    def on_enter(self, module: nn.Module, args: Any) -> None:
        for capture in self.captures:
            capture.on_enter(module, args)

    def on_exit(self, module: nn.Module, output: Any) -> None:
        for capture in self.captures:
            capture.on_exit(module, output)


class _Reached(BaseException):
    """Ends a forward pass of which the rest is not needed. No `Exception`: a network may catch these."""


def outputs_of(
    model: nn.Module,
    layers: Collection[str],
    *args: Any,
    record_gradients: bool = False,
    used_once: bool = False,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """The outputs of layers in one forward pass; if a layer is used several times, those of its last use.

    Args:
        model: the network. It is called unchanged; it may be shared between threads.
        layers: names of modules; "" is the network itself.
        args, kwargs: the arguments of the network.
        record_gradients: keep the graph.
        used_once: whether each layer is known to be used once: the forward pass then ends at the last of them.

    Returns:
        The outputs `(N, ...)` by name; the first of several tensors.

    Raises:
        LayerError: there is no such layer, the forward pass does not call it, or it returns no tensor.
    """
    modules = {name: find_layer(model, name) for name in layers}
    captures = {module: LayerCapture(model, module, at_input=False) for module in modules.values()}

    def on_exit(module: nn.Module, output: Any) -> None:
        if module in captures:
            captures[module].on_exit(module, _copied(output))
            if used_once and all(capture.value is not None for capture in captures.values()):
                raise _Reached

    with suppress(_Reached), torch.set_grad_enabled(record_gradients), ModuleTrace(on_exit=on_exit):
        model(*args, **kwargs)
    return {name: captures[module].tensors()[0] for name, module in modules.items()}


def _copied(output: Any) -> Any:
    """The same values in separate memory: later operations may overwrite a layer's result."""
    if isinstance(output, (tuple, list)):
        return tuple(_copied(item) for item in output)
    return output.clone() if isinstance(output, Tensor) else output


def describe(model: nn.Module, module: nn.Module) -> str:
    """A module's name in the model and its type, for messages."""
    name = next((name for name, candidate in model.named_modules() if candidate is module), None)
    return f"{name!r} ({type(module).__name__})" if name else f"the {type(module).__name__}"


def find_layer(model: nn.Module, layer: nn.Module | str) -> nn.Module:
    """The module of `model` that `layer` is or names.

    Raises:
        LayerError: the model has no such layer; the message lists similar names.
        OptionTypeError: `layer` is neither a module nor a name.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if isinstance(layer, nn.Module):
        if any(module is layer for module in modules.values()):
            return layer
        raise LayerError(f"the layer {layer} is not a module of the {type(model).__name__}: pass one of its modules")
    if not isinstance(layer, str):
        raise OptionTypeError(
            f"the layer {layer!r} is a {type(layer).__name__}: pass a module of the model, or its name"
        )
    if layer in modules:
        return modules[layer]
    close = difflib.get_close_matches(layer, list(modules), n=5, cutoff=0.0)
    raise LayerError(
        f"{type(model).__name__} has no layer {layer!r}; near are: {', '.join(name for name in close if name)}"
    )


_active = threading.local()
_lock = threading.Lock()
_observers = 0
_handles: list[Any] = []


def _observe(trace: ModuleTrace) -> None:
    global _observers
    with _lock:
        if _observers == 0:
            _handles.append(register_module_forward_pre_hook(_entering))
            _handles.append(register_module_forward_hook(_leaving, always_call=True))
        _observers += 1
    _active.traces = [*getattr(_active, "traces", []), trace]


def _stop_observing() -> None:
    global _observers
    _active.traces = _active.traces[:-1]
    with _lock:
        _observers -= 1
        if _observers == 0:
            for handle in _handles:
                handle.remove()
            _handles.clear()


def _entering(module: nn.Module, args: Any) -> None:
    for trace in getattr(_active, "traces", ())[-1:]:
        trace.stack.append(module)
        if trace.on_enter is not None:
            trace.on_enter(module, _received(args))
        if trace.replacement is not None and trace.replacement.has(module):
            trace.replacement.enter(args, _keywords(sys._getframe(1)))


def _received(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of the module that is being called.

    PyTorch passes observers of all modules no keyword arguments: they are read from the frame of the call. Masks and
    other tensors that do not depend on the input are left out beside tensors that do.
    """
    if any(isinstance(argument, Tensor) for argument in args):
        return args
    tensors = [value for value in _keywords(sys._getframe(2)).values() if isinstance(value, Tensor)]
    return (*args, *([tensor for tensor in tensors if tensor.requires_grad] or tensors))


def _keywords(frame: FrameType) -> dict[str, Any]:
    """The keyword arguments of the module that is being called."""
    call = _module_call(frame)
    return {} if call is None else cast(dict[str, Any], call.f_locals["kwargs"])


def _leaving(module: nn.Module, args: Any, output: Any) -> Any:
    for trace in getattr(_active, "traces", ())[-1:]:
        # A module that raised is reported too, without output; one that ran before the trace began is ignored.
        if trace.stack and trace.stack[-1] is module:
            trace.stack.pop()
            if trace.replacement is not None and trace.replacement.has(module):
                output = trace.replacement.leave(module, output)
            if trace.on_exit is not None and output is not None:
                trace.on_exit(module, output)
    return output
