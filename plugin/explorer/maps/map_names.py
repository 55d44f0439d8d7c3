"""Names of maps: a title for people, a name for files, and a digest. Two maps with one name are one map."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict

from ..choices.offered_methods import METHODS
from ..choices.settings import DRAWING, UPLOAD, Settings
from ..inputs.layer_outputs import place
from ..server.turns import PROCESSOR
from .questions import Asked, Question

_LONGEST_PART = 40


def title(question: Question) -> str:
    """The method, and the changes of its rules."""
    label = METHODS[question.method].label
    if "alpha" in dict(question.numbers):  # which is among the changes
        label = label.replace("alpha 2 beta 1", "alpha beta")
    return ", ".join([label, *_changes(question)])


def _changes(question: Question) -> list[str]:
    """The changed numbers, and the number of changed rules."""
    changed = [f"{name} = {value!r}".removesuffix(".0") for name, value in question.numbers]
    count = len(question.rules)
    return [*changed, f"{count} rule{'s' * (count != 1)} changed"] if count else changed


def map_digest(identity: str, picture: str, question: Question, device: str) -> str:
    """SHA-256 in hexadecimal of all that a map depends on.

    Args:
        identity: of the network, with its weights.
        picture: the digest of the picture.
        question: the question that the map answers.
        device: the device that computes the map: results of other devices than the processor differ by rounding.
    """
    asked = [identity, picture if question.needs_picture else "", asdict(question)]
    asked += [] if device == PROCESSOR else [device]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def map_file(asked: Asked, settings: Settings, limit: float) -> str:
    """A file's name without its ending: network, picture, class or unit, method, and a digest of the map as drawn."""
    question = asked.question
    drawn = [
        map_digest(asked.subject.identity, asked.picture.digest, question, asked.subject.device),
        settings.view, settings.opacity, limit,
    ]  # fmt: skip
    short = hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:8]
    picture = [picture_name(settings)] if question.needs_picture else []
    return file_name(
        *_network(asked, settings), *picture, _explained(asked), question.method, question.unpooling,
        *_changes(question), short,
    )  # fmt: skip


def file_of_several(kind: str, asked: Asked, settings: Settings, files: Sequence[str]) -> str:
    """The name of a file about the maps in these files: network, picture and class of the first, the kind, and a digest
    of all."""
    short = hashlib.sha256("\n".join(files).encode()).hexdigest()[:8]
    return file_name(*_network(asked, settings), picture_name(settings), _explained(asked), kind, short)


def file_name(*parts: str) -> str:
    """Parts of a name, as a file's name without its ending; empty ones are left out."""
    cleaned = (re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-.")[:_LONGEST_PART].strip("-.") for part in parts)
    return "-".join(part for part in cleaned if part)


def picture_name(settings: Settings) -> str:
    """The chosen picture, as a part of a file's name."""
    if settings.image == UPLOAD:
        return settings.picture_name.rpartition(".")[0] or UPLOAD
    return DRAWING if settings.image == DRAWING else settings.image


def network_label(settings: Settings) -> str:
    """The network, for people, with the file of its weights."""
    return f"{settings.network}, weights {settings.checkpoint_name}" if settings.checkpoint else settings.network


def picture_label(settings: Settings) -> str:
    """The picture, for people: a file's whole name."""
    return settings.picture_name or UPLOAD if settings.image == UPLOAD else settings.image


def opened(settings: Settings) -> str:
    """The network and the picture, for people."""
    return f"{network_label(settings)}; picture {picture_label(settings)}"


def explained(asked: Asked) -> str:
    """The explained class, difference of classes or unit, for people."""
    question, classes = asked.question, asked.subject.model.classes
    if question.target is None:
        return f"unit {place(question.layer, asked.subject.layers[question.layer], question.neuron)}"
    named = f"class {question.target}, {classes[question.target]}"
    return named if question.contrast is None else f"{named}, minus {question.contrast}, {classes[question.contrast]}"


def quantity(question: Question) -> str:
    """The quantity that the numbers of a map measure."""
    return METHODS[question.method].guide.quantity


def _network(asked: Asked, settings: Settings) -> list[str]:
    """The network, and the file of its weights."""
    return [asked.subject.name, *([settings.checkpoint_name.rpartition(".")[0]] if settings.checkpoint else [])]


def _explained(asked: Asked) -> str:
    """The class with its name, or the neuron."""
    question, classes = asked.question, asked.subject.model.classes
    if question.target is None:
        return f"{question.layer}-{'.'.join(map(str, question.neuron))}"
    named = f"{question.target}-{classes[question.target]}"
    return named if question.contrast is None else f"{named[:28]}-minus-{question.contrast}"
