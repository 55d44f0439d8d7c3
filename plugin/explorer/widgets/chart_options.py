"""How plotly's charts behave on a page: which buttons they have, and whether they can be zoomed."""

from typing import Any

# Maps have files of ours, and can be zoomed.
MAP: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["toImage", "autoScale2d", "select2d", "lasso2d"],
}
# Charts that are no maps have no file of ours: their one button saves them as PNG.
SAVED: dict[str, Any] = {
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}
# Squares and bars are clicked, and have nothing to zoom.
CLICKED: dict[str, Any] = {"displayModeBar": False}
