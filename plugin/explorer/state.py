"""What a page shows, as one frozen value, and its way to the URL and back.

A link is input from a stranger: every value is checked, and what cannot be used falls back to the default with one
sentence that says so.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from plugin.measuring.networks import NAMES as MEASURED
from plugin.rules import SWITCH_FREE
from plugin.rules.presets import PRESETS

from . import drawing
from .lrp_rules import RULES
from .methods import METHODS, OF_PICTURES

# Pictures that are no samples.
UPLOAD, DRAWING = "upload", "drawing"
EXPLAIN = ("class", "neuron")
VIEWS = ("sum", "positive", "negative", "colour", "red", "green", "blue")
# Of them those of networks that see grey values.
_GREY_VIEWS = VIEWS[:3]
SCALES = ("own", "shared")
# Modes of unpooling that need no picture, and how much of a picture of a unit is shown.
UNPOOLING = tuple(SWITCH_FREE)
FRAMES = ("unit", "whole")
# What draws the images that are maximised: a shipped GAN, or nothing, so that pixels are maximised themselves.
PIXELS = "pixels"
GENERATORS = ("dcgan-mnist", "gan-mnist", PIXELS)
# Of a unit that has positions: itself, or the mean of its channel.
SPANS = ("position", "channel")
PRIORS = ("shell", "gaussian", "box", "ppgn")
MOST_RUNS, MOST_STEPS = 64, 500
# Sets of images that the Invariance page measures with.
DATA = ("digits", "generated", "mnist", "crops", "cifar10")
LEAST_IMAGES, MOST_IMAGES = 50, 2000
MOST_RANDOM_LAYERS = 9
# The steps of the guided tour.
TOUR = (
    "relu-rules", "switches", "without-a-picture", "guided-backprop", "conservation", "code-space", "invariance",
)  # fmt: skip
_MOST_AXES = 3
_LAYER = r"[A-Za-z0-9_.]{1,120}"


@dataclass(frozen=True)
class Settings:
    """The state of the pages: what they share, and what each has of its own.

    Attributes:
        network: a name of `networks.choices`.
        checkpoint: the first 12 hexadecimal digits of the SHA-256 of the file that holds its weights; empty if the
            network has its own.
        image: the name of a sample, `UPLOAD` or `DRAWING`.
        picture: the first 12 hexadecimal digits of an upload's SHA-256, so that a link can say which file it needs.
        drawing: what was drawn, as `drawing.encode` writes it; empty for a blank sheet.
        methods: keys of `METHODS`, in the order of the columns.
        explain: "class" explains a logit, "neuron" one unit of a layer.
        target: a class index; None is the most probable class.
        contrast: a second class index: then the difference of the two logits is explained.
        layer: dotted name of a module; for a neuron, and for methods that look at a layer.
        neuron: index into the layer's output without its batch dimension; empty is the most active unit.
        view: how the three channels become a picture: "sum", its "positive" or its "negative" part, "colour", or one of
            the channels.
        percentile: of the magnitudes at which the colours end, 50 to 100.
        opacity: of the maps over the picture, 0 to 1.
        scale: "own" for each map, or "shared" by all.
        randomise: how many of the last layers are made random to check the maps; 0 is no check.
        unpooling: where max-pooling hands the signal of a reconstruction without a picture, one of `UNPOOLING`.
        frame: "unit" shows the part of a reconstruction that the unit sees, "whole" all of it.
        preset: of the rules of LRP on its own page, a key of `plugin.rules.presets.PRESETS`.
        rules: pairs of a layer's name and a key of `RULES` that replace the preset's rule there.
        results: the stored results on the benchmarks' page, named after their machine; empty for the first ones.
        measured: the network whose results are shown there, a key of `plugin.measuring.networks.NAMES`.
        batch: images per call there.
        generator: what draws the images that are maximised, one of `GENERATORS`.
        span: of a neuron that is maximised, "position" is itself, "channel" the mean of its channel.
        prior: of the codes, one of `PRIORS`.
        runs: of the maximisation.
        seed: of the first run; the next runs have the next numbers.
        steps: that a run takes at most.
        stop_at: the probability of a class at which a run ends.
        data: the images that invariance is measured with, one of `DATA`; empty for those that suit the network.
        count: how many of them.
        ascent: the steps of each run there.
        step: of the guided tour, one of `TOUR`.
    """

    network: str = "all-cnn-c"
    checkpoint: str = ""
    image: str = "cat"
    picture: str = ""
    drawing: str = ""
    methods: tuple[str, ...] = ("gradient", "deconvnet", "guided-backprop")
    explain: str = "class"
    target: int | None = None
    contrast: int | None = None
    layer: str = ""
    neuron: tuple[int, ...] = ()
    view: str = "sum"
    percentile: float = 99.0
    opacity: float = 1.0
    scale: str = "own"
    randomise: int = 0
    unpooling: str = "center"
    frame: str = "unit"
    preset: str = "epsilon_plus_flat"
    rules: tuple[tuple[str, str], ...] = ()
    results: str = ""
    measured: str = "vgg16"
    batch: int = 1
    generator: str = "dcgan-mnist"
    span: str = "position"
    prior: str = "shell"
    runs: int = 16
    seed: int = 0
    steps: int = 200
    stop_at: float = 0.99
    data: str = ""
    count: int = 300
    ascent: int = 60
    step: str = TOUR[0]

    def to_query(self) -> dict[str, str]:
        """The query parameters of a link to this state. Defaults are left out, so that links stay short."""
        return {
            name: _WRITERS.get(name, str)(getattr(self, name))
            for name in (field.name for field in fields(self))
            if getattr(self, name) != getattr(Settings(), name)
        }

    @property
    def needs_layer(self) -> bool:
        """Whether anything that is shown looks at a layer."""
        return self.explain == "neuron" or any(METHODS[key].needs_layer for key in self.methods)


def from_query(
    query: Mapping[str, str], networks: Collection[str], images: Collection[str]
) -> tuple[Settings, list[str]]:
    """Read a link. Parameters that no page knows are passed over.

    Args:
        query: the parameters, each once.
        networks: the names that are accepted as a network.
        images: the names of the sample images.

    Returns:
        The settings, and one sentence for each value that could not be used.
    """
    readers = _READERS | {"network": _one_of(networks), "image": _one_of([*images, UPLOAD, DRAWING])}
    settings, notes = Settings(), []
    for name, read in readers.items():
        if name not in query:
            continue
        try:
            settings = replace(settings, **{name: read(query[name])})
        except ValueError as reason:
            notes.append(f"The link's {name} {quoted(query[name])} {reason}; the default is used.")
    return settings, notes


def quoted(value: str, longest: int = 40) -> str:
    """A stranger's text as Markdown code, cut short: nothing in it is rendered."""
    kept = "".join(character for character in value if character.isprintable() and character != "`")
    return f"`{kept[:longest] or ' '}{'…' if len(kept) > longest else ''}`"


