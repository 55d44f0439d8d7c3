"""How far a map can be trusted, in numbers and in one line.

Three questions are asked of a map: does it change when the last layer is made random, does it change with the class,
and does the score fall when its red parts are removed? `plugin.experiments` measures; here the numbers become words.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plugin.experiments.faithfulness import RemovalCurves, removal_curves
from plugin.experiments.sanity import NEARLY_THE_SAME, Similarity, Step, similarity
from plugin.observing import outputs_of

from ..server.meter import Meter
from . import answers, sanity_checks
from .answers import Answer, answering
from .questions import Asked, explained

logger = logging.getLogger(__name__)

# The thresholds of all badges. A map counts as nearly the same above a rank correlation of 0.7, where the ranks of one
# explain half of the variance of the ranks of the other, and as another one up to 0.5, where they explain a quarter.
CHANGED = 0.5
# Removal counts as predicted from 1.3 times a random order on, and as predicted the wrong way round up to 0.7. Nearly
# all maps of random numbers lie between: `scripts/limits.py` measures their share, which docs/explorer.md gives. Where
# random orders differ by more than this margin themselves, nothing can be told.
MARGIN = 0.3

# Steps, random orders, and pictures at a time: 37 versions of a small picture, and 22 of a large one, for which each
# takes longer.
_SMALL_PIXELS = 64 * 64
_SMALL, _LARGE = (8, 3, 8), (6, 2, 2)

# The subjects of the three questions, for a sentence on a missing answer.
PARTS = {
    "weights": "Dependence on the weights",
    "class": "Dependence on the class",
    "removal": "Prediction of removal",
}
_NO_NEURON = "the layers after a neuron have no part in its map"


T = TypeVar("T")


class Level(Enum):
    """The quality of an answer."""

    GOOD, MEDIUM, BAD, UNKNOWN = "good", "medium", "bad", "unknown"


@dataclass(frozen=True)
class Verdict:
    """The answer to one of the three questions.

    Attributes:
        level: its quality.
        short: a few words with the number.
        sentence: the same for people who do not know the number.
    """

    level: Level
    short: str
    sentence: str


@dataclass(frozen=True)
class Badge:
    """The measurements of one map; None for each that was not made.

    Attributes:
        weights: the layer that was made random, and the similarity of the map after that.
        other_class: the name of another class, the most probable one, and the similarity of its map.
        removal: the curves of deletion and insertion, of one picture.
        missing: the reasons why the others were not measured, by "weights", "class" and "removal".
    """

    weights: Step | None
    other_class: tuple[str, Similarity] | None
    removal: RemovalCurves | None
    missing: dict[str, str]


def measure(asked: Asked, result: Answer, report: Callable[[], None] = lambda: None) -> Badge:
    """Check a map.

    Costs three maps, and passes of 40 pictures at most.

    Args:
        asked: the question that the map answers.
        result: the map.
        report: called before each map and each pass; it may raise, which ends the work.
    """
    if reason := _unmeasurable(asked, result):
        return Badge(None, None, None, dict.fromkeys(PARTS, reason))
    missing: dict[str, str] = {}
    inputs = asked.subject.preprocess(asked.picture.image)
    attribution = torch.from_numpy(result.attribution)[None].to(inputs.device)
    weights = other = None
    with Meter(inputs.device):  # a map that is computed at the same time then states no memory, not a wrong one
        if asked.question.neuron:
            missing |= {"weights": _NO_NEURON, "class": _NO_NEURON}
        else:
            weights = _tried("weights", missing, lambda: _weights(asked, report))
            other = _tried("class", missing, lambda: _other_class(asked, inputs, attribution, report))
        removal = _tried("removal", missing, lambda: _removal(asked, inputs, attribution, report))
    return Badge(weights, other, removal, missing)


def verdicts(badge: Badge) -> list[Verdict]:
    """The answers that were measured: on the weights, on the class, on removal."""
    found = []
    if badge.weights is not None:
        found.append(_on_weights(badge.weights))
    if badge.other_class is not None:
        found.append(_on_class(*badge.other_class))
    if badge.removal is not None:
        found.append(_on_removal(badge.removal))
    return found


def unchecked(badge: Badge) -> str:
    """A few words on the measurements that are missing; empty if there are none."""
    reasons = {*badge.missing.values()}
    if len(badge.missing) == len(PARTS) and len(reasons) == 1:
        return f"Not checked: {reasons.pop()}"
    return f"not checked: {', '.join(badge.missing)}" if badge.missing else ""


def short_text(badge: Badge) -> str:
    """The badge in one line, without colours."""
    return " · ".join([*(verdict.short for verdict in verdicts(badge)), *filter(None, [unchecked(badge)])])


def sentences(badge: Badge) -> list[str]:
    """The same in full: a sentence for each answer, and one for each that is missing, with the reason."""
    missing = [f"{PARTS[part]} was not checked: {reason}." for part, reason in badge.missing.items()]
    return [*(verdict.sentence for verdict in verdicts(badge)), *missing]


def curves(removal: RemovalCurves) -> dict[str, NDArray[np.float64]]:
    """The scores of the first picture, at each of `removal.shares`, by name."""
    random = removal.random.mean(0)
    named = {
        "deletion": removal.deletion,
        "insertion": removal.insertion,
        "random deletion": random,
        "random insertion": random.flip(1),
    }
    return {name: np.asarray(scores[0].double().numpy()) for name, scores in named.items()}


def areas(removal: RemovalCurves) -> dict[str, float]:
    """The areas under those curves; a random order has the same for deletion and insertion."""
    named = {
        "deletion": removal.deletion_area,
        "insertion": removal.insertion_area,
        "random order": removal.random_area,
    }
    return {name: float(area[0]) for name, area in named.items()}


def _unmeasurable(asked: Asked, result: Answer) -> str:
    """The reason why a map cannot be measured; empty if it can."""
    if not asked.question.needs_picture:
        return "a reconstruction without a picture is made of the weights alone, and there is nothing to remove"
    return "" if result.attribution.any() else "a map of zeros has no order"


def _tried(part: str, missing: dict[str, str], measured: Callable[[], T | str]) -> T | None:
    """The measurement; None if it cannot be made, with the reason in `missing`."""
    try:
        found = measured()
    except ValueError as error:
        logger.info("no check of %s", part, exc_info=True)
        found = str(error).rstrip(".")
    if isinstance(found, str):
        missing[part] = found
        return None
    return found


def _weights(asked: Asked, report: Callable[[], None]) -> Step:
    report()
    return sanity_checks.check(asked.subject, asked.picture.image, asked.question, 1).steps[-1]


def _other_class(
    asked: Asked, inputs: Tensor, attribution: Tensor, report: Callable[[], None]
) -> tuple[str, Similarity] | str:
    report()
    subject, question = asked.subject, asked.question
    order = answers.outputs(subject, asked.picture.image).argsort()[::-1].tolist()
    others = [index for index in order if index not in (question.target, question.contrast)]
    if not others:
        return "the network has no other class"
    report()
    with answering(subject, question):
        other = answers.attribute(subject.model.network, inputs, replace(question, target=others[0]), subject.model)
    return subject.model.classes[others[0]], similarity(attribution, other)


def _removal(asked: Asked, inputs: Tensor, attribution: Tensor, report: Callable[[], None]) -> RemovalCurves | str:
    if attribution.shape[2:] != inputs.shape[2:]:
        return "the map has another size than the picture"
    steps, orders, batch = _SMALL if inputs[0, 0].numel() <= _SMALL_PIXELS else _LARGE
    with answering(asked.subject, asked.question):
        return removal_curves(
            partial(_score, asked), inputs, attribution, steps, orders, batch=batch, before_pass=report
        )


def _score(asked: Asked, inputs: Tensor) -> Tensor:
    """The explained output `(N,)`."""
    question = asked.question
    if question.neuron:
        values = outputs_of(asked.subject.model.network, [question.layer], inputs, used_once=True)[question.layer]
        for index in question.neuron:
            values = values[:, index]
        return values
    network, target = explained(asked.subject.model.network, question)
    scores: Tensor = network(inputs)[:, target]
    return scores


def _on_weights(step: Step) -> Verdict:
    level, answer = _dependence(step.similarity)
    meaning = {
        Level.GOOD: "it depends on the weights that the network has learned there",
        Level.MEDIUM: "it depends in part on the weights that the network has learned there",
        Level.BAD: "it shows the picture more than the learned weights; do not read it as the reason",
    }[level]
    sentence = f"With random weights in {step.layer} {_change(step.similarity)}: {meaning}."
    return Verdict(level, f"Depends on the weights: {answer}", sentence)


def _on_class(name: str, found: Similarity) -> Verdict:
    level, answer = _dependence(found)
    meaning = {
        Level.GOOD: "it says which class it is about",
        Level.MEDIUM: "it says in part which class it is about",
        Level.BAD: "it does not say why this class and no other",
    }[level]
    return Verdict(level, f"on the class: {answer}", f"For the class {name} {_change(found)}: {meaning}.")


def _on_removal(curves: RemovalCurves) -> Verdict:
    fall, spread, ratio = (float(number[0]) for number in (curves.fall, curves.spread, curves.ratio))
    if not (fall > 0 and spread <= MARGIN):
        return Verdict(
            Level.UNKNOWN, "removal: cannot be told",
            "Without the whole picture the score is hardly lower, so the order in which its parts go means little.",
        )  # fmt: skip
    start = (
        f"Removing and restoring the most positive parts moves the score {ratio:.2f} times as much as a random order"
    )
    if ratio >= 1 + MARGIN:
        level, answer, meaning = Level.GOOD, "", "the map predicts the effect of removal"
    elif ratio > 1 - MARGIN:
        level, answer, meaning = Level.MEDIUM, "no better, ", "the map does not predict the effect of removal"
    else:
        level, answer, meaning = Level.BAD, "worse, ", "the parts in red matter less to the score than the others"
    return Verdict(level, f"removal: {answer}{ratio:.1f} x random", f"{start}: {meaning}.")


def _dependence(found: Similarity) -> tuple[Level, str]:
    """The level, and a word with the number: that without signs, unless signs alone decide."""
    level = _level(found.unchanged)
    word = {Level.GOOD: "yes", Level.MEDIUM: "partly", Level.BAD: "hardly"}[level]
    if _level(found.magnitude) is level:
        return level, f"{word} ({_number(found.magnitude)})"
    return level, f"{word} (with signs {_number(found.signed)})"


def _level(correlation: float) -> Level:
    if correlation <= CHANGED:
        return Level.GOOD
    return Level.MEDIUM if correlation <= NEARLY_THE_SAME else Level.BAD


def _change(found: Similarity) -> str:
    return (
        f"the map has a rank correlation of {_number(found.signed)} with this one, "
        f"{_number(found.magnitude)} without signs"
    )


def _number(correlation: float) -> str:
    shown = f"{correlation:.2f}"
    return shown.replace("0.", ".", 1) if abs(correlation) < 0.995 else shown
