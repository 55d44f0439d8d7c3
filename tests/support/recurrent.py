"""Recurrent layers, and the same computation cell by cell."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Activate = Callable[[Tensor], Tensor]


def lstm_cell(gates: list[Tensor], state: list[Tensor], sigmoid: Activate, tanh: Activate) -> list[Tensor]:
    i, f, g, o = (gates[0] + gates[1]).chunk(4, -1)
    cell = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
    return [sigmoid(o) * tanh(cell), cell]


def gru_cell(gates: list[Tensor], state: list[Tensor], sigmoid: Activate, tanh: Activate) -> list[Tensor]:
    (ri, zi, ni), (rh, zh, nh) = (part.chunk(3, -1) for part in gates)
    update = zi + zh
    # 1 - sigmoid(v) is sigmoid(-v): as in CReLU, a function that falls has its rule at -v.
    return [sigmoid(-update) * tanh(ni + sigmoid(ri + rh) * nh) + sigmoid(update) * state[0]]


def rnn_cell(gates: list[Tensor], state: list[Tensor], sigmoid: Activate, tanh: Activate) -> list[Tensor]:
    return [tanh(gates[0] + gates[1])]


CELLS = {nn.LSTM: lstm_cell, nn.GRU: gru_cell, nn.RNN: rnn_cell}


def by_cells(layer: nn.RNNBase, tokens: Tensor, sigmoid: Activate, tanh: Activate) -> Tensor:
    """All outputs (T, D * H) of one sequence (T, F), each cell written out."""
    for index in range(layer.num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
            weights = [
                getattr(layer, f"{kind}_{way}_l{index}{suffix}")
                for way, kind in itertools.product(("ih", "hh"), ("weight", "bias"))
            ]
            # A signal, with which gates meet; else a gate times the bias of the first hidden state would be one.
            state = [tokens.new_zeros(layer.hidden_size) + 0 * tokens.sum()] * 2
            steps = list(tokens.flip(0) if suffix else tokens)
            results = []
            for step in steps:
                gates = [F.linear(step, *weights[:2]), F.linear(state[0], *weights[2:])]
                state = CELLS[type(layer)](gates, state, sigmoid, tanh)
                results.append(state[0])
            outputs.append(torch.stack(results[::-1] if suffix else results))
        tokens = torch.cat(outputs, -1)
    return tokens


class Recurrent(nn.Module):
    """A recurrent layer of sequences of one length or of several, and a linear layer of the mean of its outputs."""

    def __init__(self, of: type[nn.RNNBase], packed: bool = False, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.lengths = of(3, 4, **options), [6, 2, 4] if packed else [6, 6, 6]
        self.head = nn.Linear(4 * (1 + self.layer.bidirectional), 2)
        self.double().eval()

    def forward(self, sequences: Tensor) -> Tensor:
        """Sequences (N, T, F), whatever the layer's order."""
        first = self.layer.batch_first
        tokens = sequences if first else sequences.transpose(0, 1)
        if len(set(self.lengths)) > 1:
            packed = pack_padded_sequence(tokens, self.lengths, batch_first=first, enforce_sorted=False)
            outputs = pad_packed_sequence(self.layer(packed)[0], batch_first=first)[0]
        else:
            outputs = self.layer(tokens)[0]
        return self.head((outputs if first else outputs.transpose(0, 1)).sum(1) / 6)

    def by_cells(self, sequences: Tensor, sigmoid: Activate, tanh: Activate) -> Tensor:
        means = [
            by_cells(self.layer, tokens[:length], sigmoid, tanh).sum(0) / 6
            for tokens, length in zip(sequences, self.lengths, strict=True)
        ]
        return self.head(torch.stack(means))


RECURRENT: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "two layers": {"num_layers": 2, "batch_first": True},
    "both directions": {"bidirectional": True, "batch_first": True},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "packed": {"packed": True, "batch_first": True},
    "packed, both directions": {"packed": True, "bidirectional": True},
}