def markdown_sentence(text: object) -> str:
    """A message, such as an exception, as one sentence of Markdown in which nothing is rendered."""
    sentence = str(text).strip().rstrip(".")
    sentence = sentence[:1].upper() + sentence[1:] + "."
    return escaped(sentence)


def escaped(text: str) -> str:
    """A text as Markdown in which nothing is rendered, such as the name of a layer."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|~$:!])", r"\\\1", text)


def follow(settings: Settings, before: Settings, same_classes: bool) -> Settings:
    """Drop the choices that lose their meaning when another network, layer or preset is chosen.

    Args:
        settings: after the change.
        before: before it.
        same_classes: whether class indices mean the same for both networks.
    """
    if settings.network != before.network and not same_classes:
        settings = replace(settings, target=None, contrast=None)
    if settings.network != before.network:
        settings = replace(settings, checkpoint="", layer="", rules=())
    if settings.preset != before.preset:
        settings = replace(settings, rules=())
    if settings.layer != before.layer:
        settings = replace(settings, neuron=())
    return settings


def fit(
    settings: Settings, class_names: Collection[str], layers: dict[str, tuple[int, ...]], channels: int = 3
) -> tuple[Settings, list[str]]:
    """Make settings valid for a network.

    Args:
        settings: valid in themselves.
        class_names: of the network's outputs.
        layers: output shape, without the batch dimension, of each layer that can be chosen; in order of execution.
        channels: of the network's input.

    Returns:
        The settings, and one sentence for each value that the network does not have.
    """
    notes = []
    for name in ("target", "contrast"):
        index = getattr(settings, name)
        if index is not None and index >= len(class_names):
            notes.append(f"{settings.network} has classes 0 to {len(class_names) - 1}: there is no {name} {index}.")
            changes: dict[str, Any] = {name: None}
            settings = replace(settings, **changes)
    if settings.view not in views(channels):
        notes.append(f"{settings.network} sees grey values: there is no view {quoted(settings.view)}.")
        settings = replace(settings, view="sum")
    if settings.layer and settings.layer not in layers:
        notes.append(f"{settings.network} has no layer {quoted(settings.layer)}.")
        settings = replace(settings, layer="", neuron=())
    if settings.needs_layer and not settings.layer:
        settings = replace(settings, layer=(spatial(layers) or [""])[-1], neuron=())
    shape = layers.get(settings.layer, ())
    inside = len(settings.neuron) == len(shape) and all(i < n for i, n in zip(settings.neuron, shape, strict=True))
    if settings.neuron and not inside:
        place = f"{settings.layer}, whose output has shape {shape}," if shape else "A layer that was not given"
        notes.append(f"{place} has no neuron {settings.neuron}.")
        settings = replace(settings, neuron=())
    return settings, notes


def axes(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names for the axes of a layer's output without its batch dimension.

    Pictures are cropped to squares, so rows and columns are of one number: that tells channels first (C, H, W) from
    channels last (H, W, C), as in Swin transformers.
    """
    if len(shape) == 3 and shape[1] == shape[2]:
        return "channel", "row", "column"
    if len(shape) == 3 and shape[0] == shape[1]:
        return "row", "column", "channel"
    return {1: ("unit",), 2: ("position", "feature")}.get(len(shape), tuple(f"axis {i}" for i in range(len(shape))))


