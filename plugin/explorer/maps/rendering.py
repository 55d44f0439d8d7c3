"""Figures and files of a result: the same values as a figure, a PNG and an NPZ."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image

from plugin import figures

from ..choices.settings import VIEWS, Settings
from ..inputs.offered_pictures import Picture
from . import map_names
from .answers import Answer
from .questions import Question
from .shown_maps import Shown

# The height of a colour bar in pixels, which a colour picture does not have.
_COLOUR_BAR = 45
_PACKAGES = ("captum-simplicity", "torch", "torchvision", "captum", "numpy", "pillow")
_CHANNELS = {"red": 0, "green": 1, "blue": 2}


def channel_choice(view: str) -> str | int:
    """The argument of `figures.reduce_channels` for a view other than "colour"."""
    return _CHANNELS.get(view, view)


def limits(results: dict[str, Answer], settings: Settings) -> dict[str, float]:
    """The magnitude at which the colours of each map end: its own, or the same for all."""
    shown = {key: signed(result, settings) for key, result in results.items()}
    if settings.scale == "shared":
        shared = figures.symmetric_limit(shown.values(), settings.percentile)
        return dict.fromkeys(shown, shared)
    return {key: figures.symmetric_limit([values], settings.percentile) for key, values in shown.items()}


def figure(
    result: Answer, settings: Settings, limit: float, visible: Image.Image | None, height: int, quantity: str = ""
) -> go.Figure:
    """The map over the picture that the network saw (`visible`), or alone; `quantity` is the unit of its values."""
    values, opacity = signed(result, settings), settings.opacity if visible else 1.0
    beneath = visible if opacity < 1 else None  # an opaque map hides it
    if settings.view == "colour":
        return figures.colour_map(values, beneath, opacity, limit=limit, height=height - _COLOUR_BAR)
    return figures.signed_map(values, beneath, opacity, limit=limit, height=height, quantity=quantity)


def png(result: Answer, settings: Settings, limit: float, visible: Image.Image | None) -> bytes:
    """The map as a PNG file."""
    values = signed(result, settings)
    paint = figures.signed_colours if settings.view != "colour" else figures.as_image
    colours = paint(values, limit=limit)
    return figures.to_png(colours, visible, settings.opacity)


def titled(shown: Shown) -> figures.TitledMap:
    """The map with its title and its colour bar, for files."""
    settings, limit = shown.settings, shown.limit
    values, colour = signed(shown.result, settings), settings.view == "colour"
    colours = figures.as_image(values, limit=limit) if colour else figures.signed_colours(values, limit)
    picture = figures.blended(colours, shown.visible, settings.opacity)
    opened = map_names.opened if shown.question.needs_picture else map_names.network_label
    return figures.TitledMap(
        np.asarray(picture),
        limit if values.any() else 0.0,
        shown.label,
        (map_names.explained(shown.asked), opened(settings)),
        f"{map_names.quantity(shown.question)} ({VIEWS[settings.view].lower()})",
        clipped=bool(np.abs(values).max() > limit),
        signed=not colour,
    )


def npz(
    result: Answer,
    settings: Settings,
    question: Question,
    picture: Picture,
    limit: float,
    more: Mapping[str, NDArray[Any]] | None = None,
    identity: str = "",
) -> bytes:
    """An NPZ file with `attribution` (C, H, W), `map` as it is on screen, `more` arrays, settings and versions.

    The settings have a `digest` of all that the map depends on; `identity` is that of the network.
    """
    recorded: dict[str, Any] = asdict(settings) | {
        "question": asdict(question),
        "network_identity": identity,
        "image_sha256": picture.digest,
        "digest": map_names.map_digest(identity, picture.digest, question, result.device),
        "limit": limit,
        "seconds": result.seconds,
        "peak_bytes": result.peak_bytes,
        "ran_on": result.device,
    }
    arrays = {"attribution": result.attribution, "map": signed(result, settings), **(more or {})}
    return figures.to_npz(arrays, recorded, versions())


def versions() -> dict[str, str]:
    """Versions of the packages that computed the maps."""
    return {package: _version(package) for package in _PACKAGES}


def alternative(label: str, result: Answer, settings: Settings) -> str:
    """The map in words, for those who cannot see it: its positive share, and the place where it is strongest."""
    values = figures.reduce_channels(result.attribution) if settings.view == "colour" else signed(result, settings)
    total = float(np.abs(values).sum())
    if not total:
        return f"{label}: zero everywhere"
    row, column = (int(i) for i in np.unravel_index(int(np.abs(values).argmax()), values.shape))
    share = float(values.clip(min=0).sum()) / total
    return (
        f"{label}: {values.shape[0]} by {values.shape[1]} pixels, {share:.0%} of the magnitude positive, strongest at "
        f"row {row}, column {column}"
    )


def numbers(result: Answer, settings: Settings) -> dict[str, str | float]:
    """A line of a table for those who cannot see the map, or not its colours."""
    values = figures.reduce_channels(result.attribution) if settings.view == "colour" else signed(result, settings)
    total = float(np.abs(values).sum())
    line: dict[str, str | float] = {
        "Sum": float(values.sum()),
        "Positive share": f"{float(values.clip(min=0).sum()) / total:.0%}" if total else "zero everywhere",
    }
    for name, index in (("Largest", values.argmax()), ("Smallest", values.argmin())):
        row, column = (int(i) for i in np.unravel_index(int(index), values.shape))
        line[name] = f"{values[row, column]:.3g} at row {row}, column {column}"
    return line


def signed(result: Answer, settings: Settings) -> NDArray[Any]:
    """The map as it is drawn: `(H, W)`, or `(3, H, W)` for the view "colour"."""
    if settings.view == "colour":
        return result.attribution
    return figures.reduce_channels(result.attribution, channel_choice(settings.view))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "unknown"
