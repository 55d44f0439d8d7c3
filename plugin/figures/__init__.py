"""Figures of attributions: plotly for looking, PNG and SVG for papers, NPZ for the numbers.

Every function is pure: NumPy arrays and Pillow images in, a figure or bytes out. A signed map is always drawn with
white at zero, red for positive and blue for negative (the colour-blind-safe scale RdBu), and limits that are symmetric,
so that the same shade means the same magnitude on both sides.
"""

from .charts import ascent_curves, ledger_bars, score_curves, top_k_bars, unit_squares
from .colours import SIGNED_COLOURS, ZERO_MESSAGE, Array, as_image, reduce_channels, signed_colours, symmetric_limit
from .comparing import common_size, difference, linked_maps
from .encoding import blended, to_npz, to_png
from .grids import map_grid
from .maps import colour_map, focused, image_figure, side_by_side, signed_map
from .titled import TitledMap

__all__ = [
    "SIGNED_COLOURS",
    "ZERO_MESSAGE",
    "Array",
    "TitledMap",
    "as_image",
    "ascent_curves",
    "blended",
    "colour_map",
    "common_size",
    "difference",
    "focused",
    "image_figure",
    "ledger_bars",
    "linked_maps",
    "map_grid",
    "reduce_channels",
    "score_curves",
    "side_by_side",
    "signed_colours",
    "signed_map",
    "symmetric_limit",
    "to_npz",
    "to_png",
    "top_k_bars",
    "unit_squares",
]
