"""Settings that follow a choice: made valid for a network, and for the page that a link leads to."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ..inputs import offered_pictures
from ..inputs.layer_outputs import spatial
from ..inputs.offered_networks import DIGITS, family
from ..inputs.unit_maximizers import SPACES, generators_for
from ..server.untrusted_text import quoted
from .settings import CHOICE_OF_PICTURES, CHOICE_OF_UNITS, DRAWING, OWN_WEIGHTS, UPLOAD, VIEWS, Settings

# Settings that are classes of the network, with their names in a sentence.
OF_CLASSES = {
    "target": "target",
    "contrast": "contrast",
    "labelled": "label",
    "predicted": "prediction",
    "selective_for": "class",
}
# Ways to show the maps of networks that see grey values.
_GREY_VIEWS = ("sum", "positive", "negative")


def views(channels: int) -> tuple[str, ...]:
    """How maps of a network with that many input channels can be shown."""
    return tuple(VIEWS) if channels == 3 else _GREY_VIEWS


def follow(settings: Settings, before: Settings, same_classes: bool, left: Settings | None = None) -> Settings:
    """Drop the choices that lose their meaning when another network, layer or preset is chosen.

    Args:
        settings: after the change.
        before: before it.
        same_classes: whether class indices mean the same for both networks.
        left: the settings of the chosen network when it was shown last: its weights and its class come back.
    """
    if settings.network != before.network:
        left = left or Settings()
        settings = with_weights(replace(settings, layer="", rules=()), left)
        if family(settings.network) != family(before.network):
            settings = replace(settings, generator=Settings.generator)
        if not same_classes:
            settings = replace(
                settings, target=left.target, contrast=left.contrast, labelled=None, predicted=None, selective_for=None
            )
    own = dict(settings.b)
    if "network" in own and own["network"] != dict(before.b).get("network"):
        settings = replace(settings, b=tuple((own | {name: getattr(Settings, name) for name in OWN_WEIGHTS}).items()))
    if settings.preset != before.preset:
        settings = replace(settings, rules=())
    if settings.layer != before.layer:
        settings = replace(settings, neuron=())
    if any(getattr(settings, name) != getattr(before, name) for name in CHOICE_OF_PICTURES):
        settings = replace(settings, sheet=1)
    if any(getattr(settings, name) != getattr(before, name) for name in CHOICE_OF_UNITS):
        settings = replace(settings, unit_sheet=1)
    if _kind_of_run(settings) != _kind_of_run(before):
        settings = replace(settings, until="")
    return settings


def with_weights(settings: Settings, other: Settings) -> Settings:
    """The settings with the checkpoint of others, and with all that belongs to it."""
    changes: dict[str, Any] = {name: getattr(other, name) for name in OWN_WEIGHTS}
    return replace(settings, **changes)


def _kind_of_run(settings: Settings) -> tuple[str, str, bool]:
    """The settings that decide which ends the runs of a maximisation can have."""
    return settings.generator, settings.explain, settings.contrast is None


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
    for name, called in OF_CLASSES.items():
        index = getattr(settings, name)
        if index is not None and index >= len(class_names):
            notes.append(f"{settings.network} has classes 0 to {len(class_names) - 1}: there is no {called} {index}.")
            changes: dict[str, Any] = {name: None}
            settings = replace(settings, **changes)
    if settings.view not in views(channels):
        notes.append(f"{settings.network} sees grey values: there is no view {quoted(settings.view)}.")
        settings = replace(settings, view="sum")
    if settings.explain == "neuron" and not layers:
        notes.append(f"{settings.network} has no layer whose neurons can be chosen.")
        settings = replace(settings, explain="class")
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


def with_suitable_picture(settings: Settings, left: Settings | None = None) -> Settings:
    """The settings of a network that was just chosen, with a digit for the classifier of digits and for no other.

    Args:
        settings: of the network.
        left: the settings of the network when it was shown last: its picture comes back.
    """
    if settings.image == UPLOAD or _is_digit(settings.image) == (settings.network == DIGITS):
        return settings
    if left is not None and left.image != UPLOAD:
        return replace(settings, image=left.image)
    return replace(settings, image=offered_pictures.DIGITS[3] if settings.network == DIGITS else Settings.image)


def _is_digit(image: str) -> bool:
    return image in (DRAWING, *offered_pictures.DIGITS)


def generator_of(settings: Settings) -> str:
    """The generator or space of the maximisation: the chosen one if it suits the network, else the first that does."""
    suitable = {**generators_for(settings.network), **SPACES}
    return settings.generator if settings.generator in suitable else next(iter(suitable))


def alone_with(settings: Settings, network: str) -> Settings:
    """The settings for a page that shows another network than the others do."""
    changed = replace(settings, network=network, target=None, contrast=None)
    return with_suitable_picture(follow(changed, settings, same_classes=False))


def to_be_maximised(settings: Settings, target: int | None = None) -> Settings:
    """The settings with which pages lead to Code space: their class or unit, and a generator for their network."""
    return replace(settings, generator=generator_of(settings), target=settings.target if target is None else target)


def to_be_compared(settings: Settings) -> Settings:
    """The settings with which pages lead to Compare: A has the first of their methods."""
    return replace(settings, method=settings.methods[0], b=())
