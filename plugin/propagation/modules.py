"""Which module is running, known without touching the user's modules.

The stack of Python calls tells, whenever it is asked. Who must hear of every call uses a `ModuleTrace`: PyTorch lets a
process observe every module call. The observer registered here is shared by all that trace at the same time and acts
only on the thread that asks for it; it is gone when the last of them ends.
"""

import difflib
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ..errors import LayerError, OptionTypeError
from .whole import WholeModules

Observer = Callable[[nn.Module, Any], None]


# Every call of a module goes through this function, which has the module as `self`.
_MODULE_CALL = nn.Module._call_impl.__code__


def running_module(default: nn.Module) -> nn.Module:
    """The innermost module that is running on this thread; `default` if none is."""
    frame = _module_call(sys._getframe(1))
    return default if frame is None else cast(nn.Module, frame.f_locals["self"])


def _module_call(frame: FrameType | None) -> FrameType | None:
    """The innermost call of a module that a frame is part of."""
    while frame is not None and frame.f_code is not _MODULE_CALL:
        frame = frame.f_back
    return frame


class ModuleTrace:
    """While open, hears of the calls of modules on this thread.

    Args:
        on_enter: called with a module and its arguments before it runs: those by position, or, if no tensor is among
            them, also the tensors by keyword that depend on the input.
        on_exit: called with a module and its output after it ran.
        whole: the modules whose output is replaced, before `on_exit` is called.
    """

    def __init__(
        self,
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
        whole: WholeModules | None = None,
    ) -> None:
        self.on_enter, self.on_exit, self.whole = on_enter, on_exit, whole
        self.stack: list[nn.Module] = []

    def __enter__(self) -> "ModuleTrace":
        _observe(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _stop_observing()


def describe(model: nn.Module, module: nn.Module) -> str:
    """A module's name in the model and its type, for messages."""
    name = next((name for name, candidate in model.named_modules() if candidate is module), None)
    return f"{name!r} ({type(module).__name__})" if name else f"the {type(module).__name__}"


def find_layer(model: nn.Module, layer: nn.Module | str) -> nn.Module:
    """The module of `model` that `layer` is, or that is called so.

    Raises:
        LayerError: the model has no such layer; the message lists names that are close.
        OptionTypeError: `layer` is neither a module nor a name.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
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
        if trace.whole is not None and trace.whole.has(module):
            trace.whole.enter(args, _keywords(sys._getframe(1)))


def _received(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the module that is being called receives.

    PyTorch tells observers of all modules no arguments by keyword: the frame of the call does. Masks and the like,
    which do not depend on the input, are left out beside tensors that do.
    """
    if any(isinstance(argument, Tensor) for argument in args):
        return args
    tensors = [value for value in _keywords(sys._getframe(2)).values() if isinstance(value, Tensor)]
    return (*args, *([tensor for tensor in tensors if tensor.requires_grad] or tensors))


def _keywords(frame: FrameType) -> dict[str, Any]:
    """What the module that is being called receives by keyword."""
    call = _module_call(frame)
    return {} if call is None else cast(dict[str, Any], call.f_locals["kwargs"])


def _leaving(module: nn.Module, args: Any, output: Any) -> Any:
    for trace in getattr(_active, "traces", ())[-1:]:
        # A module that raised is reported too, with no output; one that was running before the trace began is not ours.
        if trace.stack and trace.stack[-1] is module:
            trace.stack.pop()
            if trace.whole is not None and trace.whole.has(module):
                output = trace.whole.leave(module, output)
            if trace.on_exit is not None and output is not None:
                trace.on_exit(module, output)
    return output
