"""The Invariance page's work: the three figures of `plugin.experiments.invariance`, small enough to look on.

What a page asks is a `Question`; `measure` answers it in a worker thread, layer by layer, and `Findings` are what it
has found so far.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from plugin.experiments.invariance import (
    MaximisingSet,
    PictureResponse,
    invariance,
    maximising_sets,
    sufficiency,
)
from plugin.experiments.invariance import figures as drawn
from plugin.experiments.invariance.study import ToTheEnd
from plugin.experiments.sanity import untrained
from plugin.experiments.units import layers_with_units

from . import image_sets
from .code_space import interruptible, normalisation
from .jobs import Task, name_of
from .memory import Meter
from .networks import Subject
from .state import PIXELS, Settings

if TYPE_CHECKING:
    from gan.maximizer import ActivationMaximizer

T = TypeVar("T")

FIGURES = ("A", "B", "C")
TITLES = {
    "A": "A. Does a unit go on firing when what it sees is moved?",
    "B": "B. Does one picture suffice?",
    "C": "C. What shape has the set of pictures that a unit likes best?",
}
# What each figure shows, before anything is measured.
TEXTS = {
    "A": (
        "A unit fires on the few images that excite it most. Of these, how many still make it fire once they are "
        "shifted, rotated or scaled? Over its rate on all images: the larger, the more invariant; about 1 is chance "
        "(Goodfellow et al. 2009). The untrained network has the same layers and fresh weights."
    ),
    "B": (
        "Each unit is shown a picture of itself instead of its best image, at the same contrast. Near 1 or above, that "
        "one picture holds what the unit looks for; a deconvnet that sees no image must draw one picture for all of it."
    ),
    "C": (
        "A unit is maximised many times. Modes: how many different solutions there are (Vendi score). Barrier: how far "
        "the response falls on the way from one solution to another, as a share of the weaker one; 0 is a ridge that "
        "one can walk along, 1 a valley down to nothing."
    ),
}
_STATES = ("trained", "untrained")
UNITS = 4  # of each layer, for B
_FIRING, _SOLUTIONS = 10, 8
_MOST_SIDE, _MOST_RUNS = 64, 16


@dataclass(frozen=True)
class Question:
    """What one figure answers.

    Attributes:
        figure: one of `FIGURES`.
        network: identity of the network.
        data: a key of `image_sets.LABELS`.
        count: how many images.
        layer, channel: of the chosen unit, which lies in the middle of the picture.
        generator: in whose codes is maximised; `PIXELS` is none, and empty for A.
        runs, steps: of the maximisation.
        seed: decides directions, fresh weights and runs.
    """

    figure: str
    network: str
    data: str
    count: int
    layer: str
    channel: int
    generator: str
    runs: int
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Tells questions apart."""
        return name_of(self)


@dataclass(frozen=True)
class Findings:
    """What is known so far.

    Attributes:
        question: what was asked.
        states: of the network trained and untrained, a list of what the experiment returns.
        chosen: of B the chosen unit of the trained network.
        solutions: of C the chosen unit's solutions, and the path over the highest barrier, drawn.
        seconds, peak_bytes: what it took so far.
    """

    question: Question
    states: dict[str, list[Any]]
    chosen: PictureResponse | None
    solutions: Image.Image | None
    seconds: float
    peak_bytes: int | None


def layers_of(subject: Subject) -> list[str]:
    """The layers whose units are measured and have a name, by which one can be chosen."""
    example = torch.zeros(1, *subject.input_shape)
    return [name for name in layers_with_units(subject.model.network, example) if name in subject.layers]


