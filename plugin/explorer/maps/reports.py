"""A view as one HTML file, which opens without a connection and can be printed: all texts and programs of the page."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from plugin.figures import TitledMap
from plugin.figures.encoding import png
from plugin.heads import OUTPUTS, PLURALS
from plugin.models import Preprocessing
from plugin.propagation.lrp.checking import LayerRule
from plugin.propagation.lrp.ledger import Ledger

from ..choices.offered_methods import METHODS
from ..choices.settings import SCALES, VIEWS
from ..server.meter import cost
from . import answers, ledgers, map_names, map_programs, rendering
from .questions import Asked, LogitDifference, Look, arguments, constructed, explained
from .shown_maps import Shown

_MOST_CLASSES, _PICTURE_SIDE = 5, 512
# A named line of plain text below a map.
Line = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """A table of the page: its title, and its lines, which have the same columns."""

    title: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Added:
    """The content of a page beside its maps.

    Attributes:
        ledger: the ledger of its only map, whose program computes it, too.
        tables: its tables of numbers.
        figures: its other figures, with a sentence on each.
        programs: its other programs, with their labels.
    """

    ledger: Ledger | None = None
    tables: tuple[Table, ...] = ()
    figures: tuple[tuple[TitledMap, str], ...] = ()
    programs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ReportedView:
    """The content of a page.

    Attributes:
        title: the title of the page.
        link: the link to this view.
        maps: its maps, at least one.
        added: the rest of its content.
    """

    title: str
    link: str
    maps: tuple[Shown, ...]
    added: Added

    @property
    def file(self) -> str:
        """The name of the report."""
        return map_names.file_of_several(
            "report", self.maps[0].asked, self.maps[0].settings, [shown.file for shown in self.maps]
        )


def html(view: ReportedView, lines: Callable[[Shown], Sequence[Line]]) -> bytes:
    """The file: HTML with its pictures inside. It has no script and asks for no address.

    Args:
        view: the content of the page.
        lines: the lines of the page below a map.
    """
    # Texts in the template, such as the name of a class, may be a stranger's: all are escaped.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    looks: dict[Look, list[Shown]] = {}
    for shown in view.maps:
        looks.setdefault(shown.asked.look, []).append(shown)
    outputs = {look: answers.outputs(look.subject, look.picture.image) for look in looks}
    text = environment.get_template("report.html").render(
        view=view,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        versions=rendering.versions(),
        looks=[_look(maps, outputs[look]) for look, maps in looks.items()],
        maps=[_map(shown, outputs[shown.asked.look], lines(shown), view.added.ledger) for shown in view.maps],
        figures=[(figure.title, _vector(figure), text) for figure, text in view.added.figures],
        numbers=Table("", [{"Map": _named(shown, len(looks)), **_numbers(shown)} for shown in view.maps]),
        ledger=_ledger(view.added.ledger, view.maps[0]) if view.added.ledger else None,
    )
    return text.encode()


def _look(maps: Sequence[Shown], outputs: NDArray[np.float32]) -> dict[str, Any]:
    """A network and the picture that it looks at."""
    shown = maps[0]
    asked, settings, model = shown.asked, shown.settings, shown.subject.model
    # Imported here, because it needs a heavy package.
    from plugin.datasets.network_identity import weights_sha256

    visible, given = model.visible(asked.picture.image), asked.picture.image
    facts = [
        ("Network", settings.network),
        ("SHA-256 of its weights", weights_sha256(model.network)),
        *_checkpoint(shown),
        ("Preprocessing", _preprocessing(model.preprocessing)),
        ("Picture", f"{map_names.picture_label(settings)}, {given.width} x {given.height} pixels"),
        ("SHA-256 of the picture", asked.picture.digest),
    ]
    chosen = [index for each in maps for index in (each.question.target, each.question.contrast) if index is not None]
    order = [*np.argsort(-outputs, kind="stable")[:_MOST_CLASSES].tolist(), *chosen]
    shares, called = answers.probabilities(shown.subject.head, outputs), OUTPUTS[shown.subject.head]
    return {
        "output": "" if called == "probability" else called.capitalize(),
        "name": map_names.opened(settings),
        "facts": facts,
        "given": _address(_small(given)),
        "seen": _address(visible.convert("RGB")),
        "seen_size": f"{visible.width} x {visible.height}",
        "classes": [
            {
                "name": model.classes[index], "index": index, "output": float(outputs[index]),
                "probability": float(shares[index]), "chosen": index in chosen,
            }
            for index in dict.fromkeys(order)
        ],
    }  # fmt: skip


def _preprocessing(used: Preprocessing) -> str:
    mean, deviation = (", ".join(f"{value:g}" for value in values) for values in (used.mean, used.std))
    return (
        f"shorter side to {used.resize} pixels ({used.interpolation.name.lower()}), central square of {used.crop}, "
        f"minus {mean}, divided by {deviation}"
    )


def _checkpoint(shown: Shown) -> list[Line]:
    if not shown.settings.checkpoint:
        return []
    settings = shown.settings
    # The identity ends with the checkpoint's digest where all else is the architecture's own.
    digest = shown.subject.identity.rpartition("@")[2]
    whole = digest if digest.startswith(settings.checkpoint) else f"starts with {settings.checkpoint}"
    found = [("Checkpoint", settings.checkpoint_name), ("SHA-256 of the checkpoint", whole)]
    if settings.class_names:
        found += [
            ("Names of the classes", settings.class_names_name),
            ("SHA-256 of the names", f"starts with {settings.class_names}"),
        ]
    return found


def _map(shown: Shown, outputs: NDArray[np.float32], lines: Iterable[Line], ledger: Ledger | None) -> dict[str, Any]:
    """A map with its lines, the rules of its layers and its program."""
    asked, settings = shown.asked, shown.settings
    method = METHODS[shown.question.method]
    scale = f"{SCALES[settings.scale].lower()} scale, colours end at {shown.limit:.6g}"
    return {
        "label": shown.label,
        "network": map_names.network_label(settings),
        "figure": _vector(rendering.titled(shown)),
        "alternative": rendering.alternative(shown.label, shown.result, settings),
        "lines": [
            ("Explained", map_names.explained(asked)),
            *_values(shown, outputs),
            ("Quantity", map_names.quantity(shown.question)),
            ("Reading", method.reading),
            ("Method", f"{method.module}.{method.class_name(bool(shown.question.neuron))}"),
            *_parameters(asked),
            ("Drawn", f"{VIEWS[settings.view]}, {scale}, percentile {settings.percentile:g}, "
                      f"opacity {settings.opacity:g}"),
            *lines,
            ("Digest", map_names.map_digest(
                shown.subject.identity, asked.picture.digest, shown.question, shown.result.device
            )),
            ("Files", f"{shown.file}.png, .svg, .npz"),
        ],
        "rules": _layer_rules(asked),
        "program": map_programs.program_of(shown, ledger is not None),
    }  # fmt: skip


def _values(shown: Shown, outputs: NDArray[np.float32]) -> list[Line]:
    """The explained number, and the probability of a class."""
    question = shown.question
    if question.target is None:
        if not question.needs_picture:
            return []
        response = answers.responses(shown.subject, shown.asked.picture.image, question.layer)[question.neuron]
        return [("Value", f"{float(response):.6g}")]
    called, target = OUTPUTS[shown.subject.head], outputs[question.target]
    found = [(called.capitalize(), f"{target:.6g}")]
    if called != "probability":
        shares = answers.probabilities(shown.subject.head, outputs)
        found.append(("Probability", f"{shares[question.target]:.2%}"))
    if question.contrast is not None:
        subtracted = outputs[question.contrast]
        found += [
            (f"{called.capitalize()} that is subtracted", f"{subtracted:.6g}"),
            (f"Difference of {PLURALS[called]}", f"{target - subtracted:.6g}"),
        ]
    return found


def _parameters(asked: Asked) -> list[Line]:
    """The arguments of the method, as the program has them."""
    question, method = asked.question, METHODS[asked.question.method]
    given: dict[str, Any] = {**arguments(asked.subject.model, question), **method.call}
    if question.layer:
        given["layer"] = question.layer
    if question.unpooling:
        given["unpooling"] = question.unpooling
    return [("Parameters", ", ".join(f"{name}={value!r}" for name, value in given.items()))] if given else []


def _layer_rules(asked: Asked) -> list[LayerRule]:
    """The rule of LRP that each layer has; empty for other methods."""
    question, model = asked.question, asked.subject.model
    method = METHODS[question.method]
    if not method.preset:
        return []
    with answers.answering(asked.subject, question):
        network, _ = explained(model.network, question)
        layer = [network.get_submodule(question.layer)] if question.layer else []
        attribution = method.attribution_class(bool(question.neuron))(network, *layer, **constructed(model, question))
        rules: Sequence[LayerRule] = attribution.check(asked.subject.preprocess(asked.picture.image)).layers
    if question.contrast is None:
        return list(rules)
    return [replace(rule, layer=rule.layer.removeprefix(LogitDifference.PREFIX)) for rule in rules]


def _numbers(shown: Shown) -> dict[str, str | float]:
    return {**rendering.numbers(shown.result, shown.settings), "Took": cost(shown.result)}


def _named(shown: Shown, looks: int) -> str:
    return f"{map_names.network_label(shown.settings)}: {shown.label}" if looks > 1 else shown.label


def _ledger(ledger: Ledger, shown: Shown) -> dict[str, Any]:
    """The ledger with a bar for each layer: pieces `(kind, start, width)` in percent of the widest bar."""
    rows = ledgers.rows(ledger, shown.asked)
    parts = [{"left": row.left, "bias": row.to_bias, "stabiliser": row.to_stabiliser} for row in rows]
    lowest = min(sum(value for value in each.values() if value < 0) for each in parts)
    highest = max(sum(value for value in each.values() if value > 0) for each in parts)
    width = highest - lowest or 1.0

    def pieces(part: Mapping[str, float]) -> list[tuple[str, float, float]]:
        ends = {True: 0.0, False: 0.0}
        found = []
        for kind, value in part.items():
            start = ends[value >= 0] + min(value, 0.0)
            ends[value >= 0] += value
            found.append((kind, 100 * (start - lowest) / width, 100 * abs(value) / width))
        return found

    return {
        "balance": ledgers.balance(ledger, shown.asked),
        "remainder": ledgers.remainder(ledger),
        "zero": 100 * -lowest / width,
        "rows": [
            (replace(row, rule=ledgers.rule_label(row.rule, shown.question)), pieces(part))
            for row, part in zip(rows, parts, strict=True)
        ],
    }


def _small(image: Image.Image) -> Image.Image:
    copy = image.convert("RGB")
    copy.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    return copy


def _address(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def _vector(figure: TitledMap) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(figure.svg()).decode()
