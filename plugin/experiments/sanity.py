"""Does a map depend on the trained weights, and on the class? (Adebayo et al. 2018, "Sanity checks for saliency maps".)

The weights of the last layers are replaced by random ones of the same mean and deviation, from the output down, one
more layer each time. A map that explains the network must change, and so must one that explains another class. The
measure is the rank correlation (Spearman) of the map before and after, once with signs and once of the absolute values;
1 means no change. Maps of methods that mostly show edges change little, independent of the weights.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..observing import ModuleTrace
from ..random_weights import SeededWeights

TARGET = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None


class Attributing(Protocol):
    """An attribution with Captum's API."""

    def attribute(self, inputs: Tensor, *, target: TARGET) -> Tensor: ...


# Above this rank correlation two maps count as nearly the same: with 0.7, the ranks of the one explain half of the
# variance of the ranks of the other (0.7 squared is 0.49).
NEARLY_THE_SAME = 0.7


@dataclass(frozen=True)
class Similarity:
    """How alike two maps of the same inputs are.

    Attributes:
        signed: rank correlation of their values, in [-1, 1], mean over the examples; -1 if one is the other's negative.
        magnitude: the same of their absolute values; 1 also if one is the other's negative.

    >>> from plugin.experiments.sanity import Similarity
    >>> Similarity(signed=-1.0, magnitude=1.0).unchanged  # a map and its negative
    -1.0
    """

    signed: float
    magnitude: float

    @property
    def unchanged(self) -> float:
        """The smaller of the two, in [-1, 1]: a map is the same only if its strengths are, and its signs as well."""
        return min(self.signed, self.magnitude)


@dataclass(frozen=True)
class Step:
    """The effect of one more random layer.

    Attributes:
        layer: the layer that was randomised, in addition to those of earlier steps.
        similarity: to the map of the untouched network.
    """

    layer: str
    similarity: Similarity


@dataclass(frozen=True)
class RandomisationCheck:
    """The change of a map as the network is randomised from the output down.

    Attributes:
        steps: one per layer.
        maps: the map before, and after each step `(steps + 1, *inputs.shape)`.
        threshold: rank correlation above which a map counts as hardly changed, with signs and without.

    >>> import torch
    >>> from plugin.experiments.sanity import RandomisationCheck, Similarity, Step
    >>> steps = (Step("fc", Similarity(signed=0.2, magnitude=0.3)),)
    >>> check = RandomisationCheck(steps, torch.zeros(2, 1, 3, 8, 8), threshold=0.7)
    >>> check.hardly_changes
    False
    >>> print(check.summary)
    rank correlation 0.20 with the map after fc was randomised: the map depends on these weights
    """

    steps: tuple[Step, ...]
    maps: Tensor
    threshold: float

    @property
    def hardly_changes(self) -> bool:
        """Whether the map is still nearly the same when all of the layers are random."""
        return self.steps[-1].similarity.unchanged > self.threshold

    @property
    def summary(self) -> str:
        """The finding in one sentence."""
        last = self.steps[-1]
        layers = f"{last.layer} was" if len(self.steps) == 1 else f"the last {len(self.steps)} layers were"
        verdict = (
            "the map hardly depends on these weights, so do not read it as the reason for an output"
            if self.hardly_changes
            else "the map depends on these weights"
        )
        return f"rank correlation {last.similarity.unchanged:.2f} with the map after {layers} randomised: {verdict}"


