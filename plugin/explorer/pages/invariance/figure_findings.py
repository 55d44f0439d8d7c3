"""The Invariance page's work: a question is answered in a worker thread, layer by layer.

`FigureFindings` hold the results so far.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from gan import branch_of
from plugin.experiments.invariance import MaximisingSet, PictureResponse, invariance, maximising_sets, sufficiency
from plugin.experiments.invariance import figures as drawn
from plugin.experiments.invariance.study import ToTheEnd
from plugin.experiments.sanity import untrained
from plugin.experiments.units import layers_with_units

from ...inputs import image_sets
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import code_space_of, generator_of, interruptible, normalisation, pixels_of
from ...server.jobs import Task
from ...server.meter import Meter
from ...server.turns import PROCESSOR
from .figure_questions import UNITS, FigureQuestion, rate_of

T = TypeVar("T")

_STATES = ("trained", "untrained")
_SOLUTIONS = 8


@dataclass(frozen=True)
class FigureFindings:
    """The results so far.

    Attributes:
        question: the question that they answer.
        states: the results of the experiment, a list each for the network trained and untrained.
        chosen: for B, the chosen unit of the trained network.
        solutions: for C, a drawing of the chosen unit's solutions and of the path over the highest barrier.
        seconds, peak_bytes: the time and the peak memory so far.
        device: where it was measured.
    """

    question: FigureQuestion
    states: dict[str, list[Any]]
    chosen: PictureResponse | None
    solutions: Image.Image | None
    seconds: float
    peak_bytes: int | None
    device: str = PROCESSOR


def measure(task: Task, question: FigureQuestion, subject: Subject) -> FigureFindings:
    """Answer a question, for a `jobs.Job`; the page shows the `FigureFindings` so far."""
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
    """Measures one network after the other, and reports the progress to its task.

    Args:
        task: of the job.
        question: the question to answer.
        subject: the network as it is.
        images: its inputs `(N, C, H, W)`.
        labels: `(N,)`, if there are any.
    """

    def __init__(
        self, task: Task, question: FigureQuestion, subject: Subject, images: Tensor, labels: Tensor | None
    ) -> None:
        self.task, self.question, self.subject, self.images, self.labels = task, question, subject, images, labels
        self.meter = Meter(images.device)
        self.found = FigureFindings(question, {}, None, None, 0.0, None)
        self.state, self.start, self.share, self.done, self.message = "", 0.0, 1.0, 0.0, ""

    def enter(self, state: str, start: float, share: float) -> None:
        """Begin with the network in this state, and with its share of the work."""
        self.state, self.start, self.share, self.done = state, start, share, 0.0

    def tell(self) -> None:
        """Report the progress of the work; may raise `jobs.Stopped`."""
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
        """Add results of the current state, in a copy: the page may be drawing the findings without them."""
        self.meter.read()
        states = self.found.states | {self.state: [*self.found.states.get(self.state, []), *found]}
        more |= {"seconds": self.meter.seconds, "peak_bytes": self.meter.peak_bytes}
        self.found = replace(self.found, states=states, **more)

    def firing(self, network: nn.Module) -> None:
        """Measure A, the firing of the units of every layer."""
        rate, seed = rate_of(len(self.images)), self.question.seed
        show = lambda steps: self.over(steps, lambda step: f"{step[0]} by {step[1]:g}")  # noqa: E731
        self.add(invariance(network, self.images, labels=self.labels, rate=rate, seed=seed, progress=show))

    def pictures(self, network: nn.Module) -> None:
        """Measure B, for some units of every layer and the chosen one."""
        question, as_inputs = self.question, normalisation(self.subject) or _unchanged
        makers = {"maximised": self._maximizers(network)}

        def respond(layer: str, units: int | list[int]) -> list[PictureResponse]:
            return sufficiency(network, self.images, [layer], units, makers, as_inputs, question.seed)

        for layer in self.over(layers_with_units(network, self.images), _layer_name):
            self.add(respond(layer, UNITS))
            if layer == question.layer and self.state == "trained":
                self.add([], chosen=respond(layer, [question.channel])[0])

    def sets(self, network: nn.Module) -> None:
        """Measure C, for a unit of every layer; in the chosen layer for the chosen one."""
        question, seed = self.question, self.question.seed
        generator = generator_of(question.generator)
        maximizers, as_inputs = self._maximizers(network), normalisation(self.subject) or _unchanged

        def generate(codes: Tensor) -> Tensor:
            return as_inputs(generator(codes))

        with interruptible(generator, self.tell):
            for layer in self.over(layers_with_units(network, self.images), _layer_name):
                chosen = layer == question.layer and self.state == "trained"
                units: int | list[int] = [question.channel] if chosen else 1
                found = maximising_sets(
                    network, self.images, generate, maximizers, [layer], units, question.runs, seed=seed,
                    branch_of=branch_of(generator),
                )  # fmt: skip
                self.add(found, **({"solutions": _solutions(found, generator)} if chosen else {}))

    def _maximizers(self, network: nn.Module) -> Callable[[str], ToTheEnd]:
        def made(layer: str) -> ToTheEnd:
            generator, steps = self.question.generator, self.question.steps
            if generator:
                return ToTheEnd(code_space_of(self.subject, network, generator, layer), steps)
            return ToTheEnd(pixels_of(self.subject, network, layer), steps)

        return made


def _unchanged(images: Tensor) -> Tensor:
    return images


def _layer_name(layer: str) -> str:
    return drawn.short(layer)


def _solutions(found: Sequence[MaximisingSet], generator: nn.Module) -> Image.Image:
    with torch.no_grad():
        return drawn.draw_solutions(found, lambda codes: generator(torch.tensor(codes)), _SOLUTIONS)
