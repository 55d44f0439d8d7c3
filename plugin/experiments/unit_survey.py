"""The pictures that excite each unit of a layer most, the positions of its responses, and its selectivity for classes.

A unit is a channel of the layer; its response to a picture is the strongest one over all positions. The pictures pass
once, batch by batch: memory grows with the units, and not with the pictures.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..attr import ModifiedBackprop
from ..kernels.tracing import building_graph
from ..observing import LayerCapture, find_layer, outputs_of
from ..propagation import ConvolutionLayer, Propagation, backward
from ..propagation.convolution import differentiate
from ..rules import SignalRule
from ..seeds import normal, random_generator
from .units import seen_pixels

# Every pixel that a unit can see has a share in this signal: no activation and no pooling keeps any from it.
_REACH = SignalRule("reach", forward_mask=False, backward_relu=False, unpooling="replicate")


class PictureBatch(NamedTuple):
    """Some pictures.

    Attributes:
        inputs: as the network takes them `(n, C, H, W)`.
        numbers: which pictures they are, `n` of them.
        labels: their classes, -1 where one is not known; empty if none is.

    >>> import torch
    >>> from plugin.experiments.unit_survey import PictureBatch
    >>> PictureBatch(torch.rand(2, 3, 16, 16), numbers=[40, 41], labels=[7, -1]).numbers
    [40, 41]
    """

    inputs: Tensor
    numbers: Sequence[int]
    labels: Sequence[int] = ()


@dataclass(frozen=True)
class UnitSurvey:
    """The pictures to which the units of a layer respond most, among those seen so far.

    Attributes:
        values: the strongest responses of each unit, the strongest first `(units, k)`; of equal ones, that
            to the picture seen first comes first.
        pictures: the numbers of these pictures `(units, k)`.
        positions: where in the layer's output each response is, such as row and column `(units, k, 2)`; of a layer
            without positions `(units, k, 0)`.
        class_sums: of responses, without negative ones, by class `(classes, units)`.
        class_counts: of pictures by class `(classes,)`.
        seen: how many pictures there were.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.experiments.unit_survey import PictureBatch, survey_units
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    >>> batch = PictureBatch(torch.rand(6, 3, 16, 16), range(6), labels=[0, 1, 0, 1, 0, 1])
    >>> found = survey_units(network, "1", [batch], count=5, classes=2)
    >>> found.seen, found.selectivity.shape  # of each class, for each of the four units
    (6, torch.Size([2, 4]))
    """

    values: Tensor
    pictures: Tensor
    positions: Tensor
    class_sums: Tensor
    class_counts: Tensor
    seen: int

    @property
    def selectivity(self) -> Tensor:
        """How much more each unit responds to a class than to the others `(classes, units)`, from -1 to 1.

        (m - o) / (m + o) for the mean response m to the class, and the mean o of those to the other classes (Morcos et
        al. 2018, where the class is that of the largest m). 0 where a unit responds to nothing; NaN for a class without
        a picture, or the only one with any.
        """
        known = self.class_counts > 0
        means = self.class_sums / self.class_counts.clamp(min=1)[:, None]
        others = (means.sum(0) - means) / (int(known.sum()) - 1) if int(known.sum()) > 1 else means * torch.nan
        index = (means - others) / (means + others).clamp(min=torch.finfo(means.dtype).tiny)
        return index.masked_fill(~known[:, None], torch.nan)

    def with_batch(self, outputs: Tensor, batch: PictureBatch, count: int) -> "UnitSurvey":
        """The same with more pictures.

        Args:
            outputs: of the layer, with the units in the second dimension `(n, units, ...)`.
            batch: the pictures.
            count: how many are kept for each unit, at most.
        """
        responses, positions = _strongest(outputs)
        responses = responses.where(~responses.isnan(), -torch.inf)
        numbers = torch.tensor(list(batch.numbers), device="cpu").expand(outputs.shape[1], -1)
        values, best = torch.cat([self.values, responses.T], 1).sort(dim=1, descending=True, stable=True)
        best = best[:, :count]
        labels = torch.tensor(list(batch.labels) or [-1] * len(outputs), device="cpu")
        known = (labels >= 0) & (labels < len(self.class_counts))
        rectified = responses[known].clamp(min=0).to(self.class_sums.dtype)
        return UnitSurvey(
            values[:, :count],
            torch.cat([self.pictures, numbers], 1).gather(1, best),
            torch.cat([self.positions, positions], 1).gather(1, best[..., None].expand(-1, -1, positions.shape[2])),
            self.class_sums.index_add(0, labels[known], rectified),
            self.class_counts + torch.bincount(labels[known], minlength=len(self.class_counts)),
            self.seen + len(outputs),
        )


def survey_units(
    network: nn.Module,
    layer: str,
    batches: Iterable[PictureBatch],
    count: int = 9,
    classes: int = 0,
    channel: int = 1,
    progress: Callable[[UnitSurvey], None] = lambda survey: None,
    used_once: bool = False,
) -> UnitSurvey:
    """Find the pictures that excite each unit of a layer most.

    Args:
        network: any network in eval mode; it may be shared between threads and is not changed.
        layer: the name of a module that returns `(N, units)`, `(N, units, ...)`, or the units in another dimension.
        batches: the pictures.
        count: how many are kept for each unit.
        classes: how many there are, where the pictures have labels.
        channel: the dimension of the units in the layer's output.
        progress: called after each batch with the results so far; an error that it raises ends the survey.
        used_once: whether the layer is known to be used once in a forward pass, which then ends at it.

    Raises:
        ValueError: there are no pictures.
        LayerError: as in `plugin.observing.outputs_of`.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.experiments.unit_survey import PictureBatch, survey_units
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    >>> images = torch.rand(20, 3, 16, 16)
    >>> batches = (PictureBatch(images[i : i + 8], range(20)[i : i + 8]) for i in range(0, 20, 8))
    >>> found = survey_units(network, "0", batches, count=5)
    >>> found.values.shape, found.pictures.shape, found.positions.shape  # of each of the four units
    (torch.Size([4, 5]), torch.Size([4, 5]), torch.Size([4, 5, 2]))
    """
    found: UnitSurvey | None = None
    for batch in batches:
        outputs = outputs_of(network, [layer], batch.inputs, used_once=used_once)[layer].movedim(channel, 1)
        outputs = outputs.float().cpu()
        found = (found or _empty(outputs, classes)).with_batch(outputs, batch, count)
        progress(found)
    if found is None:
        raise ValueError(f"there are no pictures for layer {layer!r}: give at least one batch")
    return found


def receptive_fields(
    network: nn.Module,
    layer: str,
    input_shape: tuple[int, ...],
    positions: Sequence[tuple[int, ...]],
    channel: int = 1,
    batch_size: int = 8,
) -> list[tuple[slice, slice]]:
    """The rows and columns of the input that the units at some positions of a layer can see.

    Found from the network itself, by a signal that goes back from all channels of a position: it is exact wherever the
    network is made of convolutions, pooling and activations. A gate or attention over the whole picture sees all of it.

    Args:
        network: any network in eval mode.
        layer: the name of one of its modules.
        input_shape: of one input `(C, H, W)`.
        positions: in the layer's output, such as (row, column); () for a layer without positions.
        channel: the dimension of the units in the layer's output.
        batch_size: the number of positions processed at a time.

    Raises:
        AttributionError: as in `plugin.attr.NeuronModifiedBackprop.attribute`.

    >>> from torch import nn
    >>> from plugin.experiments.unit_survey import receptive_fields
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).eval()
    >>> receptive_fields(network, "2", (3, 16, 16), [(0, 0), (2, 3)])
    [(slice(0, 4, None), slice(0, 4, None)), (slice(4, 8, None), slice(6, 10, None))]
    """
    device = next(network.parameters(), torch.empty(0, device="cpu")).device
    # Noise, so that no derivative of the network happens to be zero.
    noise = normal(random_generator(0), 1, *input_shape).to(device)
    fields: list[tuple[slice, slice]] = []
    with building_graph():
        inputs = noise.repeat(min(batch_size, len(positions)), 1, 1, 1).requires_grad_()
        units_last = _reaching(network, layer, inputs).movedim(channel, -1) if positions else inputs
        # The network runs once: of all positions, only the signals differ.
        for start in range(0, len(positions), batch_size):
            some = positions[start : start + batch_size]
            where = [torch.tensor(index, device=device) for index in zip(*some, strict=True)]
            selected = units_last[(torch.arange(len(some), device=device), *where)].sum(-1)
            signals = cast(Tensor, backward(selected, [inputs], keep_graph=True)[0])
            fields += [seen_pixels(signal[None]) for signal in signals[: len(some)].cpu()]
    return fields


def _reaching(network: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """The output of a layer, from which `_REACH` takes a signal back to the inputs."""
    capture = LayerCapture(network, find_layer(network, layer), at_input=False)
    rules = {ConvolutionLayer: differentiate, **ModifiedBackprop(network, _REACH).rules}
    propagation = Propagation(network, rules, (), capture.on_enter, capture.on_exit)
    with propagation:
        network(inputs.clone())
    output = capture.dependent_tensors()[0]
    propagation.check(output)
    return output


def _strongest(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The strongest response of each unit to each picture `(n, units)`, and its position `(units, n, axes)`."""
    if outputs.ndim == 2:
        return outputs, outputs.new_empty(*outputs.T.shape, 0, dtype=torch.long)
    responses, places = outputs.flatten(2).max(2)
    return responses, torch.stack(torch.unravel_index(places.T, outputs.shape[2:]), 2)


def _empty(outputs: Tensor, classes: int) -> UnitSurvey:
    """A survey of the units of these outputs `(n, units, ...)` that has seen no picture."""
    units = outputs.shape[1]
    with torch.device("cpu"):
        return UnitSurvey(
            torch.empty(units, 0), torch.empty(units, 0, dtype=torch.long),
            torch.empty(units, 0, outputs.ndim - 2, dtype=torch.long), torch.zeros(classes, units, dtype=torch.float64),
            torch.zeros(classes, dtype=torch.long), 0,
        )  # fmt: skip
