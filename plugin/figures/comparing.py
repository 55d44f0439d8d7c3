"""Two maps beside their difference, looked at as one."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from .colours import Array
from .grids import map_grid


def common_size(first: Array, second: Array) -> tuple[Array, Array]:
    """Two maps at one size: each pixel of the reduced one is the mean of the pixels that it covers.

    Args:
        first: `(H, W)`.
        second: `(H, W)`, of any size.

    Returns:
        Both with the smaller number of rows and of columns, float64; maps of one size as they are.

    Raises:
        ValueError: one is no map.

    >>> import numpy as np
    >>> from plugin import figures
    >>> large, small = figures.common_size(np.ones((8, 8)), np.ones((4, 4)))
    >>> large.shape, small.shape
    ((4, 4), (4, 4))
    """
    pair = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    if any(values.ndim != 2 for values in pair):
        raise ValueError(f"maps are (H, W), these have shapes {pair[0].shape} and {pair[1].shape}")
    rows, columns = (min(values.shape[axis] for values in pair) for axis in (0, 1))
    first, second = (_averaged(values, rows, columns) for values in pair)
    return first, second


def difference(first: Array, second: Array, scaled: bool) -> Array:
    """The second map minus the first, `(H, W)`, at their `common_size`.

    Args:
        first: `(H, W)`.
        second: `(H, W)`, of any size.
        scaled: divide each map by its own largest magnitude before, for maps in different units. A map that is zero
            everywhere stays so.

    Raises:
        ValueError: one is no map.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figures.difference(np.full((2, 2), 3.0), np.full((2, 2), 5.0), scaled=False).tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    pair = common_size(first, second)
    if scaled:
        pair = pair[0] / (np.abs(pair[0]).max() or 1.0), pair[1] / (np.abs(pair[1]).max() or 1.0)
    return np.asarray(pair[1] - pair[0])


def linked_maps(
    maps: Mapping[str, Array],
    images: Sequence[Image.Image | None] = (),
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    height: int = 380,
    stacked: bool = False,
) -> go.Figure:
    """Maps of one size in a row, each on its own scale. Zooming one zooms all; hovering shows the values of all.

    Args:
        maps: `(H, W)` by name.
        images: drawn beneath each map; None, or an end before the last map, leaves it out.
        opacity: of the maps that have an image, 0 to 1.
        clip_percentile: percentile of the magnitudes at which the colours of each map end.
        height: of the row in pixels, or of each map of a stack.
        stacked: below each other, for narrow screens.

    Raises:
        ValueError: there is no map, they differ in size, or `signed_map` would refuse one.

    >>> import numpy as np
    >>> from plugin import figures
    >>> figure = figures.linked_maps({"A": np.random.randn(8, 8), "B": np.random.randn(8, 8)})
    >>> len(figure.data)
    2
    """
    shapes = {np.shape(values) for values in maps.values()}
    if len(shapes) != 1:
        raise ValueError(f"maps that are linked have one size, these have {sorted(shapes) or 'none'}")
    single = {name: np.asarray(values, dtype=np.float32) for name, values in maps.items()}
    rows = [{name: values} for name, values in single.items()] if stacked else [single]
    beneath = [[image] for image in images] if stacked else [images]
    figure = map_grid(rows, beneath, opacity, clip_percentile, height)
    for name, trace in zip(single, figure.select_traces({"type": "heatmap"}), strict=True):
        _tell_all(trace, name, single)
    for number in range(2, len(maps) + 1):
        figure.layout[f"xaxis{number}"].matches = "x"
        figure.layout[f"yaxis{number}"].update(matches="y", scaleanchor=None)
    return figure


def _tell_all(trace: go.Heatmap, name: str, maps: Mapping[str, Array]) -> None:
    """Let the map called `name` show the values of all maps under the mouse; it has its own values already."""
    others = [other for other in maps if other != name]
    values = {other: f"customdata[{index}]" for index, other in enumerate(others)} | {name: "z"}
    told = "".join(f"<br>{each} <b>%{{{values[each]}:.5g}}</b>" for each in maps)
    trace.hovertemplate = f"row %{{y}}, column %{{x}}{told}<extra></extra>"
    if others:
        trace.customdata = np.stack([maps[other] for other in others], axis=-1)


def _averaged(values: Array, rows: int, columns: int) -> Array:
    """A map with that many rows and columns, at most as many as it has."""
    if values.shape == (rows, columns):
        return values
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX), float)
