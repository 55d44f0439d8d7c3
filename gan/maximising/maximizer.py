"""The common base of activation maximisation in all spaces: targets, runs, seeds, the two forms of the loop."""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from plugin.devices import as_tensor
from plugin.seeds import normal, random_generator

from ..reals import Reals
from .activations import Activations, evaluating
from .ascent import Ascent, AscentSettings
from .batching import ON_CPU, depends_on_place, in_blocks
from .climbing import Climb
from .reached import wanted_by
from .results import Result
from .targets import Target, Units, entries, several

RUNS = 16
# A class whose logit leads the others by this much has a probability above 0.99.
CLEAR = 7.0


class ActivationMaximizer:
    """Finds images that activate a unit most. Subclasses define codes and their images.

    Attributes:
        classifier: the network whose units are maximised.
        activations: its activations, at its output or at a layer.
        learning_rate: the root mean square of the first step, in the units of the codes.
        code_shape: of one code.
        image_shape: (C, H, W) of the images.
        networks: the modules that are run; they are left exactly as they were.
        noisy: whether `move` is random, so that steps are taken even if the value falls.
        transforms: whether `objective` evaluates other images than those of `render`.
        rows: images per block (`gan.maximising.batching`); None for the usual number.
        exact: whether blocks are filled up, so that a run does not depend on the number of runs.
        climb: the class that chooses the steps.
        leaps: whether a run for a unit that is no class leaps to other codes once it is stuck (`leap`).
        patience: steps without a slope after which a run is given up.
        stop_at: the probability of a class at which runs are frozen by default; None if they make all steps.
    """

    classifier: nn.Module
    activations: Activations
    learning_rate: float
    code_shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    networks: tuple[nn.Module, ...]
    noisy = False
    transforms = False
    rows: int | None = None
    exact: bool = True
    climb: type[Climb] = Climb
    leaps = False
    patience = 30
    stop_at: float | None = 0.99

    def maximize(
        self,
        target: Target,
        runs: int | None = None,
        seed: int = 0,
        *,
        seeds: Sequence[int] | None = None,
        steps: int = 200,
        stop_at: float | Sequence[float] | Tensor | str | None = None,
        least_steps: int = 4,
        repulsion: float = 0.0,
        init: Tensor | None = None,
        real: Reals | None = None,
        callback: Callable[[Result], bool | None] | None = None,
    ) -> Result:
        """Run to the end.

        Args:
            target: the unit, or a list with one per run: an int is a class (a channel of a layer, in the mean over its
                positions), a tuple an index into the activations such as `(channel, row, column)`; or a function of the
                activations `(N, ...)` that returns `(N,)`.
            runs: their number; default one per target, seed or code of `init` where there are several, else 16.
            seed: of the first run; the next runs have the next numbers. The seed decides everything about a run.
            seeds: one per run, instead.
            steps: the largest number of steps.
            stop_at: a run that reaches it is frozen. For a class it is a probability, 0.99 by default; for another unit
                a value, by default none: such a run makes all steps. A list has one per run, None for a unit without
                one. "data" takes the values of the images of `real`: for a class the median probability of its own
                images, for another unit the largest value.
            least_steps: steps before which no run is frozen. A run for a class starts clearly in it and may reach
                `stop_at` at once; these steps still improve it. `least_steps=steps` means no freezing.
            repulsion: pushes the runs for one target apart: the weight, in units of the score, of the mean cosine of a
                run's features with the others'. The runs of a call then depend on each other.
            init: codes to start from `(runs, ...)`, instead of those that the seeds choose.
            real: images for `stop_at="data"`, in any of the forms that `gan.scorecard` takes. Without labels an image
                belongs to the class that the classifier predicts.
            callback: called with the runs after each step; a true value ends them there.

        Returns:
            The finished runs.

        Raises:
            TypeError: a target is none of these.
            ValueError: there is no such unit, a number is out of range, numbers of runs contradict each other, or a run
                would be done twice.

        Warns:
            UserWarning: runs did not reach `stop_at`, with the best value among them; or runs could not start, as their
                unit is silent.

        >>> from gan import CodeSpaceAM, load, load_classifier
        >>> maximizer = CodeSpaceAM(load_classifier("mnist-classifier"), load("dcgan-mnist").generator)
        >>> maximizer.maximize(target=[3, 7], seed=0).images.shape
        torch.Size([2, 1, 28, 28])
        """
        ascent = self._prepare(target, runs, seed, seeds, steps, stop_at, least_steps, repulsion, init, real)
        while not ascent.finished:
            ascent.advance()
            if callback is not None and callback(ascent.result()):
                return ascent.result()
        ascent.warn()
        return ascent.result()

    def iterate(
        self,
        target: Target,
        runs: int | None = None,
        seed: int = 0,
        *,
        seeds: Sequence[int] | None = None,
        steps: int = 200,
        stop_at: float | Sequence[float] | Tensor | str | None = None,
        least_steps: int = 4,
        repulsion: float = 0.0,
        init: Tensor | None = None,
        real: Reals | None = None,
    ) -> Iterator[Result]:
        """The runs of `maximize` step by step, with its arguments and errors. The last result is that of `maximize`.

        Between two steps nothing is held open: the loop may be left at any time.

        Returns:
            An iterator of the runs after each step, with images `(runs, C, H, W)`.

        >>> from gan import CodeSpaceAM, load, load_classifier
        >>> maximizer = CodeSpaceAM(load_classifier("mnist-classifier"), load("dcgan-mnist").generator)
        >>> for frame in maximizer.iterate(target=3, runs=2, steps=4):
        ...     images = frame.images
        >>> images.shape
        torch.Size([2, 1, 28, 28])
        """
        ascent = self._prepare(target, runs, seed, seeds, steps, stop_at, least_steps, repulsion, init, real)

        def frames() -> Iterator[Result]:
            while not ascent.finished:
                ascent.advance()
                yield ascent.result()
            ascent.warn()

        return frames()

    def start(self, units: Units, randoms: list[torch.Generator], clear: Tensor) -> tuple[Tensor, Tensor]:
        """First codes `(n, *code_shape)`, each drawn by its run's random generator alone, and the number tried `(n,)`.

        An image is clearly of a run's class if the logit of this class leads the others by `clear` `(n,)`.
        """
        raise NotImplementedError

    def render(self, codes: Tensor) -> Tensor:
        """Images `(n, C, H, W)` of codes, with their graph."""
        raise NotImplementedError

    def objective(
        self, value: Tensor, images: Tensor, randoms: list[torch.Generator], score: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The objective `(n,)` of each run: its value, unless a subclass smooths it with `score(other images)`."""
        return value

    def move(self, codes: Tensor, share: Tensor, randoms: list[torch.Generator]) -> Tensor:
        """Codes after the prior's move; `share` is each step's size over that of the first, `(n, 1, ...)`."""
        raise NotImplementedError

    def leap(self, codes: Tensor, randoms: list[torch.Generator]) -> Tensor:
        """Codes elsewhere `(n, ...)`, for runs that are stuck at `codes`, drawn by each run's random generator."""
        raise NotImplementedError

    def blocks(self, function: Callable[..., Sequence[Tensor | None]], *batches: Tensor) -> list[Any]:
        """The results of a function of batches, computed in blocks (`gan.maximising.batching`)."""
        return in_blocks(function, *batches, rows=self.rows, filled=self.exact)

    def settle_rows(self) -> None:
        """Compute images one by one where the networks' kernels round a row by its place in a block."""
        # Elsewhere the order of summation may vary, and blocks save too much; a warning tells of random numbers.
        if not self.exact or self.rows == 1 or self.like.device.type != "cpu" or self.draws:
            return
        with evaluating(*self.networks):
            codes = random_codes((self.rows or ON_CPU, *self.code_shape), [random_generator(0)], self.like)[0]
            if depends_on_place(lambda some: self.activations(self.render(some)), codes):
                self.rows = 1

    @property
    def draws(self) -> bool:
        """Whether a network draws random numbers in its forward pass (`gan.maximising.held_noise`)."""
        return self.activations.held.draws

    @torch.inference_mode(False)
    def _prepare(
        self,
        target: Target,
        runs: int | None,
        seed: int,
        seeds: Sequence[int] | None,
        steps: int,
        stop_at: float | Sequence[float] | Tensor | str | None,
        least_steps: int,
        repulsion: float,
        init: Tensor | None,
        real: Reals | None,
    ) -> Ascent:
        """Check all arguments, and find the starting codes, before the first step."""
        init = None if init is None else self._checked(init)
        try:
            seeds = None if seeds is None else [*seeds]
        except TypeError as error:
            raise TypeError(f"seeds={seeds!r}: give one whole number for each run") from error
        count = self._count(target, None if runs is None else whole("runs", runs), seeds, init)
        if seeds is None:
            seeds = range(whole("seed", seed), whole("seed", seed) + count)
        numbers = [whole("a seed", number) for number in seeds]
        units = Units(target, count, self.activations)
        _refuse_repeated(units, numbers, init)
        wanted = wanted_by(units, self, stop_at, real)
        settings = AscentSettings(whole("steps", steps), wanted, whole("least_steps", least_steps), float(repulsion))
        randoms = [random_generator(number) for number in numbers]
        if init is None:
            codes, tried = self.start(units, randoms, _clear(wanted, count, of_data=isinstance(stop_at, str)))
        else:
            codes, tried = init, torch.ones(count, dtype=torch.int64, device="cpu")
        return Ascent(self, units, codes, tried, numbers, randoms, settings)

    def _count(self, target: Target, runs: int | None, seeds: Sequence[int] | None, init: Tensor | None) -> int:
        """The number of runs asked for."""
        if runs is not None and runs < 1:
            raise ValueError(f"runs={runs}: at least one run is needed")
        asked = {
            "runs": runs,
            "targets": len(entries(target)) if several(target) else None,
            "seeds": None if seeds is None else len(seeds),
            "codes of init": None if init is None else len(init),
        }
        given = {name: number for name, number in asked.items() if number is not None}
        if len(set(given.values())) > 1 or 0 in given.values():
            numbers = ", ".join(f"{number} {name}" for name, number in given.items())
            raise ValueError(f"{numbers} were given: each run needs one of each, so give equal numbers above 0")
        return next(iter(given.values()), RUNS)

    def _checked(self, init: Tensor) -> Tensor:
        init = as_tensor(init)
        if tuple(init.shape[1:]) != self.code_shape:
            shape = ", ".join(map(str, self.code_shape))
            raise ValueError(f"init has shape {tuple(init.shape)}: codes are (runs, {shape})")
        if not bool(init.isfinite().all()):
            raise ValueError("init holds NaN or infinite values: give finite codes")
        return init.detach().to(self.like)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the codes: the networks' own, but float32 for half precision."""
        tensors = [tensor for network in self.networks for tensor in (*network.parameters(), *network.buffers())]
        known = (tensor for tensor in tensors if not is_lazy(tensor) and tensor.is_floating_point())
        found = next(known, torch.zeros((), device="cpu")).detach()
        return found if found.dtype == torch.float64 else found.flatten()[:1].float()


def whole(name: str, value: Any) -> int:
    """A whole number.

    Raises:
        TypeError: the value is no integer.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}={value!r}: give a whole number") from error


def positive(name: str, value: Any) -> float:
    """A number above 0.

    Raises:
        TypeError: the value is no number.
        ValueError: the value is 0, negative, infinite or NaN.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}={value!r}: give a number") from error
    if not 0 < number < math.inf:
        raise ValueError(f"{name}={value}: it must be above 0, and finite")
    return number