def with_unit(settings: Settings, subject: Subject, layers: Sequence[str]) -> Settings:
    """The settings with a unit in the middle of one of the layers: the chosen one, or one near it."""
    layer = settings.layer if settings.layer in layers else _nearest(settings.layer, subject, layers)
    shape = subject.layers.get(layer, ())
    channel = settings.neuron[0] if settings.neuron and settings.neuron[0] < shape[0] else 0
    return replace(settings, layer=layer, neuron=(channel, *(size // 2 for size in shape[1:])))


def _nearest(layer: str, subject: Subject, layers: Sequence[str]) -> str:
    """The last of the layers that ends before this one: of a ReLU what it rectifies; one in the middle without any."""
    order = list(subject.layers)
    before = [name for name in layers if name in order and layer in order and order.index(name) < order.index(layer)]
    return before[-1] if before else layers[len(layers) // 2]


def refusal(subject: Subject) -> str:
    """Why a network is not measured on a page: a sentence, or nothing."""
    if max(subject.input_shape[1:]) <= _MOST_SIDE:
        return "" if layers_of(subject) else f"{subject.name} has no convolution or linear layer that runs once."
    return (
        f"{subject.name} sees too many pixels to be measured while you look: "
        f"`python -m plugin.experiments.invariance {subject.name} --data FOLDER` does it with your pictures."
    )


def data_of(settings: Settings, subject: Subject) -> tuple[str, str]:
    """The set of images that settings ask of a network, and a sentence if it is another than they say."""
    possible = image_sets.fitting(subject.model)
    if settings.data not in possible:
        return possible[0], ""
    if image_sets.available(settings.data):
        return settings.data, ""
    return possible[0], f"{image_sets.LABELS[settings.data]} are not on this machine: see --data of the explorer."


def question_of(figure: str, settings: Settings, subject: Subject, data: str) -> Question:
    """The question that settings with a unit ask."""
    maximises = figure in ("B", "C")
    return Question(
        figure=figure,
        network=subject.identity,
        data=data,
        count=settings.count,
        layer=settings.layer,
        channel=settings.neuron[0],
        generator=settings.generator if maximises else "",
        runs=max(2, min(settings.runs, _MOST_RUNS)) if figure == "C" else 0,
        steps=settings.ascent if maximises else 0,
        seed=settings.seed,
    )


def rate_of(count: int) -> float:
    """On which share of the images a unit fires: on 1 %, or on ten images."""
    return max(0.01, min(0.5, _FIRING / count))


def measure(task: Task, question: Question, subject: Subject) -> Findings:
    """Answer a question, for a `jobs.Job`; what is shown are the `Findings` so far."""
    task.report(0.0, "Reading images …")
    images, labels = image_sets.inputs(question.data, subject.model, question.count)
    networks = {"trained": subject.model.network, "untrained": untrained(subject.model.network, question.seed)}
    worker = _Worker(task, question, subject, images, labels)
    with worker.meter:
        for index, state in enumerate(_STATES):
            worker.enter(state, index / len(_STATES), 1 / len(_STATES))
            {"A": worker.firing, "B": worker.pictures, "C": worker.sets}[question.figure](networks[state])
    return worker.found


class _Worker:
    """Measures one network after the other, and tells its task how far it is.

    Args:
        task: of the job.
        question: what is asked.
        subject: the network as it is.
        images: its inputs `(N, C, H, W)`.
        labels: `(N,)`, if there are any.
    """

    def __init__(self, task: Task, question: Question, subject: Subject, images: Tensor, labels: Tensor | None) -> None:
        self.task, self.question, self.subject, self.images, self.labels = task, question, subject, images, labels
        self.meter = Meter(images.device)
        self.found = Findings(question, {}, None, None, 0.0, None)
        self.state, self.start, self.share, self.done, self.message = "", 0.0, 1.0, 0.0, ""

    def enter(self, state: str, start: float, share: float) -> None:
        """What comes now is of a network in this state, and this share of the work."""
        self.state, self.start, self.share, self.done = state, start, share, 0.0

    def tell(self) -> None:
        """Report where the work is; may raise `jobs.Stopped`."""
        shown = self.found if self.found.states else None
        self.task.report(self.start + self.share * self.done, f"{self.state}: {self.message} …", shown)

    def over(self, items: Iterable[T], name: Callable[[T], str]) -> Iterator[T]:
        """The items, with a report before each."""
        listed = list(items)
        for index, item in enumerate(listed):
            self.done, self.message = index / len(listed), name(item)
            self.tell()
            yield item

    def add(self, found: Sequence[Any], **more: Any) -> None:
        """Results of the state that is measured now; the page may be drawing the findings without them."""
        self.meter.read()
        states = self.found.states | {self.state: [*self.found.states.get(self.state, []), *found]}
        more |= {"seconds": self.meter.seconds, "peak_bytes": self.meter.peak_bytes}
        self.found = replace(self.found, states=states, **more)

    def firing(self, network: nn.Module) -> None:
        """A."""
        rate, seed = rate_of(len(self.images)), self.question.seed
        show = lambda steps: self.over(steps, lambda step: f"{step[0]} by {step[1]:g}")  # noqa: E731
        self.add(invariance(network, self.images, labels=self.labels, rate=rate, seed=seed, progress=show))

    def pictures(self, network: nn.Module) -> None:
        """B: some units of every layer, and the chosen one."""
        question, as_inputs = self.question, normalisation(self.subject) or _unchanged
        makers = {"maximised": self._maximizers(network)}

        def respond(layer: str, units: int | list[int]) -> list[PictureResponse]:
            return sufficiency(network, self.images, [layer], units, makers, as_inputs, question.seed)

        for layer in self.over(layers_with_units(network, self.images), _layer_name):
            self.add(respond(layer, UNITS))
            if layer == question.layer and self.state == "trained":
                self.add([], chosen=respond(layer, [question.channel])[0])

    def sets(self, network: nn.Module) -> None:
        """C: a unit of every layer, in the chosen layer the chosen one."""
        question, seed = self.question, self.question.seed
        generator = generator_of(question)
        maximizers = self._maximizers(network)
        with interruptible(generator, self.tell):
            for layer in self.over(layers_with_units(network, self.images), _layer_name):
                chosen = layer == question.layer and self.state == "trained"
                units: int | list[int] = [question.channel] if chosen else 1
                found = maximising_sets(
                    network, self.images, generator, maximizers, [layer], units, question.runs, seed=seed
                )
                self.add(found, **({"solutions": _solutions(found, generator)} if chosen else {}))

    def _maximizers(self, network: nn.Module) -> Callable[[str], ToTheEnd]:
        return lambda layer: ToTheEnd(self._maximizer(network, layer or None), self.question.steps)

    def _maximizer(self, network: nn.Module, layer: str | None) -> "ActivationMaximizer":
        from gan import CodeSpaceAM, PixelAM

        if self.question.generator == PIXELS:
            channels, height, width = self.subject.input_shape
            return PixelAM(network, (channels, height, width), layer, normalisation(self.subject))
        return CodeSpaceAM(network, generator_of(self.question), layer)


def generator_of(question: Question) -> nn.Module:
    """In whose codes is maximised."""
    from gan import load

    generator: nn.Module = load(question.generator).generator
    return generator


def _unchanged(images: Tensor) -> Tensor:
    return images


def _layer_name(layer: str) -> str:
    return drawn.short(layer)


def _solutions(found: Sequence[MaximisingSet], generator: nn.Module) -> Image.Image:
    with torch.no_grad():
        return drawn.draw_solutions(found, lambda codes: generator(torch.tensor(codes)), _SOLUTIONS)
