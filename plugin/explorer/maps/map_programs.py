"""Programs that compute the map on screen, from public names only."""

from collections.abc import Mapping
from typing import Any

from ..choices.offered_methods import METHODS
from ..choices.python_calls import PythonCall
from ..choices.settings import Settings
from ..inputs.offered_pictures import Picture
from ..inputs.subject import Subject
from ..server.turns import PROCESSOR
from .questions import LogitDifference, Question, arguments
from .rendering import channel_choice
from .shown_maps import Shown


def program(
    settings: Settings, question: Question, picture: Picture, limit: float, subject: Subject, ledger: bool = False
) -> str:
    """A program whose `attribution` (C, H, W) and `figure` are those on screen.

    Args:
        settings: how the map is drawn.
        question: the question that it answers.
        picture: the picture that the network saw.
        limit: the magnitude at which its colours end.
        subject: the network.
        ledger: whether the program also has `ledger`, of a class by a preset of LRP.
    """
    parts = [
        _imports(question, picture, subject),
        _computation(question, picture, subject, ledger),
        _drawing(settings, limit, question),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def program_of(shown: Shown, ledger: bool = False) -> str:
    """The program of a map on a page."""
    return program(shown.settings, shown.question, shown.asked.picture, shown.limit, shown.subject, ledger)


def program_of_difference(a: Shown, b: Shown, scaled: bool) -> str:
    """A program whose `difference` (H, W) and `figure` are those of a comparison.

    Args:
        a, b: the maps, each as `(H, W)`.
        scaled: see `figures.difference`.
    """
    first, second = (program_of(shown).rpartition("figure = ")[0] for shown in (a, b))
    seen = ["model.visible(image)" if shown.question.needs_picture else "None" for shown in (a, b)]
    images, maps = f"[{seen[0]}]", '{"A": one, "B": other, "B minus A": difference}'
    percentile = f"clip_percentile={a.settings.percentile!r}"
    return (
        f"{first}first, images = values, {images}\n\n\n{second}images.append({seen[1]})\n\n"
        "one, other = figures.common_size(first, values)\n"
        f"difference = figures.difference(first, values, scaled={scaled})\n"
        f"maps = {maps}\n"
        f"figure = figures.linked_maps(maps, images, {a.settings.opacity!r}, {percentile})\nfigure.show()\n"
    )


def _imports(question: Question, picture: Picture, subject: Subject) -> list[str]:
    method, model = METHODS[question.method], subject.model
    lines = [f"from {method.module} import {_class_name(question)}", *subject.imports]
    needed = question.needs_picture
    uses_models = "models." in subject.source or (needed and "models." in picture.source)
    lines.append("from plugin import figures, models" if uses_models else "from plugin import figures")
    if question.contrast is not None:
        lines.append(f"from {LogitDifference.__module__} import {LogitDifference.__name__}")
    for value in arguments(model, question).values():
        lines += value.imports if isinstance(value, PythonCall) else ()
    lines += picture.imports if needed else ()
    standard = [line for line in lines if "pathlib" in line]
    names: dict[str, set[str]] = {}
    for line in {*lines} - {*standard}:
        _, module, _, imported = line.split(maxsplit=3)
        names.setdefault(module, set()).update(imported.split(", "))
    others = [f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)]
    return [*standard, "", *others] if standard else others


def _class_name(question: Question) -> str:
    return METHODS[question.method].class_name(bool(question.neuron))


def _computation(question: Question, picture: Picture, subject: Subject, ledger: bool) -> list[str]:
    method, model, class_names = METHODS[question.method], subject.model, subject.model.classes
    if not question.needs_picture:
        unpooling = f", unpooling={question.unpooling!r}" if question.unpooling else ""
        return [
            *opening(subject)[0],
            f"explain = {_class_name(question)}(model.network, {question.layer!r}, {subject.input_shape}{unpooling})",
            f"attribution = explain.reconstruct([{question.neuron}])[0]{_array(subject)}",
        ]
    opened, there = opening(subject)
    lines = [*opened, f"image = {picture.source}", f"inputs = model.preprocess(image){there}"]
    network = "model.network"
    call: dict[str, Any] = {"target": question.target, **method.call}
    if question.neuron:
        call = {"neuron_selector": question.neuron}
    comment = ""
    if question.contrast is not None:
        network = f"LogitDifference(model.network, {question.target}, {question.contrast})"
        comment = f"  # {_named(question.target, class_names)} minus {_named(question.contrast, class_names)}"
        call["target"] = 0
    elif question.target is not None:
        comment = f"  # {_named(question.target, class_names)}"
    layer = [f"model.network.get_submodule({question.layer!r})"] if question.layer else []
    keywords = arguments(model, question)
    # A call stands on a line of its own, under the name of the argument.
    calls = {name: value for name, value in keywords.items() if isinstance(value, PythonCall)}
    shown = [f"{name}={name}" if name in calls else f"{name}={value!r}" for name, value in keywords.items()]
    construct = ", ".join([network, *layer, *shown])
    books = f"ledger = explain.ledger(inputs, {call.get('target')!r})  # where the relevance went"
    return [
        *lines,
        *(f"{name} = {value!r}" for name, value in calls.items()),
        f"explain = {_class_name(question)}({construct})",
        f"attribution = explain.attribute(inputs, {', '.join(_keywords(call))})[0]{_array(subject)}{comment}",
        *([books] if ledger else []),
    ]


def opening(subject: Subject) -> tuple[list[str], str]:
    """The lines that open the network on its device, and the end of an expression that moves inputs there; empty for
    the processor."""
    opened, there = f"model = {subject.source}", f".to({subject.device!r})"
    return ([opened], "") if subject.device == PROCESSOR else ([opened, f"model.network{there}"], there)


def _array(subject: Subject) -> str:
    """The end of an expression that turns a tensor into an array."""
    return ".numpy()" if subject.device == PROCESSOR else ".cpu().numpy()"


def _drawing(settings: Settings, limit: float, question: Question) -> list[str]:
    arguments = f"limit={limit!r}"
    if question.needs_picture:
        arguments = f"image=model.visible(image), opacity={settings.opacity!r}, {arguments}"
    if settings.view == "colour":
        drawn = [f"figure = figures.colour_map(attribution, {arguments})"]
    else:
        drawn = [
            f"values = figures.reduce_channels(attribution, {channel_choice(settings.view)!r})",
            f"figure = figures.signed_map(values, quantity={METHODS[question.method].guide.quantity!r}, {arguments})",
        ]
    return [*drawn, "figure.show()"]


def _keywords(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value!r}" for name, value in arguments.items()]


def _named(index: int | None, class_names: tuple[str, ...]) -> str:
    return repr(class_names[index]) if index is not None and index < len(class_names) else f"class {index}"
