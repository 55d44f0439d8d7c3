"""The execution of a recording: its operations unchanged, generated code, or a CUDA graph; it follows the weights."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from .recording import Recording

Runner = Callable[..., Sequence[Tensor]]


class Program:
    """A recording with its runner, kept up to date with the weights."""

    def __init__(self, recording: Recording, mode: str, values: tuple[Tensor, ...], index: Tensor) -> None:
        self.recording, self._mode = recording, mode
        self._lock = threading.Lock()
        with torch.no_grad():
            self._stamp = recording.weights.stamp()
            self._constants = recording.derive(*recording.weights.checked())
            self._runner = self._built(self._compiled(values, index), values, index)

    def __call__(self, *arguments: Tensor) -> Sequence[Tensor]:
        with self._lock, torch.inference_mode(False), torch.no_grad():
            self._refresh(arguments)
            return self._runner(*self._constants, *arguments)

    def _compiled(self, values: tuple[Tensor, ...], index: Tensor) -> Runner:
        if self._mode in ("aten", "graph"):
            return self.recording.run
        return _inductor(self.recording.run, [*self._constants, *values, index])

    def _built(self, run: Runner, values: tuple[Tensor, ...], index: Tensor) -> Runner:
        captured = index.is_cuda and self._mode in ("graph", "cudagraph")
        return _CapturedGraph(run, self._constants, (*values, index)) if captured else run

    def _refresh(self, arguments: tuple[Tensor, ...]) -> None:
        """Derive again from changed weights, in the same memory, which a CUDA graph knows by address."""
        stamp = self.recording.weights.stamp()
        if stamp == self._stamp:
            return
        constants = self.recording.derive(*self.recording.weights.checked())
        moved = [before[1] for before in self._stamp] != [now[1] for now in stamp]
        if isinstance(self._runner, _CapturedGraph) and not moved:
            for old, new in zip(self._constants, constants, strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        elif isinstance(self._runner, _CapturedGraph):
            self._constants = constants
            self._runner = _CapturedGraph(self._runner.run, constants, arguments)
        else:
            self._constants = constants
        self._stamp = stamp


class _CapturedGraph:
    """A function of tensors as one CUDA graph: a call copies the arguments in, replays, and copies the results out."""

    def __init__(self, run: Runner, constants: Sequence[Tensor], arguments: Sequence[Tensor]) -> None:
        self.run, self._fixed = run, len(constants)
        self._arguments = [argument.clone() for argument in arguments]
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):  # libraries choose their algorithms and allocate their workspaces at the first calls
                run(*constants, *self._arguments)
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = run(*constants, *self._arguments)

    def __call__(self, *arguments: Tensor) -> Sequence[Tensor]:
        for own, given in zip(self._arguments, arguments[self._fixed :], strict=True):
            own.copy_(given)
        self._graph.replay()
        return [result.clone() for result in self._results]


def _inductor(run: fx.GraphModule, arguments: list[Any]) -> Runner:
    """Generated code for the graph.

    Raises:
        RuntimeError: there is no C++ compiler.
    """
    import torch._inductor
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        # By default it stores every convolution's weight channels last, at every call; `channels_last` does it once.
        compiled: Callable[..., Sequence[Tensor]] = torch._inductor.compile(
            run, arguments, options={"layout_optimization": False}
        )
        return compiled
    except InvalidCxxCompiler as error:
        raise RuntimeError("mode 'inductor' found no C++ compiler: install g++, or use mode 'aten'") from error
