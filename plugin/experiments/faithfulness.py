"""Does a map predict the effect of removing pixels? Deletion and insertion curves beside random orders.

Deletion (Petsiuk et al. 2018, "RISE"; region perturbation in Samek et al. 2017) removes the regions of a picture one
after the other, those with the largest relevance first, and notes the score. Insertion starts from the empty picture
and puts the same regions back in the same order. With f(i) the score after the share i of all regions,

    area           A = integral of f over [0, 1], by the trapezoidal rule
    removal ratio  r = 1 + (A(insertion) - A(deletion)) / (f(picture) - f(empty picture))

A random order of the regions has r = 1 in expectation: deleting in an order is inserting in the reversed one. A map
that predicts removal has r > 1, for its deletion falls sooner and its insertion rises sooner; its negative has r < 1.
Only the order of the values counts, with their signs: the regions that the map draws in the deepest red go first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Regions along a picture's side. Single pixels of a large picture would be noise to a network, not missing parts.
_REGIONS_PER_SIDE = 16


@dataclass(frozen=True)
class RemovalCurves:
    """The score while regions of a picture are removed or put back, for N pictures, on the processor.

    Attributes:
        shares: of the regions that were removed or put back, from 0 to 1 `(steps + 1,)`.
        deletion: the score after each share was removed, by the map `(N, steps + 1)`.
        insertion: the score after each share was put back, by the map `(N, steps + 1)`.
        random: the scores of deletion in random orders `(orders, N, steps + 1)`. Reversed they are those of insertion.

    >>> import torch
    >>> from plugin.experiments.faithfulness import RemovalCurves
    >>> shares, random = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[[4.0, 2.0, 0.0]]] * 2)
    >>> fall, rise = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, 4.0]])
    >>> curves = RemovalCurves(shares, deletion=fall, insertion=rise, random=random)
    >>> curves.ratio  # a random order has 1
    tensor([1.5000])
    """

    shares: Tensor
    deletion: Tensor
    insertion: Tensor
    random: Tensor

    @property
    def deletion_area(self) -> Tensor:
        """Mean height of the deletion curve, in units of the score `(N,)`; smaller is better."""
        return self._area(self.deletion)

    @property
    def insertion_area(self) -> Tensor:
        """Mean height of the insertion curve, in units of the score `(N,)`; larger is better."""
        return self._area(self.insertion)

    @property
    def random_area(self) -> Tensor:
        """Mean height of the deletion curves of random orders, in units of the score `(N,)`."""
        return self._area(self.random).mean(0)

    @property
    def fall(self) -> Tensor:
        """Score of the picture minus that of the empty picture `(N,)`; negative if the picture lowers the score."""
        return self.deletion[:, 0] - self.deletion[:, -1]

    @property
    def ratio(self) -> Tensor:
        """How much better than a random order the map predicts removal `(N,)`, see above; infinite or NaN if the
        empty picture has the same score. It means something where `fall` is large against the random orders' spread."""
        return 1 + (self.insertion_area - self.deletion_area) / self.fall

    @property
    def spread(self) -> Tensor:
        """Standard deviation of the areas of random orders, as a share of the magnitude of `fall` `(N,)`, >= 0."""
        return self._area(self.random).std(0) / self.fall.abs()

    def _area(self, curve: Tensor) -> Tensor:
        return torch.trapezoid(curve, self.shares, dim=-1)


