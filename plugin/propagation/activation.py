"""An activation of a forward pass, as a rule sees it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .chains import Step


@dataclass(eq=False, slots=True)
class Activation:
    """A pointwise non-linearity y = function(x).

    Attributes:
        name: PyTorch's name, such as "relu" or "gelu"; "" for a chain that has no name in PyTorch.
        input: x, of any shape.
        function: computes y out of place.
        non_decreasing: whether the derivative is nowhere negative.
        non_negative: whether y has no negative entry.
        weight: whether y is the proportion of a signal that passes, such as the output of a sigmoid.
        value: y, if it is already computed.
    """

    name: str
    input: Tensor
    function: Step
    non_decreasing: bool
    non_negative: bool
    weight: bool
    value: Tensor | None = None

    def run(self, value: Tensor) -> Tensor:
        """f, differentiable, at a tensor with the values of x; y is not computed again if it is known."""
        return self.function(value) if self.value is None else _Computed.apply(value, self.function, self.value)


def own_gradient(operation: Activation) -> Tensor:
    """The rule that leaves all operations their gradient, seen or not; that of a ReLU by hand is 0 at 0."""
    return operation.run(operation.input)


class _Computed(torch.autograd.Function):
    """f(x) forwards, from the value computed before; f'(x) backwards."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, function: Step, result: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        ctx.function = function
        return result.detach()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        with torch.enable_grad():
            root = value.detach().requires_grad_()
            result = ctx.function(root)
        if not result.requires_grad:  # it consists of steps
            return torch.zeros_like(value), None, None
        return torch.autograd.grad(result, root, signal)[0], None, None
