"""How maximised digits are judged on the Code space page: `gan.scorecard`, made in a worker thread."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from torch import Tensor

from ...inputs import image_sets
from ...inputs.offered_networks import DIGITS
from ...inputs.unit_maximizers import SPACES, interruptible
from ...server.jobs import Task
from .runs import Outcome

if TYPE_CHECKING:
    from gan.judging.scorecards import Scorecard

JUDGE = "mnist-judge"
METHODS = {
    "maximised": "Maximised",
    "best_of_n": "Best of N random codes",
    "pixel": "Pixel space",
    "real": "Real digits",
}
# They compare with single real digits, and need digits of the data the networks were trained on.
_OF_THE_SAME_DATA = ("diversity", "distance", "precision", "distinct", "least_distinct")
_PER_PASS = 512


@dataclass(frozen=True)
class Judgement:
    """What the judge says.

    Attributes:
        card: the measures, and the images of each method.
        data: what the real digits are.
        same_data: whether they are of the data that the networks were trained on.
    """

    card: "Scorecard"
    data: str
    same_data: bool


def can_judge(outcome: Outcome) -> bool:
    """Whether there is a judge, and real images: for digits."""
    return outcome.plan.network == DIGITS


def judge(task: Task, outcome: Outcome) -> Judgement:
    """Judge runs and the baselines for the same targets, for a `jobs.Job`."""
    from gan import load_classifier, scorecard

    task.report(0.0, "Reading real digits, and asking the judge …")
    real = image_sets.digits()
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
        card = scorecard(result, load_classifier(JUDGE), (real.images, real.labels), baselines)
    if not real.mnist:
        card = replace(card, rows=tuple(row for row in card if row.measure not in _OF_THE_SAME_DATA))
    return Judgement(card, real.label, real.mnist)


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
    """How to read it, in Markdown."""
    text = (
        "The judge is a network of another architecture and seed that took no part. Best of N looks at as many random "
        f"codes as the steps were worth, {judgement.card.random_codes} for each run; pixel space has no generator. "
        f"Real are {judgement.data}."
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
    """What stands beside the maximised images, by method, for people."""
    return {METHODS[name]: images for name, images in judgement.card.images.items() if name != "maximised"}
