"""The two sides of a comparison: A is the view of the other pages, B is a copy of it that differs in one thing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin import models
from plugin.heads import OUTPUTS

from ...choices.fitting import fit
from ...choices.settings import DRAWING, OWN_OF_B, OWN_WEIGHTS, UPLOAD, Settings
from ...inputs import offered_pictures
from ...inputs.subject import Subject
from ...maps.questions import Look, Question, question_of


def with_b(settings: Settings, probabilities: NDArray[np.float32]) -> Settings:
    """The settings, with a choice for B that differs from A if B has none or an unfit one.

    Args:
        settings: of the page, valid for A.
        probabilities: of the classes for A `(classes,)`.
    """
    own: dict[str, Any] = dict(settings.b)
    if settings.differs in own and not (settings.differs == "target" and own["target"] >= len(probabilities)):
        return settings
    own = {name: getattr(settings, name) for name in OWN_OF_B[settings.differs]}
    if settings.differs == "method":
        own["method"] = "gradient" if settings.method == "guided-backprop" else "guided-backprop"
    elif settings.differs == "target":
        explained = target_of(settings, probabilities)
        own["target"] = next((int(i) for i in np.argsort(-probabilities, kind="stable") if i != explained), explained)
    elif settings.differs == "network":
        own |= {name: getattr(Settings, name) for name in OWN_WEIGHTS} | {"network": _other_network(settings)}
    else:
        own |= {"image": _other_picture(settings.image), "picture": "", "picture_name": ""}
    return replace(settings, b=tuple(own.items()))


def target_of(settings: Settings, probabilities: NDArray[np.float32]) -> int:
    """The class that A explains."""
    return int(probabilities.argmax()) if settings.target is None else settings.target


def target_of_b(
    settings: Settings, target: int, classes: Sequence[str], others: Sequence[str], probabilities: NDArray[np.float32]
) -> int:
    """The class that B explains: A's, by its name where the networks have different classes, else B's most probable.

    Args:
        settings: of the page.
        target: of A.
        classes: of A's network.
        others: of B's.
        probabilities: of B's classes `(classes,)`.
    """
    if settings.differs == "target":
        return int(dict(settings.b)["target"])
    if tuple(classes) == tuple(others):
        return target
    return list(others).index(classes[target]) if classes[target] in others else int(probabilities.argmax())


def drawn(settings: Settings, subject: Subject) -> Settings:
    """The settings of one side's map: of one class by one method, Grad-CAM at the last layer with positions, and the
    channels summed."""
    one = replace(
        settings, methods=(settings.method,), explain="class", layer="", neuron=(), contrast=None, rules=(), view="sum",
        scale="own", b=(),
    )  # fmt: skip
    return fit(one, subject.model.classes, subject.layers, subject.channels)[0]


def question(settings: Settings, target: int) -> Question:
    """The question of one side, whose settings are `drawn`."""
    return question_of(replace(settings, target=target), settings.method, target)


def summary(look: Look, target: int, output: float, share: float) -> str:
    """The class that a side explains, the network's output for it, and its probability, in plain text."""
    name, called = look.subject.model.classes[target], OUTPUTS[look.subject.head]
    returned = "" if called == "probability" else f"{called} {output:.4g}, "
    return f"class {target}, {name}: {returned}probability {share:.2%}"


def _other_network(settings: Settings) -> str:
    """The network of B: for a checkpoint the same without it, for a bundled network the other one, else the same."""
    if not settings.checkpoint and settings.network in models.names():
        return next(name for name in models.names() if name != settings.network)
    return settings.network


def _other_picture(image: str) -> str:
    """The next sample of the same kind."""
    digits = offered_pictures.DIGITS
    group = digits if image in (*digits, DRAWING) else tuple(models.sample_images())
    if image in (UPLOAD, DRAWING):
        return group[0]
    return group[(group.index(image) + 1) % len(group)]
