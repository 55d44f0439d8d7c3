"""Which number is maximised: units of a classifier's output, or of one of its layers.

A unit is named as in Captum: an int is a class, or a channel of a layer; a tuple of ints and slices is an index into
the output without the batch, such as `(channel, row, column)`; a list has one of these per run. A unit that spans
several positions (a channel of a convolution, as in `DeconvNet`; a slice) is their mean, so that its value does not
depend on how large the maps are. A callable maps activations `(N, ...)` to one value each `(N,)`.
"""

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from plugin import heads

from .activations import Activations
from .objectives import names_channels

# Layers whose rows are channels.
_OF_SIGNALS = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d)

Index: TypeAlias = tuple[int | slice, ...]
Unit: TypeAlias = int | Index | Callable[[Tensor], Tensor]
Target: TypeAlias = Unit | Sequence[Unit] | Tensor | np.ndarray[Any, Any]


class Units:
    """One unit per run.

    Args:
        target: as in the module's text.
        runs: how many runs, where `target` has not one entry per run.
        activations: what the units belong to.

    Attributes:
        targets: one per run, as given, but ints from 0 on.
        classes: the class of each run `(runs,)`, None unless every run maximises a class.

    Raises:
        TypeError: a target is none of these.
        ValueError: there is no such unit, or the numbers of targets and runs differ.
    """

    def __init__(self, target: Target, runs: int, activations: Activations) -> None:
        self._activations = activations
        self.targets = entries(target, runs)
        if len(self.targets) != runs:
            raise ValueError(f"{len(self.targets)} targets for {runs} runs: give one target per run, or one for all")
        indices = [None if callable(entry) else self._index(entry) for entry in self.targets]
        # One name for each unit: -1 is the last one's number, and a number of NumPy's or in a tensor is an int.
        self.targets = [
            entry if callable(entry) or index is None else index if isinstance(entry, tuple) else _first(index)
            for entry, index in zip(self.targets, indices, strict=True)
        ]
        plain = [index for index in indices if index is not None and all(isinstance(part, int) for part in index)]
        self._function = self.targets[0] if callable(target) else None
        self._indices: Tensor | None = None
        if len(plain) == runs and len({len(index) for index in plain}) == 1:
            self._indices = torch.tensor(plain)
        self._separate = indices
        self.head = activations.head
        self.classes = self._indices[:, 0] if self.head is not None and self._indices is not None else None
        self._warn_of_positions()

    def select(self, activations: Tensor, runs: Tensor) -> Tensor:
        """The values `(m,)` of the units of some runs.

        Args:
            activations: `(m, ...)`, one row per value.
            runs: which run's unit is read in each row `(m,)`.
        """
        if callable(self._function):
            return self._call(self._function, activations)
        if self._indices is not None:
            rows = torch.arange(len(runs), device=activations.device)
            chosen = self._indices.to(activations.device)[runs.to(activations.device)]
            values = activations[(rows, *chosen.unbind(1))]
            return values if values.ndim == 1 else values.flatten(1).mean(dim=1)
        separate = []
        for row, run in enumerate(runs.tolist()):
            index, unit = self._separate[run], self.targets[run]
            separate.append(
                self._call(unit, activations[row : row + 1])
                if callable(unit)
                else activations[row][index].mean().reshape(1)
            )
        return torch.cat(separate)

    def leads(self, activations: Tensor, runs: Tensor) -> Tensor:
        """By how much a class leads the best other class `(m,)` (`heads.leads`); of other units the values."""
        if self.classes is None or self.head is None:
            return self.select(activations, runs)
        return heads.leads(self.head, activations, self._classes_of(runs, activations))

    def first_leads(self, activations: Tensor) -> Tensor:
        """By how much the most probable class leads the others `(m,)`."""
        assert self.head is not None
        return heads.leads(self.head, activations, activations.argmax(dim=1))

    def climbed(self, values: Tensor) -> Tensor:
        """What is climbed `(m,)` for the units' values: of classes log odds or logits, else the values."""
        return values if self.classes is None or self.head is None else heads.climbed(self.head, values)

    def probabilities(self, activations: Tensor, runs: Tensor) -> Tensor | None:
        """The classes' probabilities `(m,)`, whatever the classifier's head is; None without classes."""
        if self.classes is None or self.head is None:
            return None
        return class_probabilities(self.head, activations.detach(), self._classes_of(runs, activations))

    def _classes_of(self, runs: Tensor, activations: Tensor) -> Tensor:
        assert self.classes is not None
        return self.classes.to(activations.device)[runs.to(activations.device)]

    def _warn_of_positions(self) -> None:
        """An int is an index into the first axis: where that looks like positions, say so."""
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


def _first(index: Index) -> Unit:
    """An int as it is named, a slice as a tuple."""
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
