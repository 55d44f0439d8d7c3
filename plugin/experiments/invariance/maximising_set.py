"""Figure C, the shape of a maximising set: the number of solutions, and the valleys between them.

Activation maximisation is run many times in the code space of a generator G. For the solutions of one unit f:

* modes: the Vendi score (Friedman and Dieng 2023) of the pixels that the unit sees, exp(-sum_i l_i log l_i) with l_i
  the eigenvalues of the matrix of cosines over n: 1 if all are the same, n if they are orthogonal.
* barrier between two: 1 - min f(G(path)) / min f(G(ends)) along the spherical interpolation of their codes: 0 if the
  response nowhere falls below that of the weaker end, 1 if it falls to nothing.
* islands: the number of groups whose members are linked by paths with a barrier of at most a tenth.

A generator may choose among several offsets by the code, and any path from one such branch to another crosses the
images that it draws between two kinds. Barriers within a branch are a fact about the unit; those between branches may
be the generator's. Units see between 9 pixels and the whole image: modes of two layers compare as the ratio to those of
the best images, which are counted on the same pixels.

The same number of the unit's best images, and of random codes, give these numbers without maximisation.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...attr import NeuronModifiedBackprop
from ...seeds import normal, random_generator
from ...statistics import median_of_known, vendi_score
from ..units import layers_with_units, responding_channels, responses_in_the_middle, seen_pixels
from .firing import check_mode
from .sufficiency import Maximizer, target_of

Unit = tuple[int, ...]


@dataclass(frozen=True)
class MaximisingSet:
    """The solutions of one unit. Plain values only, so that `dataclasses.asdict` gives JSON.

    Attributes:
        layer: its name; "" is the network's output.
        unit: channel, row and column in the layer's output, or the channel alone.
        runs: the number of runs; solutions are those with a sufficient final response, see `maximising_sets`.
        codes: the solutions, `[solution][code]`.
        responses: responses to the solutions.
        best_responses: responses to the same number of best images, the best first.
        random_responses: responses to the images of the same number of random codes.
        modes: Vendi score of the solutions, between 1 and their number.
        modes_of_best: Vendi score of the best images.
        modes_of_random: Vendi score of the images of random codes.
        barriers: barrier of each pair of solutions, in the order of `itertools.combinations`.
        profile: along the path, the median over the pairs of the response over that of the weaker end.
        branches: the generator's branch that draws each solution; empty where the generator has none.

    >>> from plugin.experiments.invariance import MaximisingSet
    >>> two = MaximisingSet(
    ...     layer="conv1", unit=[0], runs=2, codes=[[1.0], [-1.0]], responses=[1.0, 1.0], best_responses=[1.0, 0.9],
    ...     random_responses=[0.1, 0.2], modes=2.0, modes_of_best=1.5, modes_of_random=2.0, barriers=[0.8],
    ...     profile=[1.0, 0.2, 1.0],
    ... )
    >>> two.islands()
    2
    """

    layer: str
    unit: list[int]
    runs: int
    codes: list[list[float]]
    responses: list[float]
    best_responses: list[float]
    random_responses: list[float]
    modes: float
    modes_of_best: float
    modes_of_random: float
    barriers: list[float]
    profile: list[float]
    branches: list[int] = field(default_factory=list)

    @property
    def barrier(self) -> float:
        """Median over the pairs; NaN for fewer than two solutions."""
        return median_of_known(self.barriers)

    @property
    def barrier_within(self) -> float:
        """Median over the pairs of one branch of the generator; NaN if there are none."""
        return median_of_known(self._barriers_of(same_branch=True))

    @property
    def barrier_between(self) -> float:
        """Median over the pairs of two branches of the generator; NaN if there are none."""
        return median_of_known(self._barriers_of(same_branch=False))

    @property
    def relative_modes(self) -> float:
        """The modes over those of the best images, on the same pixels."""
        return self.modes / self.modes_of_best

    def _barriers_of(self, same_branch: bool) -> list[float]:
        pairs = itertools.combinations(self.branches or [0] * len(self.codes), 2)
        return [
            barrier for (one, other), barrier in zip(pairs, self.barriers, strict=True) if (one == other) is same_branch
        ]

    def path_over_the_highest_barrier(self, points: int) -> list[list[float]]:
        """Codes along the path between the two solutions with the highest barrier `[point][code]`; may be empty.

        Args:
            points: the number of codes, ends included.
        """
        if not self.barriers:
            return []
        pairs = list(itertools.combinations(range(len(self.codes)), 2))
        ends = pairs[max(range(len(pairs)), key=self.barriers.__getitem__)]
        first, second = (torch.tensor([self.codes[end]], device="cpu") for end in ends)
        path: list[list[float]] = spherical_interpolation(first, second, points)[0].tolist()
        return path

    def islands(self, tolerance: float = 0.1) -> int:
        """The number of groups of solutions that no path connects.

        Args:
            tolerance: the highest barrier of a path that connects two solutions.
        """
        group = list(range(len(self.codes)))
        for (one, other), barrier in zip(itertools.combinations(range(len(group)), 2), self.barriers, strict=True):
            if barrier <= tolerance:
                group = [group[one] if label == group[other] else label for label in group]
        return len(set(group))


def maximising_sets(
    network: nn.Module,
    images: Tensor,
    generate: Callable[[Tensor], Tensor],
    maximizer: Callable[[str], Maximizer],
    layers: Sequence[str] | None = None,
    units: int | Sequence[int] | None = 4,
    runs: int = 16,
    points: int = 11,
    enough: float = 0.5,
    seed: int = 0,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
    branch_of: Callable[[Tensor], Tensor] | None = None,
) -> list[MaximisingSet]:
    """Find and describe the maximising sets of units.

    Args:
        network: in eval mode; it is not changed.
        images: its inputs for comparison `(N, C, H, W)`, at least `runs`.
        generate: from codes `(n, d)` to the network's inputs `(n, C, H, W)`.
        maximizer: makes the maximiser of a layer, whose solutions have codes that `generate` takes.
        layers: names of layers that return `(N, channels, H, W)` or `(N, channels)`, "" for the output; None takes the
            convolutions, the linear layers and the output.
        units: the number of units of each layer, evenly over the channels that respond to some image; a list of
            channels; or None for all that respond to some image.
        runs: the number of runs for each unit, at least two.
        points: the number of points of a path, its ends included; at least three.
        enough: a run that ends above this share of the best response to an image found a solution; >= 0.
        seed: run i of every unit has the seed `seed + i`; it also decides the random codes.
        progress: wraps the loop over the layers, to show the progress.
        branch_of: from codes `(n, d)` to the number of the generator's branch that draws each `(n,)`, as
            `gan.branch_of` gives it; None for a generator without branches.

    Raises:
        ValueError: too few images, runs or points, `enough` is negative, the network is in training mode, a layer is
            unknown, or a channel responds to no image.

    >>> import torch
    >>> from gan import CodeSpaceAM, load, load_classifier
    >>> from plugin.experiments.invariance import maximising_sets
    >>> network, generator = load_classifier("mnist-classifier"), load("gan-mnist").generator
    >>> images = generator(torch.randn(20, generator.code_size))
    >>> maximizer = lambda layer: CodeSpaceAM(network, generator, layer or None)
    >>> (found,) = maximising_sets(network, images, generator, maximizer, [""], units=[3], runs=2)
    >>> found.layer, found.unit, found.runs
    ('', [3], 2)
    """
    check_mode(network)
    if enough < 0:
        raise ValueError(f"enough={enough}: a solution responds, so it is a share of the best response from 0 on")
    if runs < 2 or points < 3 or len(images) < runs:
        raise ValueError(f"{runs} runs, {points} points, {len(images)} images: at least 2, 3, and as many as runs")
    names = layers_with_units(network, images) if layers is None else list(layers)
    found = responses_in_the_middle(network, images, names)
    result = []
    for layer in progress(names):
        values, position = found[layer]
        channels = responding_channels(values, units, layer)
        group = [(channel, *position) for channel in channels]
        targets = [target_of(unit) for unit in group for _ in range(runs)]
        solutions = maximizer(layer).maximize(targets, seeds=[*range(seed, seed + runs)] * len(group))
        for unit, codes in zip(group, solutions.codes.detach().split(runs), strict=True):
            best = values[:, unit[0]].topk(runs)
            described = _Described(network, layer, unit, generate, images, best.indices, branch_of)
            result.append(described.set_of(codes, best.values, points, enough, seed))
    return result


@dataclass(frozen=True)
class _Described:
    """The facts that describe the solutions of one unit."""

    network: nn.Module
    layer: str
    unit: Unit
    generate: Callable[[Tensor], Tensor]
    images: Tensor
    best: Tensor
    branch_of: Callable[[Tensor], Tensor] | None

    def set_of(self, codes: Tensor, best_responses: Tensor, points: int, enough: float, seed: int) -> MaximisingSet:
        best = self.images[self.best]
        random = normal(random_generator(seed), *codes.shape).to(codes)
        pictures, others = self._pictures(codes), self._pictures(random)
        reached, random_responses = self._respond(pictures), self._respond(others)
        solved = reached > enough * best_responses[0]
        adjoint = NeuronModifiedBackprop(self.network, self.layer, "linear adjoint")
        box = seen_pixels(adjoint.attribute(best, target_of(self.unit)))
        centre = self.images.mean(0)
        patches = [(batch - centre)[:, :, *box].flatten(1) for batch in (pictures[solved], best, others)]
        modes = [vendi_score(patch) if len(patch) else 0.0 for patch in patches]
        paths = self._along_paths(codes[solved], points)
        ends = torch.minimum(paths[:, 0], paths[:, -1])
        relative = paths / ends[:, None]
        return MaximisingSet(
            layer=self.layer,
            unit=list(self.unit),
            runs=len(codes),
            codes=codes[solved].tolist(),
            responses=reached[solved].tolist(),
            best_responses=best_responses.tolist(),
            random_responses=random_responses.tolist(),
            modes=modes[0],
            modes_of_best=modes[1],
            modes_of_random=modes[2],
            barriers=(1 - relative.amin(1)).tolist(),
            profile=relative.quantile(0.5, dim=0).tolist() if len(relative) else [],
            branches=[] if self.branch_of is None else self.branch_of(codes[solved]).tolist(),
        )

    def _along_paths(self, codes: Tensor, points: int) -> Tensor:
        """Responses along the path between each pair of codes `(pairs, points)`."""
        if len(codes) < 2:
            return codes.new_empty(0, points)
        first, second = torch.triu_indices(len(codes), len(codes), offset=1, device="cpu")
        paths = spherical_interpolation(codes[first], codes[second], points)
        return self._respond(self._pictures(paths.flatten(0, 1))).view(-1, points)

    @torch.no_grad()
    def _pictures(self, codes: Tensor, batch_size: int = 256) -> Tensor:
        return torch.cat([self.generate(batch).detach() for batch in codes.split(batch_size)])

    def _respond(self, pictures: Tensor) -> Tensor:
        return responses_in_the_middle(self.network, pictures, [self.layer])[self.layer][0][:, self.unit[0]]


def spherical_interpolation(first: Tensor, second: Tensor, points: int) -> Tensor:
    """Paths along the arc between codes `(n, d)`, ends included `(n, points, d)` (Shoemake 1985).

        (sin((1 - t) w) first + sin(t w) second) / sin(w),   w the angle between them

    For parallel or opposite codes, which have no unique arc, the path is straight.

    Args:
        first, second: codes `(n, d)`.
        points: the number of points of a path, at least 2.

    >>> import torch
    >>> from plugin.experiments.invariance import spherical_interpolation
    >>> path = spherical_interpolation(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), points=3)
    >>> path.norm(dim=-1).round(decimals=4)  # the length is kept
    tensor([[1., 1., 1.]])
    """
    steps = torch.linspace(0, 1, points, dtype=torch.float64, device=first.device)
    one, other = first.double()[:, None], second.double()[:, None]
    cosine = F.cosine_similarity(one, other, dim=-1).clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    straight = sine < 1e-4
    divisor = torch.where(straight, 1.0, sine)
    start = torch.where(straight, 1 - steps, ((1 - steps) * angle).sin() / divisor)
    stop = torch.where(straight, steps, (steps * angle).sin() / divisor)
    return (start[..., None] * one + stop[..., None] * other).to(first)
