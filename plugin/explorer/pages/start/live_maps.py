"""The opening page's live picture: one of the bundled networks, one of the sample pictures, three methods."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plugin import figures, models

from ...choices.fitting import with_suitable_picture
from ...choices.offered_methods import METHODS
from ...choices.settings import Settings
from ...inputs import offered_pictures
from ...inputs.offered_networks import DIGITS
from ...inputs.subject import Subject
from ...maps import rendering
from ...maps.answers import Answer
from ...server.meter import cost
from ...server.untrusted_text import escaped

SHOWN = ("gradient", "guided-backprop", "lrp-epsilon-plus-flat")
_SIDE, _GAP = 320, 16


@dataclass(frozen=True)
class MapTile:
    """A picture with its caption and its description in words."""

    image: Image.Image
    caption: str
    alternative: str


def live(settings: Settings) -> Settings:
    """The settings of the live picture: those of the pages for a bundled network and a sample, else the defaults.

    Other networks may have to be downloaded, and uploads are shown by the pages that ask for them.
    """
    bundled = settings.network in (*models.names(), DIGITS) and not settings.checkpoint
    shown = Settings(network=settings.network, target=settings.target) if bundled else Settings()
    image = settings.image if settings.image in offered_pictures.samples() else shown.image
    return with_suitable_picture(replace(shown, image=image, methods=SHOWN))


def in_full(settings: Settings, shown: Settings) -> Settings:
    """The settings that open the shown maps on the page with their numbers; the rest of the state stays."""
    kept = ("network", "image", "target", "methods", "explain", "checkpoint")
    return replace(settings, **{name: getattr(shown, name) for name in kept})


def choices(settings: Settings) -> tuple[str, ...]:
    """The pictures that are offered: photographs, or digits for the classifier of digits, and the chosen one."""
    offered = offered_pictures.DIGITS if settings.network == DIGITS else tuple(models.sample_images())
    return offered if settings.image in offered else (*offered, settings.image)


def tile(method: str, result: Answer, settings: Settings) -> MapTile:
    """The map of one method."""
    label, limit = METHODS[method].label, rendering.limits({method: result}, settings)[method]
    picture = Image.fromarray(figures.signed_colours(figures.reduce_channels(result.attribution), limit))
    return MapTile(picture, f"{label}, {cost(result)}", rendering.alternative(label, result, settings))


def given(subject: Subject, image: Image.Image) -> MapTile:
    """The picture as the network sees it."""
    visible = subject.model.visible(image)
    caption = f"Input of the network, {visible.width} x {visible.height}"
    return MapTile(visible, caption, "The picture at the resolution of the network")


def paired(left: MapTile, right: MapTile) -> MapTile:
    """Two pictures in one, so that they stay beside each other on a phone."""
    # Enlarged here, because a browser would blur the pixels.
    enlarged = [tile.image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST) for tile in (left, right)]
    both = Image.new("RGBA", (2 * _SIDE + _GAP, _SIDE))
    both.paste(enlarged[0], (0, 0))
    both.paste(enlarged[1], (_SIDE + _GAP, 0))
    return MapTile(
        both,
        f"Left: {left.caption}. Right: {right.caption}.",
        f"Left: {left.alternative}. Right: {right.alternative}.",
    )


def statement(settings: Settings, classes: Sequence[str], probabilities: NDArray[np.float32], target: int) -> str:
    """The prediction that the maps explain, and the meaning of their colours, in Markdown."""
    share = f"{probabilities[target]:.0%}"
    return (
        f"{escaped(settings.network)} gives {escaped(classes[target])} a probability of {share}. Red is positive, blue "
        "negative, white zero; the meaning depends on the method:"
    )


def reading(method: str) -> str:
    """The meaning of the colours in the map of a method, in Markdown."""
    return f"**{METHODS[method].label}**: {METHODS[method].reading}"
