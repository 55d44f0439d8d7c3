"""The rules of the deconvnet family: gradient, deconvnet, guided backprop, the linear adjoint and their combinations.

Three switches define the family (Mahendran and Vedaldi 2016; Springenberg et al. 2015, Figure 1). With m the signal
that arrives at y = f(x) from above, the first two decide the signal that an activation passes down:

    =============  ==============  ==============  ======================  ======================
    forward mask   backward relu   for example     for y = relu(x)         for any activation f
    =============  ==============  ==============  ======================  ======================
    yes            no              gradient        m * 1[x > 0]            m * f'(x)
    no             yes             deconvnet       relu(m)                 relu(m)
    yes            yes             guided          relu(m) * 1[x > 0]      relu(m) * relu(f'(x))
    no             no              linear adjoint  m                       m
    =============  ==============  ==============  ======================  ======================

For activations other than ReLU the definition is this package's own. It reduces to the ReLU column for ReLU: the
deconvnet passes a positive signal unchanged; guided backprop multiplies it with the derivative, clamped at 0.

The third decides where max-pooling passes its signal: to the position of the maximum (its switch), or to positions that
a mode of `plugin.kernels.unpooling` fixes for any data. `SIGNAL_RULES` has a row for each of the eight combinations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import OptionError
from ..kernels.unpooling import SWITCH_FREE, Pooling, SwitchFree

UNPOOLING = ("switches", *SWITCH_FREE)


class Pointwise(Protocol):
    """An activation as a rule needs it: x, the function f, and whether f' is nowhere negative."""

    @property
    def input(self) -> Tensor: ...

    def run(self, value: Tensor) -> Tensor: ...

    @property
    def non_decreasing(self) -> bool: ...


@dataclass(frozen=True)
class SignalRule:
    """One row of the table.

    Attributes:
        name: the method's name.
        forward_mask: the signal is multiplied with f'(x), so the data below decide which signal passes.
        backward_relu: the signal is clamped at 0, so its own sign decides whether it passes.
        unpooling: where max-pooling passes its signal: "switches", "center", "corner", "uniform" or "replicate".

    Raises:
        OptionError: `unpooling` is no such mode.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import ModifiedBackprop
    >>> from plugin.rules import SignalRule
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> rule = SignalRule("guided, uniform unpooling", forward_mask=True, backward_relu=True, unpooling="uniform")
    >>> ModifiedBackprop(model, rule).attribute(images, target=3).shape
    torch.Size([2, 3, 8, 8])
    """

    name: str
    forward_mask: bool
    backward_relu: bool
    unpooling: str = "switches"

    def __post_init__(self) -> None:
        if self.unpooling not in UNPOOLING:
            raise OptionError(f"unknown unpooling {self.unpooling!r}: choose one of {', '.join(UNPOOLING)}")

    def with_unpooling(self, unpooling: str) -> "SignalRule":
        """The same rule with another mode of unpooling.

        Args:
            unpooling: one of `UNPOOLING`.

        Raises:
            OptionError: there is no such mode.
        """
        return replace(self, unpooling=unpooling)

    def activation(self, operation: Pointwise) -> Tensor:
        """y = f(x), with this rule as its backward pass.

        Args:
            operation: f and x.
        """
        value = operation.input
        if not self.forward_mask:
            result = _WithoutMask.apply(value, operation.run)
        elif self.backward_relu and operation.non_decreasing:
            # relu(m) f' = relu(m f') where f' >= 0: the product is this node's own, and can be clamped where it lies.
            return _clamp_product(operation.run(value))
        elif self.backward_relu:
            result = operation.run(_clamp_signal(value.view_as(value)))
        else:
            result = operation.run(value)
        return _clamp_arriving(result) if self.backward_relu else result

    def max_pooling(self, operation: Pooling) -> Tensor | tuple[Tensor, Tensor]:
        """The maximum of each window (and its position, if asked for), with this rule as its backward pass.

        Args:
            operation: the pooling and its input.
        """
        if self.unpooling == "switches":
            return operation.function(operation.input)
        result: Tensor | tuple[Tensor, Tensor] = SwitchFree.apply(operation.input, operation, self.unpooling)
        return result


GRADIENT = SignalRule("gradient", forward_mask=True, backward_relu=False)
DECONVNET = SignalRule("deconvnet", forward_mask=False, backward_relu=True)
GUIDED = SignalRule("guided", forward_mask=True, backward_relu=True)
LINEAR_ADJOINT = SignalRule("linear adjoint", forward_mask=False, backward_relu=False, unpooling="center")

SIGNAL_RULES = {
    rule.name: rule
    for rule in (
        GRADIENT,
        replace(GRADIENT, name="gradient without switches", unpooling="center"),
        DECONVNET,
        replace(DECONVNET, name="deconvnet without switches", unpooling="center"),
        GUIDED,
        replace(GUIDED, name="guided without switches", unpooling="center"),
        replace(LINEAR_ADJOINT, name="linear adjoint with switches", unpooling="switches"),
        LINEAR_ADJOINT,
    )
}


class _WithoutMask(torch.autograd.Function):
    """y = f(x) forwards, the identity backwards; nothing is saved."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        result = function(value)
        if result is value:  # in place
            ctx.mark_dirty(value)
        return result

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        return signal, None


def _clamp_product(result: Tensor) -> Tensor:
    """The same tensor; the signal that its backward pass hands down is clamped at 0."""
    if result.grad_fn is not None:
        result.grad_fn.register_hook(lambda products, _: tuple(p if p is None else p.clamp_(min=0) for p in products))
    return result


def _clamp_arriving(result: Tensor) -> Tensor:
    """The same tensor; the signal that its node receives is clamped at 0, after the user's hooks on the tensor."""
    node, position = result.grad_fn, result.output_nr
    if node is not None:
        node.register_prehook(
            lambda signals: tuple(
                signal if signal is None or index != position else signal.clamp(min=0)
                for index, signal in enumerate(signals)
            )
        )
    return result


def _clamp_signal(tensor: Tensor) -> Tensor:
    """The same tensor; the signal that arrives at it is clamped at 0."""
    if tensor.requires_grad:
        tensor.register_hook(lambda signal: signal if signal is None else signal.clamp(min=0))
    return tensor
