"""The conservation ledger: for each layer the relevance that entered, that left, and that was absorbed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ...extras import require
from ..backward import backward
from .trail import Trail


@dataclass(frozen=True)
class Entry:
    """One line; all numbers are sums over positions and examples, in units of the output.

    Attributes:
        layer: the layer's name; or another operation that kept relevance, such as a sum with a constant, and its place.
        rule: its rule; "-" for other operations.
        entered: relevance that came from above.
        left: relevance that went on below.
        to_bias: absorbed by the bias, or by the operation.
        to_stabiliser: the remainder: absorbed by the stabiliser, or lost where nothing fired.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> layer = nn.Linear(2, 1)
    >>> layer.weight.data, layer.bias.data = torch.tensor([[3.0, 1.0]]), torch.tensor([0.5])
    >>> (entry,) = LRPTranspose(layer).ledger(torch.tensor([[1.0, 2.0]]), target=0)
    >>> entry.entered, round(entry.left, 3), round(entry.to_bias, 3)
    (5.5, 5.0, 0.5)
    """

    layer: str
    rule: str
    entered: float
    left: float
    to_bias: float
    to_stabiliser: float


@dataclass(frozen=True)
class Ledger:
    """Entries from the output down to the input; iterable, prints as a table.

    Attributes:
        entries: one for each layer, and for other operations that kept relevance.
        output: the explained value, summed over the examples.
        input: the relevance that arrived at the inputs.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> ledger = LRPTranspose(model).ledger(torch.randn(2, 4), target=1)
    >>> [entry.layer for entry in ledger], abs(ledger.output - ledger.input - ledger.absorbed) < 1e-4
    (['2', '0'], True)
    """

    entries: tuple[Entry, ...]
    output: float
    input: float

    @property
    def absorbed(self) -> float:
        """The total absorbed by all biases, constants and stabilisers; `output - input` up to rounding."""
        return sum(entry.to_bias + entry.to_stabiliser for entry in self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        header = f"{'layer':<32} {'rule':<28} {'entered':>11} {'left':>11} {'to bias':>11} {'stabiliser':>11}"
        lines = [
            f"{entry.layer[:32]:<32} {entry.rule[:28]:<28} {entry.entered:>11.4g} {entry.left:>11.4g} "
            f"{entry.to_bias:>11.4g} {entry.to_stabiliser:>11.4g}"
            for entry in self.entries
        ]
        total = f"output {self.output:.6g} = input {self.input:.6g} + absorbed {self.absorbed:.6g}"
        return "\n".join([header, "-" * len(header), *lines, total])

    def to_pandas(self) -> Any:
        """The entries as a `pandas.DataFrame`.

        Raises:
            MissingExtraError: pandas is not installed (a ModuleNotFoundError).
        """
        pandas = require("pandas", extra="tables", purpose="a table for pandas")
        return pandas.DataFrame([asdict(entry) for entry in self.entries])


def build_ledger(trail: Trail, leaves: Sequence[Tensor], carriers: Sequence[Tensor], selected: Tensor) -> Ledger:
    """Run the backward pass of `selected` `(N,)` and read the record of every layer."""
    signals = backward(selected, [*leaves, *carriers])
    count = len(leaves)
    multiplied = sum(_total(leaf, m) for leaf, m in zip(leaves, signals, strict=False))
    carried = sum(float(m.double().sum()) for m in signals[count:] if m is not None)

    entries = [
        Entry(_name(record), str(record.rule), *_passage(record))
        for record in reversed(trail.passed)
        if record.entered is not None
    ]
    entries += [
        Entry(absorption.name, "-", absorption.amount, 0.0, absorption.amount, 0.0)
        for absorption in reversed(trail.absorptions)
        if absorption.amount
    ]
    entries += [
        Entry(_name(record), str(record.rule), record.entered, record.left, record.entered - record.left, 0.0)
        for record in reversed(trail.modules)
        if record.entered is not None
    ]
    # Flat, w^2 and z^B give to inactive units, too, which hand nothing down.
    entries += [
        Entry(f"inactive inputs of {_name(record)}", "-", record.lost, 0.0, 0.0, record.lost)
        for record in reversed(trail.passed)
        if record.lost
    ]
    # Relevance that a first layer gives to zeros around a padded input, or to constants beside it, goes no further.
    sent = sum(record.carried for record in trail.passed) + sum(record.carried for record in trail.modules)
    lost = sent - carried
    if abs(lost) > 1e-6 * abs(sent):
        entries.append(Entry("constants beside the input", "-", lost, 0.0, lost, 0.0))
    return Ledger(tuple(entries), float(selected.detach().double().sum()), multiplied + carried)


def _total(values: Tensor, multiplier: Tensor | None) -> float:
    return 0.0 if multiplier is None else float((values.detach() * multiplier).double().sum())


def _name(record: Any) -> str:
    return str(record.name or type(record.module).__name__)


def _passage(record: Any) -> tuple[float, float, float, float]:
    entered, left, to_bias = (float(part.sum()) for part in (record.entered, record.left, record.to_bias))
    return entered, left, to_bias, entered - left - to_bias
