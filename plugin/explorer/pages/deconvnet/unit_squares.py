"""The units of a layer as squares that can be clicked: its channels, and the positions of one channel."""

import math

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from plugin import figures

from ...inputs.layer_outputs import axes, unit_axis
from ...maps.answers import largest

_SQUARES_ACROSS = 32


def channels_figure(responses: NDArray[np.float32], neuron: tuple[int, ...]) -> tuple[go.Figure, list[tuple[int, ...]]]:
    """A square per channel, coloured by its largest response; and the unit that each square stands for."""
    axis = unit_axis(responses.shape)
    flat = np.moveaxis(responses, axis, 0).reshape(responses.shape[axis], -1)
    places = [np.unravel_index(int(i), np.delete(responses.shape, axis)) for i in flat.argmax(1)]
    units = [(*map(int, place[:axis]), channel, *map(int, place[axis:])) for channel, place in enumerate(places)]
    names = [f"{axes(responses.shape)[axis]} {channel}" for channel in range(len(flat))]
    return figures.unit_squares(flat.max(1), names, _across(len(flat)), neuron[axis], width=400), units


def positions_figure(
    responses: NDArray[np.float32], neuron: tuple[int, ...]
) -> tuple[go.Figure, list[tuple[int, ...]]] | None:
    """A square per position of the chosen channel, or per block if there are many; None without positions."""
    if axes(responses.shape) != ("channel", "row", "column"):
        return None
    values = responses[neuron[0]]
    block = -(-max(values.shape) // _SQUARES_ACROSS)
    units: list[tuple[int, ...]] = []
    heights, names = [], []
    for top in range(0, values.shape[0], block):
        for left in range(0, values.shape[1], block):
            row, column = largest(values[top : top + block, left : left + block])
            units.append((neuron[0], top + row, left + column))
            heights.append(values[units[-1][1:]])
            names.append(f"row {top + row}, column {left + column}")
    across = -(-values.shape[1] // block)
    chosen = neuron[1] // block * across + neuron[2] // block
    return figures.unit_squares(np.array(heights), names, across, chosen, width=220), units


def _across(count: int) -> int:
    """Squares in a row, so that the whole is about three times as wide as high."""
    return max(10, min(_SQUARES_ACROSS * 2, round(math.sqrt(3 * count))))