def check_shape(name: str, shape: Sequence[int], axes: Sequence[str]) -> None:
    """
    Raises:
        ValueError: the shape does not have these axes, or one of them is no whole number above 0.
    """
    if not isinstance(shape, Sequence) or len(shape) != len(axes) or not all(isinstance(n, int) for n in shape):
        raise ValueError(f"{name} {shape} is not ({', '.join(axes)})")
    if min(shape) < 1:
        raise ValueError(f"{name} {shape} is not ({', '.join(axes)}), each at least 1")


def random_codes(shape: tuple[int, ...], randoms: list[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal numbers `(n, *shape)`, each row from its own generator; the same on every device."""
    return torch.stack([normal(random, *shape) for random in randoms]).to(like)


def _clear(wanted: float | Tensor | None, count: int, of_data: bool) -> Tensor:
    """The lead that a class needs at the start of a run `(count,)`: `CLEAR`, or that of real images if it is less."""
    clear = torch.full((count,), CLEAR, device="cpu")
    if not of_data or wanted is None:
        return clear
    return torch.minimum(clear, torch.as_tensor(wanted, device="cpu").logit())


def _refuse_repeated(units: Units, seeds: list[int], init: Tensor | None) -> None:
    if init is not None:
        return
    seen = set()
    for key, target, seed in zip(units.keys, units.targets, seeds, strict=True):
        run = key, seed % 2**64  # a random generator takes seeds modulo 2**64
        if run in seen:
            raise ValueError(f"seed {seed} is given twice for target {target!r}: both runs would be the same")
        seen.add(run)
