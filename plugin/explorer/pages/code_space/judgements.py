"""How maximised images are judged on the Code space page: `gan.scorecard`, made in a worker thread."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from torch import Tensor

from ...inputs import image_sets
from ...inputs.offered_networks import CIFAR10, DIGITS, family
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import SPACES, interruptible
from ...server.jobs import Task
from .runs import Outcome

if TYPE_CHECKING:
    from gan.judging.scorecards import Scorecard

# Classifiers of `gan.load_classifier` that took no part, by the family of the networks that they judge.
_JUDGES = {DIGITS: "mnist-judge", CIFAR10: "cifar10-judge"}
METHODS = {
    "maximised": "Maximised",
    "best_of_n": "Best of N random codes",
    "pixel": "Pixel space",
    "real": "Real images",
}
# Measures that compare with single real images, and need images of the data that the networks were trained on.
_OF_THE_SAME_DATA = ("diversity", "distance", "precision", "distinct", "least_distinct")
_PER_PASS = 512


@dataclass(frozen=True)
class Judgement:
    """The verdict of the judge.

    Attributes:
        card: the measures, and the images of each method.
        data: the source of the real images, for people.
        same_data: whether these are of the data that the networks were trained on.
    """

    card: "Scorecard"
    data: str
    same_data: bool


def obstacle(subject: Subject) -> str:
    """The reason that runs of a network cannot be judged, as a sentence; empty if they can."""
    if family(subject.name) not in _JUDGES:
        return "There are judges of digits and of CIFAR-10's classes only."
    if image_sets.labelled_for(subject.model) is not None:
        return ""
    if image_sets.labelled("cifar10", subject.model):
        return (
            "The judge compares with CIFAR-10's test images, which are not on this machine: start the explorer with "
            "`python -m plugin.explorer --data FOLDER`."
        )
    return f"The judge knows CIFAR-10's classes, and not those of this {subject.name}."


def judge(task: Task, outcome: Outcome, subject: Subject) -> Judgement:
    """Judge runs and the baselines for the same targets, for a `jobs.Job`.

    Raises:
        ValueError: there is an `obstacle`.
    """
    from gan import load_classifier, scorecard

    task.report(0.0, "Reading real images, and asking the judge …")
    real = image_sets.labelled_for(subject.model)
    if real is None:
        raise ValueError(obstacle(subject))
    result = outcome.result
    baselines = () if outcome.plan.generator in SPACES else ("best_of_n", "pixel")
    # Calls of the network that draws: the best of N for each run, then the images that are judged.
    random_codes = float(result.passes.float().mean())
    expected = len(result) * (1 + random_codes // _PER_PASS) + 4
    calls = 0

    def tell() -> None:
        nonlocal calls
        calls += 1
        task.report(min(0.9, calls / expected), f"As many random codes as {outcome.result.step} steps are worth …")

    with interruptible(result.maximizer.networks[0], tell):
        card = scorecard(result, load_classifier(_JUDGES[family(subject.name)]), (real.images, real.labels), baselines)
    if not real.same_data:
        card = replace(card, rows=tuple(row for row in card if row.measure not in _OF_THE_SAME_DATA))
    return Judgement(card, real.label, real.same_data)


def table(judgement: Judgement) -> list[dict[str, Any]]:
    """A line per measure, a column per method."""
    card = judgement.card
    return [
        {"Measure": row.label[:1].upper() + row.label[1:]}
        | {METHODS[name]: row.values.get(name) for name in card.methods}
        for row in card
    ]


def figure(judgement: Judgement) -> go.Figure:
    """Bars by method, with the numbers level and of one size."""
    drawn = judgement.card.figure()
    for bars in drawn.data:
        bars.update(y=[METHODS[name] for name in bars.y])
    return drawn.update_traces(textangle=0, constraintext="none", textfont_size=11).update_yaxes(automargin=True)


def caption(judgement: Judgement) -> str:
    """An explanation of the scorecard, in Markdown."""
    text = (
        "The judge is a network of another architecture and seed that took no part. Best of N looks at as many random "
        f"codes as the steps were worth, {judgement.card.random_codes} for each run; pixel space has no generator. "
        f"Real images are {judgement.data}."
    )
    if judgement.same_data:
        return text
    return text + (
        " Distances between digits and precision need MNIST, which is not on this machine: start the explorer with "
        "`python -m plugin.explorer --data FOLDER`, where torchvision has put it."
    )


def spoken(judgement: Judgement) -> str:
    """The scorecard in words."""
    parts = []
    for row in judgement.card:
        values = ", ".join(f"{METHODS[name]} {value:.3g}" for name, value in row.values.items())
        parts.append(f"{row.label}: {values}")
    return "Scorecard. " + "; ".join(parts)


def pictures(judgement: Judgement) -> dict[str, Tensor]:
    """The images to show beside the maximised ones, by the label of their method."""
    return {METHODS[name]: images for name, images in judgement.card.images.items() if name != "maximised"}