@torch.no_grad()
def removal_curves(
    score: Callable[[Tensor], Tensor],
    inputs: Tensor,
    attribution: Tensor,
    steps: int = 8,
    orders: int = 3,
    region: int | None = None,
    empty: Tensor | None = None,
    seed: int = 0,
    batch: int = 8,
    before_pass: Callable[[], None] = lambda: None,
) -> RemovalCurves:
    """Remove regions in the order of their relevance and put them back, beside random orders.

    The score is computed of 2 + (steps - 1) * (2 + orders) versions of each picture.

    Args:
        score: the explained output `(N,)` of pictures `(N, C, H, W)`, such as a logit.
        inputs: pictures `(N, C, H, W)`.
        attribution: their map, signed, `(N, C, H, W)` or `(N, 1, H, W)`; it is summed over the channels.
        steps: in how many parts of equal size the regions go.
        orders: the number of random orders, at least 2: they have a spread.
        region: the side in pixels of a square region, whose relevance is the mean of its pixels. By default a
            sixteenth of the shorter side. Regions at the right and lower edge may be smaller.
        empty: the values of a removed region, of a shape that expands to that of `inputs`; by default the mean
            of each channel of the picture.
        seed: of the random orders.
        batch: how many pictures the score is given at a time, at least the N of one version.
        before_pass: called before each evaluation of the score; it may raise, which ends the work.

    Raises:
        ValueError: the shapes do not fit, the map has a value that is not finite, or there are too few steps, orders or
            pixels in a region.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.experiments.faithfulness import removal_curves
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> attribution = LRPTranspose(model).attribute(images, target=3)
    >>> curves = removal_curves(lambda pictures: model(pictures)[:, 3], images, attribution)
    >>> curves.deletion.shape, curves.ratio.shape
    (torch.Size([2, 9]), torch.Size([2]))
    """
    side = max(1, round(min(inputs.shape[2:]) / _REGIONS_PER_SIDE)) if region is None else region
    _refuse(inputs, attribution, steps, orders, side)
    blank = (inputs.mean((2, 3), keepdim=True) if empty is None else empty).expand_as(inputs)
    # Float64, so that means of many pixels do not change the order.
    relevance = F.avg_pool2d(attribution.double().sum(1, keepdim=True), side, ceil_mode=True)
    by_map = relevance.flatten(1).argsort(dim=1, descending=True, stable=True)
    count = by_map.shape[1]
    ends = [round(count * step / steps) for step in range(steps + 1)]
    # One order serves all pictures, so that a picture's numbers do not depend on those before it.
    generators = [torch.Generator().manual_seed(seed + number) for number in range(orders)]
    random = [
        torch.randperm(count, generator=each, device="cpu").expand_as(by_map).to(by_map.device) for each in generators
    ]
    # An order of the regions, and the places in it that are gone: from the first up to before the last.
    parts = [(by_map, 0, 0), (by_map, 0, count)]
    parts += [(order, 0, end) for order in (by_map, *random) for end in ends[1:-1]]
    parts += [(by_map, end, count) for end in ends[1:-1]]

    def without(order: Tensor, first: int, last: int) -> Tensor:
        ranks = order.argsort(dim=1).view(relevance.shape)
        return torch.where(_enlarged((ranks >= first) & (ranks < last), side, inputs), blank, inputs)

    scores, together = [], max(1, batch // len(inputs))
    for start in range(0, len(parts), together):
        before_pass()
        some = parts[start : start + together]
        scores.append(score(torch.cat([without(*part) for part in some])).view(len(some), len(inputs)))
    whole, nothing, *between = torch.cat(scores).cpu().split([1, 1] + [steps - 1] * (orders + 2))
    deletion, *others = (torch.cat([whole, part, nothing]).T for part in between[:-1])
    return RemovalCurves(
        whole.new_tensor(ends) / count,
        deletion,
        torch.cat([nothing, between[-1], whole]).T,
        torch.stack(others),
    )


def _refuse(inputs: Tensor, attribution: Tensor, steps: int, orders: int, side: int) -> None:
    if inputs.ndim != 4 or attribution.shape not in (inputs.shape, (len(inputs), 1, *inputs.shape[2:])):
        raise ValueError(
            f"a map {tuple(attribution.shape)} does not fit pictures {tuple(inputs.shape)}: give both as (N, C, H, W), "
            "the map with C or 1 channels"
        )
    if not bool(attribution.isfinite().all()):
        raise ValueError("the map has values that are not finite, which have no order: remove them first")
    for name, value, least in (("steps", steps, 1), ("orders", orders, 2), ("region", side, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: give at least {least}")


def _enlarged(regions: Tensor, side: int, inputs: Tensor) -> Tensor:
    """Regions `(N, 1, h, w)` as pixels `(N, 1, H, W)`."""
    rows, columns = inputs.shape[2:]
    return regions.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :rows, :columns]
