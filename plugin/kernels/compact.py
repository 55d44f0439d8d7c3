"""Signals that are zero, or the same, at many positions: each value is kept once and computed once.

The signal of one unit is zero outside a box that grows on the way down. The signal of a whole channel, away from the
border, repeats with the period of the strides. For both, one table per dimension maps a position to a kept value:

    s[n, c, i, j] = values[n, rows[i], columns[j], c],  and 0 where rows[i] or columns[j] is NOWHERE.

The result of a transposed convolution or an unpooling at position o of one dimension depends only on the values at the
positions that reach o. Positions that are reached by the same values get the same result: it is computed at the first
of them. This holds for any values. Nothing here is an approximation, and the values themselves are never compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor

from .linear import Convolution
from .unpooling import Interval, selection

NOWHERE = -1
Table = tuple[int, ...]


@dataclass(frozen=True)
class CompactSignal:
    """Signals `(N, C, ...)` of N examples.

    Attributes:
        values: the kept values `(N, ..., kept channels)`; channels last, for faster convolutions on a CPU.
        tables: per dimension after the channels, for each position the index into `values`, or NOWHERE.
        kept: the channels that are not zero, in the order of `values`; None: all of them.
        channels: C.
    """

    values: Tensor
    tables: tuple[Table, ...]
    kept: tuple[int, ...] | None
    channels: int

    @classmethod
    def of_units(
        cls, units: Sequence[tuple[range, ...]], shape: tuple[int, ...], seed_value: float, like: Tensor
    ) -> "CompactSignal":
        """One example per unit, which is `seed_value` at the unit and 0 elsewhere.

        Args:
            units: each one the indices along every dimension of `shape`.
            shape: `(C, ...)`.
            seed_value: the value.
            like: a tensor with the type and device of the result.
        """
        kept = tuple(sorted({channel for unit in units for channel in unit[0]}))
        values = like.new_full((len(units), *(1,) * len(shape)), seed_value)
        values = values * _membership([unit[0] for unit in units], kept, -1, values)
        tables = []
        for dimension, size in enumerate(shape[1:], start=1):
            ranges = [unit[dimension] for unit in units]
            distinct = list(dict.fromkeys(ranges))
            signatures = [tuple(position in entry for entry in distinct) for position in range(size)]
            table, firsts = _classes(signatures, (False,) * len(distinct))
            tables.append(table)
            values = values * _membership(ranges, firsts, dimension, values)
        return cls(values, tuple(tables), kept, shape[0])

    @classmethod
    def of(cls, signal: Tensor) -> "CompactSignal":
        """A signal `(N, C, ...)`, cut to the box of positions where any example is not zero."""
        values, tables = signal.movedim(1, -1), []
        used = (values != 0).any(-1).any(0)
        for dimension in range(used.ndim):
            others = [other for other in range(used.ndim) if other != dimension]
            indices = (used.any(others) if others else used).nonzero().flatten().tolist() or [0]
            first, last = indices[0], indices[-1]
            values = values.narrow(1 + dimension, first, last - first + 1)
            inside = range(first, last + 1)
            tables.append(tuple(i - first if i in inside else NOWHERE for i in range(used.shape[dimension])))
        return cls(values, tuple(tables), None, signal.shape[1])

    def dense(self) -> Tensor:
        """The signals `(N, C, ...)` themselves."""
        values = self._with_all_channels()
        for dimension, table in enumerate(self.tables, start=1):
            values = _gather(values, dimension, table)
        return values.movedim(-1, 1)

    def rectified(self) -> "CompactSignal":
        """relu(s)."""
        return replace(self, values=self.values.clamp(min=0))

    def scaled(self, scale: Tensor) -> "CompactSignal":
        """The signal times one number per channel `(C,)`."""
        return replace(self, values=self.values * (scale if self.kept is None else scale[list(self.kept)]))

    def narrowed(self, start: int, stop: int) -> "CompactSignal":
        """The channels from `start` to before `stop`."""
        return replace(self, values=self._with_all_channels()[..., start:stop], kept=None, channels=stop - start)

    def plus(self, other: "CompactSignal") -> "CompactSignal":
        """The sum of two signals of the same shape."""
        values, others, tables = self._with_all_channels(), other._with_all_channels(), []
        for dimension, pair in enumerate(zip(self.tables, other.tables, strict=True), start=1):
            table, firsts = _classes(list(zip(*pair, strict=True)), (NOWHERE, NOWHERE))
            tables.append(table)
            values = _gather(values, dimension, [pair[0][position] for position in firsts])
            others = _gather(others, dimension, [pair[1][position] for position in firsts])
        return CompactSignal(values + others, tuple(tables), None, self.channels)

    def transposed(self, weight: Tensor, linear: Convolution, size: Sequence[int]) -> "CompactSignal":
        """W^T s `(N, inputs, ...)` for a weight `(outputs, inputs / groups, ...)`; `size` is that of its positions."""
        values = self.values if linear.groups == 1 else self._with_all_channels()
        if linear.groups == 1 and self.kept is not None:
            weight = weight[list(self.kept)]
        passages = [
            _passage(table, kernel, stride, padding, dilation, length)
            for table, kernel, stride, padding, dilation, length in zip(
                self.tables, weight.shape[2:], linear.stride, linear.padding, linear.dilation, size, strict=True
            )
        ]
        for dimension, passage in enumerate(passages, start=1):
            values = _gather(values, dimension, passage.read)
        none = [0] * len(passages)
        values = torch.convolution(
            values.movedim(-1, 1), weight, None, linear.stride, none, linear.dilation, True, none, linear.groups
        ).movedim(1, -1)
        for dimension, passage in enumerate(passages, start=1):
            values = _gather(values, dimension, passage.taken)
        channels = weight.shape[1] * linear.groups
        return CompactSignal(values, tuple(passage.table for passage in passages), None, channels)

    def unpooled(self, windows: Sequence[Interval], mode: str) -> "CompactSignal":
        """The signal at the pooled positions, by a mode of `plugin.kernels.unpooling`."""
        values, tables = self.values, []
        for dimension, (table, interval) in enumerate(zip(self.tables, windows, strict=True), start=1):
            given = torch.tensor(table, device="cpu")
            weights = torch.zeros(values.shape[dimension], interval.size, dtype=torch.float64, device="cpu")
            weights.index_add_(0, given[given >= 0], selection(interval, mode)[given >= 0])
            columns = list(map(tuple, weights.T.tolist()))
            below, firsts = _classes(columns, (0.0,) * len(weights))
            tables.append(below)
            matrix = weights[:, list(firsts)].to(values)
            values = (values.movedim(dimension, -1) @ matrix).movedim(-1, dimension)
        return replace(self, values=values, tables=tuple(tables))

    def _with_all_channels(self) -> Tensor:
        """The values `(N, ..., C)`."""
        if self.kept is None:
            return self.values
        values = self.values.new_zeros(*self.values.shape[:-1], self.channels)
        values[..., list(self.kept)] = self.values
        return values


@dataclass(frozen=True)
class _Passage:
    """How one dimension passes a transposed convolution.

    Attributes:
        read: the indices of the values that are convolved, side by side; NOWHERE is a zero.
        taken: the positions of the result that are kept.
        table: which of them is at each position.
    """

    read: tuple[int, ...]
    taken: tuple[int, ...]
    table: Table


@lru_cache(maxsize=4096)
def _passage(table: Table, kernel: int, stride: int, padding: int, dilation: int, size: int) -> _Passage:
    """Position i of the signal reaches o = i * stride - padding + t * dilation through tap t of the kernel."""

    def at(i: int) -> int:
        return table[i] if 0 <= i < len(table) else NOWHERE

    def reaching(o: int) -> tuple[int, ...]:
        sources = (divmod(o + padding - tap * dilation, stride) for tap in range(kernel))
        return tuple(at(i) if rest == 0 else NOWHERE for i, rest in sources)

    below, firsts = _classes([reaching(o) for o in range(size)], (NOWHERE,) * kernel)
    # For each run of results, the stretch of positions that reach it. Two stretches side by side do not mix in a run:
    # the positions after a stretch begin beyond its run, and those before it end before.
    stretches: list[tuple[int, int, list[int]]] = []
    for _, run in groupby(enumerate(firsts), lambda entry: entry[1] - entry[0]):
        results = [o for _, o in run]
        low = -(((kernel - 1) * dilation - padding - results[0]) // stride)
        high = (results[-1] + padding) // stride
        if stretches and low <= stretches[-1][1] + 1:
            low, _, before = stretches.pop()
            results = before + results
        stretches.append((low, high, results))
    read: list[int] = []
    taken: list[int] = []
    for number, (low, high, results) in enumerate(stretches):
        while number == 0 and low < high and at(low) == NOWHERE:
            low += 1
        while number == len(stretches) - 1 and low < high and at(high) == NOWHERE:
            high -= 1
        taken += [(len(read) - low) * stride + o + padding for o in results]
        read += [at(i) for i in range(low, high + 1)]
    if all(source == NOWHERE for source in read):
        return _Passage((NOWHERE,), (0,), below)
    return _Passage(tuple(read), tuple(taken), below)


def _classes(signatures: Sequence[object], zero: object) -> tuple[Table, tuple[int, ...]]:
    """Positions with equal signatures are one class.

    Returns:
        The number of each position's class, NOWHERE where the signature is `zero`; and the first position of each
        class. If all are zero, this is position 0, so that no tensor is empty.
    """
    numbers: dict[object, int] = {}
    firsts: list[int] = []
    table = []
    for position, signature in enumerate(signatures):
        if signature != zero and signature not in numbers:
            numbers[signature] = len(numbers)
            firsts.append(position)
        table.append(numbers.get(signature, NOWHERE))
    return tuple(table), tuple(firsts) or (0,)


def _membership(ranges: Sequence[range], indices: Sequence[int], dimension: int, like: Tensor) -> Tensor:
    """1 where an index is in an example's range, else 0; broadcasts along all but the first and one dimension."""
    member = torch.tensor([[index in entry for index in indices] for entry in ranges], device="cpu")
    shape = [len(ranges)] + [1] * (like.ndim - 1)
    shape[dimension] = len(indices)
    return member.view(shape).to(like)


def _gather(values: Tensor, dimension: int, indices: Sequence[int]) -> Tensor:
    """The values at indices along a dimension; zeros at NOWHERE."""
    size, first = values.shape[dimension], indices[0]
    if first >= 0 and all(index == first + offset for offset, index in enumerate(indices)):
        return values.narrow(dimension, first, len(indices))
    wanted = torch.tensor([index if index >= 0 else size for index in indices], device=values.device)
    if NOWHERE in indices:
        values = torch.cat([values, torch.zeros_like(values.narrow(dimension, 0, 1))], dimension)
    return values.index_select(dimension, wanted)
