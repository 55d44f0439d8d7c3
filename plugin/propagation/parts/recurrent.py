"""Recurrent layers, unrolled cell by cell: the functions behind `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells.

The gates are outputs of sigmoids, so weights under LRP: all relevance of a product goes to the signal (LRP-all, Arras
et al. 2019). Sequences may be packed: then the data are `(total, channels)`, and `batch_sizes` holds the number of
sequences that are left at each step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = tuple[Tensor, ...]
Weights = Sequence[Tensor]
# One step: the input, the state and a layer's weights to the new state, whose first tensor is the output.
Cell = Callable[[Tensor, State, Weights], State]


def _projections(input: Tensor, hidden: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """W_i x + b_i and W_h h + b_h."""
    biases = weights[2:4] if len(weights) >= 4 else (None, None)
    return F.linear(input, weights[0], biases[0]), F.linear(hidden, weights[1], biases[1])


def _lstm_step(input: Tensor, state: State, weights: Weights) -> State:
    hidden, cell = state
    below, before = _projections(input, hidden, weights)
    enter, forget, candidate, leave = (below + before).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
    hidden = torch.sigmoid(leave) * torch.tanh(cell)
    if len(weights) in (3, 5):
        hidden = F.linear(hidden, weights[-1])
    return hidden, cell


def _gru_step(input: Tensor, state: State, weights: Weights) -> State:
    (hidden,) = state
    below, before = _projections(input, hidden, weights)
    reset_below, update_below, new_below = below.chunk(3, -1)
    reset_before, update_before, new_before = before.chunk(3, -1)
    reset, update = torch.sigmoid(reset_below + reset_before), torch.sigmoid(update_below + update_before)
    new = torch.tanh(new_below + reset * new_before)
    return ((1 - update) * new + update * hidden,)


def _simple_step(activation: Callable[[Tensor], Tensor]) -> Cell:
    def step(input: Tensor, state: State, weights: Weights) -> State:
        below, before = _projections(input, state[0], weights)
        return (activation(below + before),)

    return step


def _begun(hx: Any, input: Tensor) -> State:
    """The first state, as a signal even if it is constant: the gate in its product with a gate then stays a weight."""
    state = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
    return tuple(part if part.requires_grad else part + 0 * input.sum() for part in state)


def _run(
    cell: Cell, steps: Sequence[Tensor], state: State, weights: Weights, reverse: bool
) -> tuple[list[Tensor], State]:
    """One direction of one layer; the number of sequences may fall from step to step."""
    outputs: list[Tensor] = [state[0]] * len(steps)
    initial, current = state, tuple(part[: len(steps[-1 if reverse else 0])] for part in state)
    done: list[State] = []
    for position in reversed(range(len(steps))) if reverse else range(len(steps)):
        count, running = len(steps[position]), len(current[0])
        if count > running:  # backwards, longer sequences begin
            current = tuple(torch.cat([c, i[running:count]]) for c, i in zip(current, initial, strict=True))
        elif count < running:  # forwards, shorter sequences end
            done.append(tuple(part[count:] for part in current))
            current = tuple(part[:count] for part in current)
        current = cell(steps[position], current, weights)
        outputs[position] = current[0]
    parts = zip(current, *reversed(done), strict=True)
    return outputs, tuple(torch.cat(part) if len(part) > 1 else part[0] for part in parts)


def _layers(
    cell: Cell,
    steps: list[Tensor],
    state: State,
    params: Weights,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[list[Tensor], State]:
    directions = 2 if bidirectional else 1
    size = len(params) // (num_layers * directions)
    ends: list[State] = []
    for layer in range(num_layers):
        both = []
        for direction in range(directions):
            index = layer * directions + direction
            own = tuple(part[index] for part in state)
            weights = params[index * size : (index + 1) * size]
            outputs, end = _run(cell, steps, own, weights, reverse=direction == 1)
            both.append(outputs)
            ends.append(end)
        steps = [torch.cat(step, -1) if directions > 1 else step[0] for step in zip(*both, strict=True)]
        if dropout and train and layer < num_layers - 1:
            steps = [F.dropout(step, dropout) for step in steps]
    return steps, tuple(torch.stack(part) for part in zip(*ends, strict=True))


def _recurrent(cell: Cell, name: str) -> Callable[..., Any]:
    """A layer with the arguments of `torch.lstm` and its kin: a padded batch, or packed data and batch sizes."""

    def compute(input: Tensor, *args: Any) -> Any:
        packed = isinstance(args[0], Tensor) and args[0].dtype == torch.int64
        if packed:
            batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional = args
            steps = list(input.split(batch_sizes.tolist()))
            batch_first = False
        else:
            hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first = args
            steps = list(input.unbind(1 if batch_first else 0))
        state = _begun(hx, steps[0])
        steps, end = _layers(cell, steps, state, params, has_biases, num_layers, dropout, train, bidirectional)
        output = torch.cat(steps) if packed else torch.stack(steps)
        if batch_first:  # in memory, the sequence comes first, as in PyTorch's own
            output = output.transpose(0, 1)
        return (output, *end)

    compute.__name__ = name
    compute.__doc__ = f"`torch.{name}` in its parts."
    return compute


def _one_step(cell: Cell, name: str) -> Callable[..., Any]:
    """A cell with the arguments of `torch.lstm_cell` and its kin."""

    def compute(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Any:
        weights = (w_ih, w_hh) if b_ih is None or b_hh is None else (w_ih, w_hh, b_ih, b_hh)
        state = _begun(hx, input)
        new = cell(input, state, weights)
        return new if len(new) > 1 else new[0]

    compute.__name__ = name
    compute.__doc__ = f"`torch.{name}` in its parts."
    return compute


_tanh_step, _relu_step = _simple_step(torch.tanh), _simple_step(torch.relu)
lstm, gru = _recurrent(_lstm_step, "lstm"), _recurrent(_gru_step, "gru")
rnn_tanh, rnn_relu = _recurrent(_tanh_step, "rnn_tanh"), _recurrent(_relu_step, "rnn_relu")
lstm_cell, gru_cell = _one_step(_lstm_step, "lstm_cell"), _one_step(_gru_step, "gru_cell")
rnn_tanh_cell, rnn_relu_cell = _one_step(_tanh_step, "rnn_tanh_cell"), _one_step(_relu_step, "rnn_relu_cell")
