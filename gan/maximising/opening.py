"""ReLUs that let a gradient through where they are silent.

A unit whose ReLU gives 0 has no slope, and neither has one behind a layer that is silent altogether: an ascent from
there would stand still. While ReLUs are open they compute what they always do, and a tenth of the gradient passes where
it would be 0, as through a leaky ReLU. It points to where the unit begins to answer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_PASSED = 0.1
_CLIPPED = (F.hardtanh, F.relu6)
_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, *_CLIPPED)
_IN_PLACE = (F.relu_, torch.relu_, Tensor.relu_)


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
        kwargs = kwargs or {}
        if func not in _RELUS:
            return func(*args, **kwargs)
        inputs, *others = args or (kwargs["input"],)
        in_place = func in _IN_PLACE or kwargs.get("inplace") or (bool(others) and others[-1] is True)
        bounds = others[:2] if func is F.hardtanh else [0.0, 6.0] if func is F.relu6 else [0.0, torch.inf]
        low = kwargs.get("min_val", bounds[0] if bounds else -1.0)
        high = kwargs.get("max_val", bounds[1] if len(bounds) > 1 else 1.0)
        opened = _Open.apply(inputs.clone(), inputs.detach().clamp(low, high))
        return inputs.copy_(opened) if in_place else opened
