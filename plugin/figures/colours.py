"""From attributions to colours: the channels that are summed, the limits of a scale, and the shades of a picture."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.colors import diverging, unlabel_rgb

Array = NDArray[Any]

SIGNED_COLOURS: list[str] = list(diverging.RdBu_r)
ZERO_MESSAGE = "zero everywhere"
# The part of a sum that `reduce_channels` keeps.
_PARTS: dict[str | int, Callable[[Array], Array]] = {
    "sum": lambda total: total,
    "positive": lambda total: np.maximum(total, 0),
    "negative": lambda total: np.minimum(total, 0),
}


def reduce_channels(attribution: Array, how: str | int = "sum") -> Array:
    """One signed value per pixel.

    Args:
        attribution: `(C, H, W)`.
        how: "sum" over the channels; the "positive" or the "negative" part of this sum, which can be distinguished
            without colours; or the index of one channel.

    Returns:
        `(H, W)`.

    Raises:
        ValueError: the attribution has another shape, or there is no such channel or reduction.

    >>> import numpy as np
    >>> from plugin import figures
    >>> attribution = np.array([[[1.0]], [[-3.0]]])  # two channels, one pixel
    >>> figures.reduce_channels(attribution), figures.reduce_channels(attribution, "positive")
    (array([[-2.]]), array([[0.]]))
    """
    values = np.asarray(attribution)
    if values.ndim != 3:
        raise ValueError(f"an attribution is (C, H, W), this one has shape {values.shape}")
    if how in _PARTS:
        return _PARTS[how](values.sum(axis=0))
    if isinstance(how, int) and 0 <= how < values.shape[0]:
        return np.asarray(values[how])
    names = ", ".join(map(repr, _PARTS))
    raise ValueError(f"channels are reduced by {names} or an index from 0 to {values.shape[0] - 1}, not by {how!r}")


def symmetric_limit(maps: Iterable[Array], percentile: float = 99.0) -> float:
    """The magnitude at which the colours of maps that share one scale end.

    Args:
        maps: arrays of any shape; values that are not finite are ignored.
        percentile: percentile of the magnitudes of all maps together, in (0, 100]. If it is zero, as for a map that is
            zero almost everywhere, the largest magnitude is used instead.

    Returns:
        The limit, > 0; or 0.0 if all maps are entirely zero.

    Raises:
        ValueError: the percentile is out of range.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figures.symmetric_limit([np.array([1.0, -4.0]), np.array([2.0])], percentile=100)
    4.0
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"the percentile lies above 0 and at most at 100, not at {percentile}")
    flat = [np.abs(np.asarray(values, dtype=np.float64)).ravel() for values in maps]
    magnitudes = np.concatenate(flat) if flat else np.zeros(0)
    magnitudes = magnitudes[np.isfinite(magnitudes)]
    if not magnitudes.size:
        return 0.0
    return float(np.percentile(magnitudes, percentile)) or float(magnitudes.max())


def chosen_limit(values: Array, percentile: float, limit: float | None) -> float:
    """The magnitude at which the colours of a map end: `limit` if it is given, else that of `symmetric_limit`.

    Raises:
        ValueError: the percentile or the limit is out of range.
    """
    if limit is None:
        return symmetric_limit([values], percentile)
    if not (np.isfinite(limit) and limit >= 0):
        raise ValueError(f"the limit is a magnitude, at least 0 and finite, not {limit}")
    # An entirely zero map on a shared scale is still entirely zero, and its figure says so.
    return float(limit) if np.any(values) else 0.0


def signed_colours(values: Array, limit: float) -> NDArray[np.uint8]:
    """The colours of a map in `signed_map`.

    Args:
        values: `(H, W)`.
        limit: the magnitude of the deepest colours; 0 makes the picture white.

    Returns:
        `(H, W, 3)`.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figures.signed_colours(np.array([[-1.0, 0.0, 1.0]]), limit=1.0).tolist()  # blue, white, red
    [[[5, 48, 97], [247, 247, 247], [103, 0, 31]]]
    """
    stops = stops_of(SIGNED_COLOURS)
    scaled = np.nan_to_num(np.asarray(values, dtype=np.float64)) / (limit or 1.0)
    positions = (np.clip(scaled, -1, 1) + 1) / 2
    along = np.linspace(0, 1, len(stops))
    channels = [np.interp(positions, along, stops[:, channel]) for channel in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def as_image(attribution: Array, clip_percentile: float = 99.0, limit: float | None = None) -> NDArray[np.uint8]:
    """An attribution of the three colour channels as a picture, as papers print guided backprop: grey means zero.

    Args:
        attribution: `(3, H, W)`, signed.
        clip_percentile: the percentile of the magnitudes that becomes full colour, unless `limit` is given.
        limit: the magnitude that becomes full colour.

    Returns:
        `(H, W, 3)`; 128 stands for zero.

    Raises:
        ValueError: the attribution has another shape, or a percentile or limit is out of range.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figures.as_image(np.zeros((3, 1, 1))).tolist()  # grey is zero
    [[[128, 128, 128]]]
    """
    values = np.asarray(attribution, dtype=np.float64)
    if values.ndim != 3 or values.shape[0] != 3:
        raise ValueError(f"a colour picture needs an attribution (3, H, W), this one has shape {values.shape}")
    limit = chosen_limit(values, clip_percentile, limit)
    scaled = np.nan_to_num(values) / (limit or 1.0)
    return np.rint(128 + 127 * np.clip(scaled, -1, 1)).astype(np.uint8).transpose(1, 2, 0)


def stops_of(colours: Sequence[str]) -> Array:
    """Plotly's names of colours, such as "rgb(5, 48, 97)", as an array (n, 3), 0 to 255."""
    return np.array([unlabel_rgb(colour) for colour in colours])


def colour_bar_labels(limit: float, clipped: bool) -> list[str]:
    """Labels at -limit, 0 and limit; if values were clipped, those at the ends show that they stand for more."""
    # Two digits, but no exponent up to 99,999.
    end = f"{limit:.0f}" if 99.5 <= limit < 99_999.5 else f"{limit:.2g}"
    return [f"≤ -{end}", "0", f"≥ {end}"] if clipped else [f"-{end}", "0", end]
