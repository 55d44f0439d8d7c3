"""Two maps beside their difference, looked at as one."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from .colours import Array, symmetric_limit
from .maps import signed_map

_GAP = 0.03
# For the names and the colour bars, in pixels.
_ABOVE = 62


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
) -> go.Figure:
    """Maps of one size in a row, each on its own scale. To zoom one zooms all; hovering tells the values of all.

    Args:
        maps: `(H, W)` by name.
        images: drawn beneath each map; None, or an end before the last map, leaves it out.
        opacity: of the maps that have an image, 0 to 1.
        clip_percentile: percentile of the magnitudes at which the colours of each map end.
        height: of the figure in pixels.

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
    figure = make_subplots(
        rows=1, cols=len(maps), subplot_titles=list(maps), horizontal_spacing=_GAP, shared_xaxes="all",
        shared_yaxes="all",
    )  # fmt: skip
    at_pixel = np.stack([np.asarray(values, dtype=np.float32) for values in maps.values()], axis=-1)
    told = "".join(f"<br>{name} <b>%{{customdata[{index}]:.5g}}</b>" for index, name in enumerate(maps))
    width = (1 - _GAP * (len(maps) - 1)) / len(maps)
    beneath = [*images, *[None] * (len(maps) - len(images))]
    for column, (values, image) in enumerate(zip(maps.values(), beneath, strict=True)):
        limit = symmetric_limit([values], clip_percentile)
        drawn = signed_map(values, image, opacity if image else 1.0, limit=limit)
        for trace in drawn.data:
            if trace.type == "heatmap":
                middle = column * (width + _GAP) + width / 2
                # Above the map: below it there is room that depends on the width of the page.
                trace.colorbar.update(x=middle, xanchor="center", len=0.7 * width, y=1, yanchor="bottom", ypad=2)
                trace.update(customdata=at_pixel, hovertemplate=f"row %{{y}}, column %{{x}}{told}<extra></extra>")
            figure.add_trace(trace, row=1, col=column + 1)
    rows, columns = shapes.pop()
    figure.update_xaxes(visible=False, constrain="domain", range=[-0.5, columns - 0.5])
    figure.update_yaxes(visible=False, constrain="domain", constraintoward="top", range=[rows - 0.5, -0.5])
    figure.update_yaxes(scaleanchor="x", row=1, col=1)
    figure.update_annotations(yshift=_ABOVE - 26)
    return figure.update_layout(height=height, margin={"l": 8, "r": 8, "t": _ABOVE, "b": 0})


def _averaged(values: Array, rows: int, columns: int) -> Array:
    """A map with that many rows and columns, at most as many as it has."""
    if values.shape == (rows, columns):
        return values
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX), float)
