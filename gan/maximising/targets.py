"""Targets of a maximisation: units of a classifier's output, or of one of its layers.

A unit is named as in Captum: an int is a class, or a channel of a layer; a tuple of ints and slices is an index into
the output without the batch, such as `(channel, row, column)`; a list has one of these per run. A unit that spans
several positions (a channel of a convolution, as in `DeconvNet`; a slice) is their mean, so that its value does not
depend on the size of the maps. A callable maps activations `(N, ...)` to one value each `(N,)`.
"""

import operator
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from plugin import heads

from .activations import Activations
from .objectives import names_channels
from .separate_rows import refuse_mixed_rows

# Layers whose rows are channels.
_OF_SIGNALS = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d)

Index: TypeAlias = tuple[int | slice, ...]
Unit: TypeAlias = int | Index | Callable[[Tensor], Tensor]
Target: TypeAlias = Unit | Sequence[Unit] | Tensor | np.ndarray[Any, Any]
Reader: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Units:
    """One unit per run.

    Args:
        target: as the module describes it.
        runs: the number of runs, which a single target is repeated for.
        activations: those that the units belong to.

    Attributes:
        targets: one per run, as given, but ints from 0 on.
        keys: equal for runs of one unit.
        is_class: whether each run maximises a class `(runs,)`.
        classes: the class of each run `(runs,)`, -1 for another unit; None if no run maximises a class.

    Raises:
        TypeError: a target is none of these.
        ValueError: there is no such unit, the numbers of targets and runs differ, or a function mixes rows.
    """

    def __init__(self, target: Target, runs: int, activations: Activations) -> None:
        self._activations = activations
        self.targets = entries(target, runs)
        if len(self.targets) != runs:
            raise ValueError(f"{len(self.targets)} targets for {runs} runs: give one target per run, or one for all")
        indices = [None if callable(entry) else self._index(entry) for entry in self.targets]
        # One name for each unit: negative numbers, and those of NumPy or in a tensor, become ints from 0 on.
        self.targets = [
            entry if callable(entry) or index is None else index if isinstance(entry, tuple) else _first(index)
            for entry, index in zip(self.targets, indices, strict=True)
        ]
        self.keys = [key_of(entry) for entry in self.targets]
        self.head = activations.head
        self._plain = [() if index is None or slice in map(type, index) else index for index in indices]
        classes = torch.tensor(
            [index[0] if self.head is not None and index else -1 for index in self._plain], device="cpu"
        )
        self.is_class = classes >= 0
        self.classes = classes if bool(self.is_class.any()) else None
        self._readers = self._find_readers(indices)
        self._warn_of_positions()

    def _find_readers(self, indices: Sequence[Index | None]) -> list[tuple[Tensor, Reader]]:
        """Masks of runs `(runs,)`, each with the function that reads their units `(m,)` from activations `(m, ...)`.

        A function reads a whole block, and its values in rows of other units are not used: a row is rounded in the
        same way whichever units the others have.
        """
        readers: dict[Hashable, Reader] = {}  # by the number of axes of a plain index, or by a unit
        for index, plain, unit, key in zip(indices, self._plain, self.targets, self.keys, strict=True):
            if plain and len(plain) not in readers:
                same = [other if len(other) == len(plain) else (0,) * len(plain) for other in self._plain]
                readers[len(plain)] = partial(_at, torch.tensor(same, device="cpu"))
            elif not plain and key not in readers:
                readers[key] = partial(_mean_of, index) if index is not None else self._reader_of(unit)
        own = [len(plain) if plain else key for plain, key in zip(self._plain, self.keys, strict=True)]
        return [(torch.tensor([one == key for one in own], device="cpu"), reader) for key, reader in readers.items()]

    def select(self, activations: Tensor, runs: Tensor) -> Tensor:
        """The values `(m,)` of the units of some runs.

        Args:
            activations: `(m, ...)`, one row per value.
            runs: the run whose unit is read in each row `(m,)`.
        """
        (_, read), *others = self._readers
        values = read(activations, runs)
        for owns, read in others:
            values = torch.where(owns[runs.cpu()].to(values.device), read(activations, runs), values)
        return values

    def _reader_of(self, unit: Any) -> Reader:
        """The reader of a caller's function.

        Raises:
            ValueError: it returns something else than one value for each row, or mixes rows.
        """
        name = f"the target {getattr(unit, '__name__', type(unit).__name__)}"
        refuse_mixed_rows(lambda rows: self._call(unit, rows), self._activations.pair, name)
        return lambda activations, _: self._call(unit, activations)

    def leads(self, activations: Tensor, runs: Tensor) -> Tensor:
        """Leads of the runs' classes over the best other class `(m,)` (`heads.leads`); for other units their values."""
        if self.classes is None or self.head is None:
            return self.select(activations, runs)
        leads = heads.leads(self.head, activations, self._classes_of(runs, activations))
        return leads if bool(self.is_class.all()) else self._of_classes(leads, self.select(activations, runs), runs)

    def first_leads(self, activations: Tensor) -> Tensor:
        """Leads of the most probable class over the others `(m,)`."""
        assert self.head is not None
        return heads.leads(self.head, activations, activations.argmax(dim=1))

    def climbed(self, values: Tensor, runs: Tensor) -> Tensor:
        """The climbed numbers `(m,)` for values of some runs' units: log odds or logits of classes, else the values."""
        if self.classes is None or self.head is None:
            return values
        return self._of_classes(heads.climbed(self.head, values), values, runs)

    def probabilities(self, activations: Tensor, runs: Tensor) -> Tensor | None:
        """The classes' probabilities `(m,)` for any head, NaN for other units; None without classes."""
        if self.classes is None or self.head is None:
            return None
        found = class_probabilities(self.head, activations.detach(), self._classes_of(runs, activations))
        return self._of_classes(found, torch.full_like(found, torch.nan), runs)

    def _of_classes(self, values: Tensor, others: Tensor, runs: Tensor) -> Tensor:
        """Values `(m,)` where a run maximises a class, and others elsewhere."""
        return torch.where(self.is_class[runs.cpu()].to(values.device), values, others)

    def _classes_of(self, runs: Tensor, activations: Tensor) -> Tensor:
        """The class of each of some runs, 0 of those for another unit."""
        assert self.classes is not None
        return self.classes.clamp(min=0).to(activations.device)[runs.to(activations.device)]

    def _warn_of_positions(self) -> None:
        """Warn of an int where the first axis, which it indexes, looks like positions."""
        shape = self._activations.shape
        if not any(isinstance(target, int) or names_channels(target) for target in self.targets):
            return
        if len(shape) == 2 and not isinstance(self._activations.layer, _OF_SIGNALS):
            what, remedy = "rows, such as tokens", "(slice(None), k) is number k of every row"
        elif len(shape) == 3 and shape[0] == shape[1] != shape[2]:
            what, remedy = "rows of an image with its channels last", "(slice(None), slice(None), k) is channel k"
        else:
            return
        warnings.warn(
            f"{self._activations.name} is {shape} per image, which looks like {what}: an int, a channel and a neuron "
            f"are an index into the first axis; {remedy}",
            stacklevel=5,
        )

    def _call(self, function: Callable[[Tensor], Tensor], activations: Tensor) -> Tensor:
        values = function(activations)
        if not isinstance(values, Tensor) or values.shape != activations.shape[:1]:
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"the target returned {shape} for {len(activations)} images: "
                "it must return one value each, such as activations[:, 3].mean(dim=(1, 2))"
            )
        return values

    def _index(self, entry: Unit) -> Index:
        """An index without negative ints, checked against the activations of one image."""
        shape = self._activations.shape
        parts = entry if isinstance(entry, tuple) else (entry,)
        try:
            index = tuple(part if isinstance(part, slice) else operator.index(part) for part in parts)  # type: ignore[arg-type]
        except TypeError as error:
            raise TypeError(
                f"target {entry!r} names no unit: give an int, a tuple of ints and slices, or a function"
            ) from error
        try:
            empty = not index or torch.empty(shape, device="meta")[index].numel() == 0
        except IndexError:
            empty = True
        if empty:
            named = index[0] if len(index) == 1 else index
            raise ValueError(
                f"{self._activations.name} has no unit {named}: its shape per image is {shape}, "
                f"so the first index is 0 to {shape[0] - 1}"
            )
        return tuple(part if isinstance(part, slice) else part % size for part, size in zip(index, shape, strict=False))