def views(channels: int) -> tuple[str, ...]:
    """How maps of a network with that many input channels can be shown."""
    return VIEWS if channels == 3 else _GREY_VIEWS


def spatial(layers: dict[str, tuple[int, ...]]) -> list[str]:
    """The layers that have positions, the last of which is where Grad-CAM is usually taken; all if none has."""
    found = [name for name, shape in layers.items() if len(shape) == 3 and shape[1] * shape[2] > 1]
    return found or list(layers)


def _one_of(choices: Collection[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError("is unknown")
        return text

    return read


def _index(text: str) -> int:
    # int() alone would take "1_0", " 1" and the digits of every script.
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError("is not a whole number from 0 on")
    return int(text)


def _number(lowest: float, highest: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise ValueError(f"is not a number from {lowest:g} to {highest:g}")
        return value

    return read


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(text.split(",")))
    if unknown := [key for key in keys if key not in OF_PICTURES]:
        raise ValueError(f"names {len(unknown)} unknown method{'s' if len(unknown) > 1 else ''}")
    return keys


def _neuron(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if len(parts) > _MOST_AXES:
        raise ValueError(f"has more than {_MOST_AXES} parts")
    return tuple(_index(part) for part in parts)


def _rules(text: str) -> tuple[tuple[str, str], ...]:
    chosen: dict[str, str] = {}
    for part in text.split(","):
        layer, _, rule = part.partition(":")
        if not re.fullmatch(_LAYER, layer) or rule not in RULES:
            raise ValueError("is not a list of layer:rule")
        chosen[layer] = rule
    return tuple(chosen.items())


def _matching(pattern: str, kind: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"is not {kind}")
        return text

    return read


def _drawing(text: str) -> str:
    return drawing.encode(drawing.decode(text))


def _count(most: int, least: int = 0) -> Callable[[str], int]:
    def read(text: str) -> int:
        if (number := _index(text)) > most:
            raise ValueError(f"is more than {most}")
        if number < least:
            raise ValueError(f"is less than {least}")
        return number

    return read


_READERS: dict[str, Callable[[str], Any]] = {
    "checkpoint": _matching(r"[0-9a-f]{12}", "a SHA-256 prefix"),
    "picture": _matching(r"[0-9a-f]{12}", "a SHA-256 prefix"),
    "drawing": _drawing,
    "methods": _keys,
    "explain": _one_of(EXPLAIN),
    "target": _index,
    "contrast": _index,
    "layer": _matching(_LAYER, "the name of a layer"),
    "neuron": _neuron,
    "view": _one_of(VIEWS),
    "percentile": _number(50, 100),
    "opacity": _number(0, 1),
    "scale": _one_of(SCALES),
    "randomise": _count(MOST_RANDOM_LAYERS),
    "unpooling": _one_of(UNPOOLING),
    "frame": _one_of(FRAMES),
    "preset": _one_of(PRESETS),
    "rules": _rules,
    "results": _matching(r"[a-z0-9-]{1,80}", "the name of results"),
    "measured": _one_of(MEASURED),
    "batch": _index,
    "generator": _one_of(GENERATORS),
    "span": _one_of(SPANS),
    "prior": _one_of(PRIORS),
    "runs": _count(MOST_RUNS, 1),
    "seed": _index,
    "steps": _count(MOST_STEPS, 1),
    "stop_at": _number(0.01, 1),
    "data": _one_of(DATA),
    "count": _count(MOST_IMAGES, LEAST_IMAGES),
    "ascent": _count(MOST_STEPS, 1),
    "step": _one_of(TOUR),
}
_WRITERS: dict[str, Callable[[Any], str]] = {
    "methods": ",".join,
    "rules": lambda rules: ",".join(f"{layer}:{rule}" for layer, rule in rules),
    "neuron": lambda neuron: ".".join(map(str, neuron)),
    "percentile": lambda value: f"{value:g}",
    "opacity": lambda value: f"{value:g}",
    "stop_at": lambda value: f"{value:g}",
}
