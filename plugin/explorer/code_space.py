"""The Code space page's work: activation maximisation in a generator's code space or in pixels, and how it is judged.

What a page asks is a `Plan`; `maximize` carries it out in a worker thread, step by step, and `Outcome` is what it has
found so far: the images on screen, their codes and scores.
"""

import base64
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from torch import Tensor, nn

from plugin import figures
from plugin.experiments.units import evenly
from plugin.propagation.modules import ModuleTrace

from .drawings import versions
from .jobs import Task, name_of
from .memory import Meter
from .networks import DIGITS, Subject, with_suitable_picture
from .state import PIXELS, Settings, axes, follow

if TYPE_CHECKING:  # gan brings its own dependencies along, which other pages need not wait for
    from gan.ascent import Result
    from gan.maximizer import ActivationMaximizer

# Networks that see more pixels than this take so long that fewer runs are made at a time.
_SMALL_SIDE, _MOST_LARGE_RUNS = 64, 4
_GIF_FRAMES, _GRID_SIDE = 60, 460
_REMEMBERED = 16


@dataclass(frozen=True)
class Plan:
    """What is maximised, and how.

    Attributes:
        network: name of the network whose unit it is.
        generator: "dcgan-mnist", "gan-mnist", or `PIXELS`.
        layer: of the unit; empty is the output.
        target: as `gan.CodeSpaceAM.maximize` takes it: a class, a channel in the mean over its positions, or an index.
        prior: of the codes.
        runs, seed, steps: how many, the first one's seed, and the most steps.
        stop_at: the probability at which a run for a class ends; None for other units, which make all steps.
    """

    network: str
    generator: str
    layer: str
    target: int | tuple[int, ...]
    prior: str
    runs: int
    seed: int
    steps: int
    stop_at: float | None

    @property
    def name(self) -> str:
        """Tells plans apart."""
        return name_of(self)


@dataclass(frozen=True)
class Outcome:
    """Runs, finished or on their way.

    Attributes:
        plan: what was asked.
        result: of `gan`, with images `(n, C, H, W)` in [0, 1], codes and scores.
        frames: the images after each step, uint8 `(n, C, H, W)`.
        seconds, peak_bytes: what it took so far.
    """

    plan: Plan
    result: "Result"
    frames: Sequence[Tensor] = field(repr=False)
    seconds: float
    peak_bytes: int | None

    @property
    def scores(self) -> np.ndarray[Any, Any]:
        """The unit's values `(steps made, n)`."""
        return self.result.scores[: self.result.step].cpu().numpy()

    @property
    def finished(self) -> bool:
        """Whether every run has ended by itself: the rows of scores that were not needed are there then."""
        return len(self.result.scores) == self.plan.steps


def suited(settings: Settings, arrived: bool) -> Settings:
    """Settings in which generator and network go together: the GANs draw the digits that one network sees.

    Args:
        settings: of any page.
        arrived: whether the page was just opened. Then the generator decides, so that the page opens with digits; later
            the network does.
    """
    if settings.generator == PIXELS or settings.network == DIGITS:
        return settings
    if not arrived:
        return replace(settings, generator=PIXELS)
    return with_suitable_picture(follow(replace(settings, network=DIGITS), settings, same_classes=False))


def opening(settings: Settings, target: int | None = None) -> Settings:
    """The settings with which other pages lead here: their class or unit, drawn by what suits their network."""
    generator = PIXELS if settings.network != DIGITS else settings.generator
    return replace(settings, generator=generator, target=settings.target if target is None else target)


def plan_of(settings: Settings, subject: Subject) -> Plan:
    """The plan that valid settings ask for; an open class is the first, an open neuron the first in the middle."""
    unit = settings.explain == "neuron"
    side = max(subject.input_shape[1:])
    runs = settings.runs if side <= _SMALL_SIDE else min(settings.runs, _MOST_LARGE_RUNS)
    return Plan(
        network=subject.name,
        generator=settings.generator,
        layer=settings.layer if unit else "",
        target=_unit(settings, subject.layers[settings.layer]) if unit else settings.target or 0,
        prior="" if settings.generator == PIXELS else settings.prior,
        runs=runs,
        seed=settings.seed,
        steps=settings.steps,
        stop_at=None if unit else settings.stop_at,
    )


