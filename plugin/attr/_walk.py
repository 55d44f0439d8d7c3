"""A forward pass that ends at a layer, and the search for the module whose backward pass depends on the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

from ..errors import LayerError
from ..observing import LayerCapture, describe
from ..propagation import Propagation
from ..propagation.mode import Handler


class _Reached(Exception):
    """Raised when the forward pass need go no further."""


@dataclass(frozen=True)
class _Call:
    """One call of a module: the edges of the graph at its arguments, and its results."""

    module: nn.Module
    received: tuple[GradientEdge, ...]
    returned: tuple[Tensor, ...]


class Walk(LayerCapture):
    """Runs a model until a layer has returned for the `last_use`-th time, or to the end.

    Attributes:
        uses: the number of times the layer has returned.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, last_use: int | None = None) -> None:
        super().__init__(model, layer, at_input=False)
        self.last_use, self.uses = last_use, 0

    def run(self, rules: Mapping[type, Handler], inputs: Tensor) -> Propagation:
        """Run the model on inputs `(N, ...)` under rules.

        Raises:
            Exception: any error that the model raised before it reached the layer.
        """
        propagation = Propagation(self.model, rules, (), self.on_enter, self.on_exit)
        try:
            with propagation:
                self.model(inputs.clone())
        except _Reached:
            pass
        except Exception:
            # The modules after the layer need not work: the inputs may be too small for the rest of the network.
            if not self.uses:
                raise
        return propagation

    def output(self) -> Tensor:
        """The layer's output `(N, ...)`.

        Raises:
            LayerError: the layer was not called, or did not return one tensor that depends on the input.
        """
        tensors = [tensor for tensor in self.tensors() if tensor.requires_grad]
        if len(tensors) != 1:
            raise LayerError(
                f"layer {describe(self.model, self.layer)} returns {len(tensors)} tensors that depend on the input: "
                "choose a layer that returns one"
            )
        return tensors[0]

    def on_exit(self, module: nn.Module, output: Any) -> None:
        super().on_exit(module, output)
        if module is self.layer:
            self.uses += 1
            if self.uses == self.last_use:
                raise _Reached


class RecordedWalk(Walk):
    """A walk that records the calls on its way.

    Attributes:
        calls: every call of a module that ended, in that order.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, last_use: int | None = None) -> None:
        super().__init__(model, layer, last_use)
        self.calls: list[_Call] = []
        self._running: list[tuple[nn.Module, tuple[GradientEdge, ...]]] = []

    @property
    def running(self) -> str:
        """The module that runs now, as an error names it."""
        return describe(self.model, self._running[-1][0])

    def on_enter(self, module: nn.Module, args: Any) -> None:
        self._running.append((module, tuple(map(get_gradient_edge, _with_graph(args)))))

    def on_exit(self, module: nn.Module, output: Any) -> None:
        self.calls.append(_Call(*self._running.pop(), _with_graph(output)))
        super().on_exit(module, output)


def _with_graph(value: Any) -> tuple[Tensor, ...]:
    return tuple(item for item in tree_leaves(value) if isinstance(item, Tensor) and item.requires_grad)


def agree(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two signals are equal, up to the rounding of operations that add in no fixed order."""
    if first is None or second is None:
        return first is second
    rounding = 64 * torch.finfo(first.dtype).eps
    return torch.allclose(first, second, rtol=0.0, atol=rounding * float(first.abs().max()))


def dependent_module(first: RecordedWalk, second: RecordedWalk) -> nn.Module:
    """The first innermost module on the way to the layer that passes down another signal for other data.

    Each call of a module is tested by itself, with the same signal at its results in both walks. The model is the
    answer if no module is, as when its own `forward` computes the values that depend on the data.
    """
    output = first.output()
    returned = [tensor for call in first.calls for tensor in call.returned]
    reached = torch.autograd.grad(output, returned, torch.ones_like(output), allow_unused=True, retain_graph=True)
    on_the_way = {id(tensor) for tensor, signal in zip(returned, reached, strict=True) if signal is not None}
    for one, other in zip(first.calls, second.calls, strict=False):
        used = any(id(tensor) in on_the_way for tensor in one.returned)
        if used and not all(map(agree, _handed_down(one), _handed_down(other))):
            return one.module
    return first.model


def _handed_down(call: _Call) -> tuple[Tensor | None, ...]:
    """The signals that a module passes down for one fixed random signal at each of its results."""
    random = torch.Generator().manual_seed(0)
    signals = [torch.randn(tensor.shape, generator=random, device="cpu").to(tensor) for tensor in call.returned]
    if not call.received:
        return ()
    return torch.autograd.grad(call.returned, call.received, signals, allow_unused=True, retain_graph=True)
