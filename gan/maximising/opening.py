"""ReLUs that let a gradient through where their slope is 0.

A unit whose ReLU gives 0 has no slope, and neither has one behind a layer that is silent altogether: an ascent from
there would stand still. While ReLUs are open their outputs are unchanged, and a tenth of the gradient passes where
it would be 0, as through a leaky ReLU. It points to images that the unit responds to.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from plugin.propagation.in_place import in_place_form
from plugin.propagation.operations import operation_of

_PASSED = 0.1
# Rows of the table of operations: functions that are piecewise the identity or constant.
_RELUS = frozenset({"relu", "relu6", "hardtanh"})


class _Open(torch.autograd.Function):
    """Given outputs as a function of inputs: the whole gradient where both are equal, elsewhere a tenth."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs == outputs)
        return outputs.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (passed,) = ctx.saved_tensors
        return gradients[0] * torch.where(passed, 1.0, _PASSED).to(gradients[0]), None


class OpenRelus(TorchFunctionMode):
    """While it is active, ReLUs of this thread let a part of every gradient through."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        form = in_place_form(func)
        function = func if form is None else form.functional
        row = operation_of(function)
        if row is None or row.name not in _RELUS:
            return func(*args, **kwargs)
        overwrites = form is not None and form.requested(args, kwargs)
        if form is not None:
            args, kwargs = form.out_of_place(args, kwargs)
        inputs, *others = args or (kwargs.pop("input"),)
        with torch.no_grad():
            outputs = function(inputs, *others, **kwargs)
        opened = _Open.apply(inputs.clone(), outputs)
        return inputs.copy_(opened) if overwrites else opened