def _unit(settings: Settings, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    neuron = settings.neuron or middle(shape)
    if len(shape) == 1 or (settings.span == "channel" and has_channels(shape)):
        return neuron[0]
    return neuron


def has_channels(shape: tuple[int, ...]) -> bool:
    """Whether the layer's first axis are channels with positions, whose mean can be maximised."""
    return axes(shape) == ("channel", "row", "column")


def middle(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The first channel's unit in the middle of a layer of this output shape."""
    sizes = zip(axes(shape), shape, strict=True)
    return tuple(size // 2 if name in ("row", "column", "position") else 0 for name, size in sizes)


def described(plan: Plan, subject: Subject) -> str:
    """The unit, for people."""
    if not plan.layer:
        assert isinstance(plan.target, int)
        return f"class {subject.model.classes[plan.target]}"
    shape = subject.layers[plan.layer]
    index = plan.target if isinstance(plan.target, tuple) else (plan.target,)
    named = ", ".join(f"{axis} {number}" for axis, number in zip(axes(shape), index, strict=False))
    return f"{plan.layer}, {named}" + (" (mean over its positions)" if len(index) < len(shape) else "")


def maximizer_of(plan: Plan, subject: Subject) -> "ActivationMaximizer":
    """What `gan` maximises with."""
    from gan import CodeSpaceAM, PixelAM, load

    # Runs take long: pages that show the same network meanwhile hook its modules, and must not meet them there.
    layer, network = plan.layer or None, subject.twin()
    if plan.generator == PIXELS:
        channels, height, width = subject.input_shape
        return PixelAM(network, (channels, height, width), layer, normalisation(subject))
    return CodeSpaceAM(network, load(plan.generator).generator, layer, plan.prior)


def normalisation(subject: Subject) -> Callable[[Tensor], Tensor] | None:
    """From images in [0, 1] to the network's input; None where it takes them as they are."""
    from torchvision.transforms import Normalize

    mean, std = subject.model.preprocessing.mean, subject.model.preprocessing.std
    if set(mean) == {0.0} and set(std) == {1.0}:
        return None
    normalise: Callable[[Tensor], Tensor] = Normalize(mean, std)
    return normalise


def maximize(task: Task, plan: Plan, subject: Subject) -> Outcome:
    """Carry a plan out, for a `jobs.Job`; what is shown is the `Outcome` so far."""
    begin = partial(task.report, 0.0, "Choosing where to start …")
    begin()
    maximizer = maximizer_of(plan, subject)
    frames: list[Tensor] = []
    with Meter(maximizer.like.device) as meter:
        with interruptible(maximizer.networks[0], begin):
            running = maximizer.iterate(plan.target, plan.runs, plan.seed, steps=plan.steps, stop_at=plan.stop_at)
        for result in running:
            frames.append((result.images * 255).round().byte())
            meter.read()
            outcome = Outcome(plan, result, frames, meter.seconds, meter.peak_bytes)
            task.report(_progress(outcome), _message(outcome), outcome)
            if outcome.finished:
                break  # what `gan` would now warn of on standard error, `shortfall` says on the page
    return outcome


@contextmanager
def interruptible(network: nn.Module, tell: Callable[[], None]) -> Iterator[None]:
    """A context in which `tell` is called, and may raise, whenever this thread calls the network."""
    with ModuleTrace(on_enter=lambda module, _: tell() if module is network else None):
        yield


def _progress(outcome: Outcome) -> float:
    return max(outcome.result.step / outcome.plan.steps, float(outcome.result.reached.float().mean()) * 0.99)


def _message(outcome: Outcome) -> str:
    text = f"Step {outcome.result.step} of at most {outcome.plan.steps}"
    if outcome.plan.stop_at is None:
        return text
    return f"{text}; {int(outcome.result.reached.sum())} of {len(outcome.result)} runs reached {outcome.plan.stop_at:g}"


def statement(outcome: Outcome, running: bool = False) -> str:
    """What was reached, in a sentence or two of plain text; `running` if the work goes on."""
    result, scores = outcome.result, outcome.scores[-1]
    value = f"value {np.mean(scores):.3g} in the mean, {np.min(scores):.3g} to {np.max(scores):.3g}"
    stopped = "" if outcome.finished or running else f"Stopped after {result.step} steps. "
    if outcome.plan.stop_at is None:
        return f"{stopped}{len(result)} runs of {result.step} steps: {value}."
    steps = int(result.steps_taken.float().median())
    reached = f"{int(result.reached.sum())} of {len(result)} runs reached {outcome.plan.stop_at:g}"
    return f"{stopped}{reached} in {steps} step{'s' * (steps != 1)} (median): {value}."


def shortfall(outcome: Outcome) -> str:
    """How far those runs came that ended below the probability at which they should; empty if there are none."""
    plan, chances = outcome.plan, outcome.result.probabilities
    missed = ~outcome.result.reached
    if plan.stop_at is None or chances is None or not outcome.finished or not bool(missed.any()):
        return ""
    made = f"in {plan.steps} step{'s' * (plan.steps != 1)}"
    return (
        f"{int(missed.sum())} of {len(missed)} runs did not reach {plan.stop_at:g} {made}, the best of them came to "
        f"{float(chances[missed].max()):.4g}. Allow more steps, or stop at a lower probability."
    )


def spoken(outcome: Outcome, unit: str) -> str:
    """The images in words."""
    images = outcome.result.images
    chances = outcome.result.probabilities
    found = f"values {outcome.scores[-1].min():.3g} to {outcome.scores[-1].max():.3g}"
    if chances is not None:
        found += f", probabilities {float(chances.min()):.3f} to {float(chances.max()):.3f}"
    return f"{len(images)} images of {images.shape[3]} by {images.shape[2]} pixels that maximise {unit}: {found}"


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A line per run, for a table."""
    result, chances = outcome.result, outcome.result.probabilities
    return [
        {
            "Seed": seed,
            "Value": float(outcome.scores[-1, run]),
            **({} if chances is None else {"Probability": float(chances[run])}),
            "Steps": int(result.steps_taken[run]),
            "Starting codes tried": int(result.tried[run]),
        }
        for run, seed in enumerate(result.seeds)
    ]


@dataclass(frozen=True)
class Remembered:
    """One run of a session.

    Attributes:
        key: tells it from others.
        label: what it maximises, and its seed.
        image: `(C, H, W)` in [0, 1].
    """

    key: tuple[str, int, int]
    label: str
    image: Tensor


def remembered(before: Sequence[Remembered], outcome: Outcome, unit: str) -> list[Remembered]:
    """The last sixteen runs of a session, the newest last, once these have ended."""
    result = outcome.result
    new = [
        Remembered((outcome.plan.name, result.step, seed), f"{unit}, seed {seed}", image)
        for seed, image in zip(result.seeds, result.images, strict=True)
    ]
    known = {run.key for run in new}
    return [*(run for run in before if run.key not in known), *new][-_REMEMBERED:]


def curves(outcome: Outcome) -> go.Figure:
    """The unit's value by step, a line per run."""
    names = [f"seed {seed}" for seed in outcome.result.seeds]
    label = "logit of the class" if outcome.plan.stop_at is not None else "value of the unit"
    return figures.ascent_curves(outcome.scores, names, outcome.result.steps_taken.numpy(), label)


def picture(images: Tensor, side: int = _GRID_SIDE) -> Image.Image:
    """Images `(n, C, H, W)` in [0, 1] as a grid of at least so many pixels."""
    from gan.export import grid

    columns = int(np.ceil(np.sqrt(len(images))))
    return grid(images, columns, max(1, side // columns))


def png(outcome: Outcome) -> bytes:
    """The grid as a PNG file."""
    return figures.to_png(np.asarray(picture(outcome.result.images)), side=1)


def address(outcome: Outcome) -> str:
    """The same as a `data:` address: a file of the server's would be gone when the next step takes its place."""
    return "data:image/png;base64," + base64.b64encode(png(outcome)).decode()


def gif(outcome: Outcome) -> bytes:
    """The runs from step to step as a GIF file."""
    from gan.export import save_gif

    with tempfile.TemporaryDirectory() as folder:
        kept = [frame.float() / 255 for frame in evenly(outcome.frames, _GIF_FRAMES)]
        return save_gif(kept, Path(folder) / "runs.gif").read_bytes()


def npz(outcome: Outcome) -> bytes:
    """An NPZ file with `images` (n, C, H, W), `codes` (n, ...), `scores` (steps, n), `seeds`, settings and versions."""
    result = outcome.result
    arrays = {
        "images": result.images.numpy(),
        "codes": result.codes.numpy(),
        "scores": outcome.scores,
        "steps_taken": result.steps_taken.numpy(),
        "seeds": np.array(result.seeds),
    }
    if result.probabilities is not None:
        arrays["probabilities"] = result.probabilities.numpy()
    recorded = asdict(outcome.plan) | {
        "steps_made": result.step,
        "finished": outcome.finished,
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
    }
    return figures.to_npz(arrays, recorded, versions())


def snippet(outcome: Outcome, subject: Subject) -> str:
    """A program whose `result` is the one on screen."""
    plan = outcome.plan
    layer = f", layer={plan.layer!r}" if plan.layer else ""
    if plan.generator == PIXELS:
        imports, lines = _pixel_lines(plan, subject, layer)
    else:
        imports = ["from gan import CodeSpaceAM, load, load_classifier"]
        lines = [
            f"classifier, generator = load_classifier({plan.network!r}), load({plan.generator!r}).generator",
            f"maximizer = CodeSpaceAM(classifier, generator{layer}, prior={plan.prior!r})",
        ]
    keywords = [f"runs={plan.runs}", f"seed={plan.seed}", f"steps={plan.steps}"]
    keywords += [] if plan.stop_at is None else [f"stop_at={plan.stop_at:g}"]
    # What was stopped on screen stops there again.
    keywords += [] if outcome.finished else [f"callback=lambda now: now.step >= {outcome.result.step}"]
    return "\n".join([
        *sorted([*imports, "from gan.export import save_grid"]), "", *lines,
        f"result = maximizer.maximize({plan.target!r}, {', '.join(keywords)})",
        'save_grid(result.images, "maximized.png")', "",
    ])  # fmt: skip


def _pixel_lines(plan: Plan, subject: Subject, layer: str) -> tuple[list[str], list[str]]:
    imports = ["from gan import PixelAM", *subject.imports]
    imports += ["from plugin import models"] if "models." in subject.source else []
    transform = ""
    if normalisation(subject) is not None:
        imports.append("from torchvision.transforms import Normalize")
        mean, std = subject.model.preprocessing.mean, subject.model.preprocessing.std
        transform = f", transform=Normalize({mean}, {std})"
    lines = [
        f"model = {subject.source}",
        f"maximizer = PixelAM(model.network, {subject.input_shape}{layer}{transform})",
    ]
    return imports, lines