def key_of(unit: Unit) -> Hashable:
    """A key, equal for equal units; functions are compared by their own class."""
    if isinstance(unit, tuple):
        return tuple((part.start, part.stop, part.step) if isinstance(part, slice) else part for part in unit)
    return unit if isinstance(unit, Hashable) else id(unit)


def _at(indices: Tensor, activations: Tensor, runs: Tensor) -> Tensor:
    """The value at each run's index in `indices` `(runs, axes)`, in the mean over its positions `(m,)`."""
    rows = torch.arange(len(runs), device=activations.device)
    chosen = indices.to(activations.device)[runs.to(activations.device)]
    values = activations[(rows, *chosen.unbind(1))]
    return values if values.ndim == 1 else values.flatten(1).mean(dim=1)


def _mean_of(index: Index, activations: Tensor, runs: Tensor) -> Tensor:
    """The mean over an index with slices `(m,)`."""
    values: Tensor = activations[(slice(None), *index)]
    return values.flatten(1).mean(dim=1)


def _first(index: Index) -> Unit:
    """An index of one entry as a target: an int by itself, a slice in a tuple."""
    return index[0] if isinstance(index[0], int) else index


def entries(target: Target, runs: int = 1) -> list[Unit]:
    """One target per run: those of a list, a range or a 1-d tensor, or `runs` times the one given."""
    if isinstance(target, (Tensor, np.ndarray)):
        target = target.tolist()  # a number, where it has no axis
    return list(target) if isinstance(target, list | range) else [target] * runs  # type: ignore[list-item]


def several(target: Target) -> bool:
    """Whether a target has one entry per run."""
    return isinstance(target, list | range) or (isinstance(target, (Tensor, np.ndarray)) and target.ndim > 0)


def class_probabilities(head: str, outputs: Tensor, classes: Tensor) -> Tensor:
    """The probability of one class in each row of a classifier's outputs `(m, classes)`: `(m,)`."""
    return heads.probabilities(head, outputs).gather(1, classes.unsqueeze(1)).squeeze(1)