def randomisation_check(
    method: Callable[[nn.Module], Attributing],
    model: nn.Module,
    inputs: Tensor,
    target: TARGET = None,
    layers: int | Sequence[str] = 1,
    seed: int = 0,
    threshold: float = NEARLY_THE_SAME,
) -> RandomisationCheck:
    """Randomise the last layers of a copy, and compare its maps with the model's.

    Args:
        method: makes the attribution of a network: a class such as `GuidedBackprop`, or
            `lambda network: Deconvolution(network, unpooling="center")`.
        model: the network; it is copied, never changed.
        inputs: examples `(N, ...)`.
        target: output to explain, as `attribute` takes it.
        layers: the number of last layers with weights, in the order they run; or their names, from the output down.
        seed: decides the random weights.
        threshold: rank correlation above which there is a warning: of the values and of the absolute values.

    Returns:
        The correlations and the maps after each step.

    Raises:
        ValueError: the model has no such layers.

    Warns:
        UserWarning: the map is nearly the same with all of the layers random.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import ModifiedBackprop
    >>> from plugin.experiments.sanity import randomisation_check
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> check = randomisation_check(
    ...     lambda network: ModifiedBackprop(network, "gradient"), model, images, target=3, layers=2, threshold=1.0
    ... )
    >>> [step.layer for step in check.steps]
    ['3', '0']
    >>> -1 <= check.steps[-1].similarity.magnitude <= 1
    True
    """
    names = _last_layers(model, inputs, layers) if isinstance(layers, int) else list(layers)
    modules = dict(model.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown or not names:
        missing = f"has no layer {unknown[0]!r}" if unknown else "cannot be randomised without a layer"
        raise ValueError(f"{type(model).__name__} {missing}: name layers with weights, from the output down")
    network = _copied(model, [modules[name] for name in names])
    modules = dict(network.named_modules())
    random = torch.Generator().manual_seed(seed)
    maps, steps = [method(model).attribute(inputs, target=target)], []
    for name in names:
        _randomise(modules[name], random)
        maps.append(method(network).attribute(inputs, target=target))
        steps.append(Step(name, similarity(maps[0], maps[-1])))
    check = RandomisationCheck(tuple(steps), torch.stack(maps), threshold)
    if check.hardly_changes:
        warnings.warn(check.summary, stacklevel=2)
    return check


def class_check(
    method: Callable[[nn.Module], Attributing], model: nn.Module, inputs: Tensor, target: TARGET, other: TARGET
) -> Similarity:
    """Compare the map of one class with that of another, by the same method.

    Args:
        method: makes the attribution of a network, as for `randomisation_check`.
        model: the network.
        inputs: examples `(N, ...)`.
        target, other: the two outputs, as `attribute` takes them.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import GuidedBackprop
    >>> from plugin.experiments.sanity import class_check
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> found = class_check(GuidedBackprop, model, torch.randn(2, 3, 8, 8), target=3, other=5)
    >>> -1 <= found.signed <= 1
    True
    """
    attribution = method(model)
    return similarity(attribution.attribute(inputs, target=target), attribution.attribute(inputs, target=other))


def untrained(network: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with fresh weights, for comparison with the trained network.

    Convolutions and linear layers are initialised as in He et al. (2015), with biases at 0, so that the signal keeps
    its size through any number of ReLU layers; every other layer is initialised by its class.

    Args:
        network: the network; it is copied, never changed.
        seed: decides the weights.

    >>> from torch import nn
    >>> from plugin.experiments.sanity import untrained
    >>> trained = nn.Linear(3, 2)
    >>> (untrained(trained, seed=1).weight != trained.weight).all().item()
    True
    """
    copied = copy.deepcopy(network)
    with SeededWeights(seed):
        for module in copied.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return copied


def similarity(first: Tensor, second: Tensor) -> Similarity:
    """How alike two sets of maps of the same inputs are; means over the N examples.

    Args:
        first, second: maps `(N, ...)`.

    >>> import torch
    >>> from plugin.experiments.sanity import similarity
    >>> maps = torch.tensor([[1.0, -2.0, 3.0]])
    >>> round(similarity(maps, maps).unchanged, 6), round(similarity(maps, -maps).unchanged, 6)
    (1.0, -1.0)
    """
    signed, magnitude = rank_correlation(first, second), rank_correlation(first.abs(), second.abs())
    return Similarity(float(signed.mean()), float(magnitude.mean()))


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of each pair of maps, in [-1, 1] `(N,)`; 0 if either is constant.

    Args:
        first, second: maps `(N, ...)`.

    >>> import torch
    >>> from plugin.experiments.sanity import rank_correlation
    >>> rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 4.0, 9.0]])).round(decimals=6)
    tensor([1.], dtype=torch.float64)
    """
    ranks = [torch.stack([_ranks(example.flatten()) for example in maps]) for maps in (first, second)]
    one, other = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    norms = one.norm(dim=1) * other.norm(dim=1)
    result: Tensor = (one * other).sum(1) / norms.where(norms > 0, 1.0)
    return result


def _ranks(values: Tensor) -> Tensor:
    """The rank of each value, float64; equal values share their mean rank."""
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    counts = counts.double()
    result: Tensor = (counts.cumsum(0) - counts / 2)[which]
    return result


def _last_layers(model: nn.Module, inputs: Tensor, count: int) -> list[str]:
    """The names of the `count` layers with weights that run last, from the output down."""
    order: dict[nn.Module, None] = {}

    def note(module: nn.Module, _: object) -> None:
        # A module around layers that ran is none itself, though it may hold a class token or a position embedding.
        around = any(inner in order for inner in module.modules() if inner is not module)
        if not around and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            order.pop(module, None)
            order[module] = None

    with torch.no_grad(), ModuleTrace(on_exit=note):
        model(inputs[:1])
    names = {module: name for name, module in model.named_modules()}
    found = [names[module] for module in reversed(order)]
    if not 1 <= count <= len(found):
        raise ValueError(f"layers={count}: {type(model).__name__} has {len(found)} layers with weights")
    return found[:count]


def _copied(model: nn.Module, changed: Sequence[nn.Module]) -> nn.Module:
    """A copy that shares the parameters of all modules but those that will be changed: a large one costs no memory."""
    own = {id(parameter) for module in changed for parameter in module.parameters()}
    return copy.deepcopy(model, {id(shared): shared for shared in model.parameters() if id(shared) not in own})


@torch.no_grad()
def _randomise(module: nn.Module, random: torch.Generator) -> None:
    for parameter in module.parameters():
        values = parameter.detach().double().cpu()
        deviation = values.std(correction=0) if values.numel() > 1 else values.abs().sum()
        noise = torch.randn(values.shape, generator=random, dtype=torch.float64, device="cpu")
        parameter.copy_(values.mean() + deviation * noise)
