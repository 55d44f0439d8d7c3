"""The divisions of the epsilon rule, for several layers at once.

On a GPU, an operation on a few values takes no longer than its launch, and the rule m -> W^T (m y / st(y)) has four of
them beside the transposed operator. As y / st(y) does not depend on m, three launches compute it for many layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from ...kernels.pointwise import stabilised_quotients
from ...rules.lrp import Epsilon

if TYPE_CHECKING:
    from .layers import LayerRecord

# The number of values that are divided at once: 8 MB in float32, little beside the activations of a network.
_AT_ONCE = 1 << 21


class Quotients:
    """y / st(y) of the layers under the epsilon rule, computed for a few layers ahead of the backward pass.

    Args:
        outputs: y of layers, in the order in which they ran.
    """

    def __init__(self, outputs: Mapping[LayerRecord, Tensor]) -> None:
        self._waiting = [
            (layer, output, layer.rule.epsilon)
            for layer, output in outputs.items()
            if type(layer.rule) is Epsilon and layer.rule.epsilon
        ]
        self._known: dict[LayerRecord, Tensor] = {}

    def take(self, layer: LayerRecord) -> Tensor | None:
        """The quotient of a layer, once; None if the layer has to compute it."""
        if layer not in self._known:
            last = next((index for index, (other, _, _) in enumerate(self._waiting) if other is layer), None)
            if last is not None:
                self._compute(last)
        return self._known.pop(layer, None)

    def _compute(self, last: int) -> None:
        """Compute the quotients of a layer, and of those before it that the backward pass will reach next."""
        first, size = last, self._waiting[last][1].numel()
        while first and (size := size + self._waiting[first - 1][1].numel()) <= _AT_ONCE:
            first -= 1
        layers, outputs, epsilons = zip(*self._waiting[first : last + 1], strict=True)
        del self._waiting[first : last + 1]
        self._known.update(zip(layers, stabilised_quotients(outputs, epsilons), strict=True))
