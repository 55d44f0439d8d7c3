"""Which number is maximised: units of a classifier's output, or of one of its layers.

A unit is named as in Captum: an int is a class, or a channel of a layer; a tuple of ints and slices is an index into
the output without the batch, such as `(channel, row, column)`; a list has one of these per run. A unit that spans
several positions (a channel of a convolution, as in `DeconvNet`; a slice) is their mean, so that its value does not
depend on how large the maps are. A callable maps activations `(N, ...)` to one value each `(N,)`.
"""

import operator
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from plugin.observing import ModuleTrace, describe, find_layer

Index: TypeAlias = tuple[int | slice, ...]
Unit: TypeAlias = int | Index | Callable[[Tensor], Tensor]
Target: TypeAlias = Unit | Sequence[Unit] | Tensor
Transform: TypeAlias = Callable[[Tensor], Tensor]


@contextmanager
def evaluating(*modules: nn.Module | None) -> Any:
    """Modules in eval mode and autograd on, whatever the caller had; both are as before afterwards."""
    training = [part for module in modules if module is not None for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for part in training:
            part.training = True


class _Reached(Exception):
    """The forward pass needs to go no further."""


class Activations:
    """What a classifier computes of images `(N, C, H, W)`, at its output or at a layer. The classifier is not touched.

    Args:
        classifier: any module that takes images.
        layer: one of its modules, or the name of one; None is the output. Of a layer that is used several times, the
            last use counts. What comes after it is not computed.
        transform: from the images to the classifier's input: a resize, a normalisation.
        example: images `(1, C, H, W)` to try it on.

    Attributes:
        shape: of the activations of one image.

    Raises:
        ValueError: the images do not fit, or there is no such layer.
    """

    def __init__(
        self, classifier: nn.Module, layer: nn.Module | str | None, transform: Transform | None, example: Tensor
    ) -> None:
        self.classifier, self.transform = classifier, transform
        self.layer = None if layer is None else find_layer(classifier, layer)
        self._uses: int | None = None
        self._last: nn.Module | None = None
        with evaluating(classifier), torch.no_grad():
            self.shape = tuple(self._try(example).shape[1:])

    @property
    def name(self) -> str:
        """What the units belong to, as an error should name it."""
        if self.layer is None:
            return f"the output of the {type(self.classifier).__name__}"
        return f"layer {describe(self.classifier, self.layer)}"

    def __call__(self, images: Tensor) -> Tensor:
        """Activations `(N, *shape)`, with their graph."""
        if self.layer is None:
            return self.classifier(self.prepare(images))
        return self._run(images)[0]

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and features `(N, k)`: the layer's activations, or what the classifier's last layer receives."""
        activations, received = self._run(images)
        return activations, (activations if self.layer is not None else received).flatten(1)

    def prepare(self, images: Tensor) -> Tensor:
        """The classifier's input, channels last in memory: on a CPU, pooling and convolutions are twice as fast so."""
        inputs = images if self.transform is None else self.transform(images)
        if inputs.ndim != 4:
            return inputs
        return torch.empty_like(inputs, memory_format=torch.channels_last).copy_(inputs)

    def _try(self, example: Tensor) -> Tensor:
        """Run once: everything that can be wrong with the networks shows here."""
        try:
            activations, _ = self._run(example)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            remedy = "change transform=" if self.transform else "pass transform=, a function that resizes them"
            raise ValueError(
                f"images of shape {tuple(example.shape[1:])} do not fit the {type(self.classifier).__name__} "
                f"({reason}): {remedy}"
            ) from error
        if not isinstance(activations, Tensor) or activations.ndim < 2 or len(activations) != len(example):
            shape = tuple(activations.shape) if isinstance(activations, Tensor) else type(activations).__name__
            raise ValueError(f"{self.name} is {shape} for one image: one row of activations per image is needed")
        return activations

    def _run(self, images: Tensor) -> tuple[Any, Tensor]:
        """The activations, and what the last layer with weights received."""
        uses, value, received = 0, None, images

        def enter(module: nn.Module, arguments: Any) -> None:
            nonlocal received
            if self._last is None and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
                weighted.append(module)
            if module is self._last and arguments:
                received = arguments[0]

        def leave(module: nn.Module, output: Any) -> None:
            nonlocal uses, value
            if module is self.layer:
                uses, value = uses + 1, output
                if uses == self._uses:
                    raise _Reached

        weighted: list[nn.Module] = []
        output = None
        try:
            with ModuleTrace(enter, leave):
                output = self.classifier(self.prepare(images))
        except _Reached:
            pass
        except Exception:
            # What comes after the layer need not work: the images may be too small for the rest of the network.
            if not uses:
                raise
        if self.layer is not None and not uses:
            raise ValueError(f"layer {describe(self.classifier, self.layer)} was not reached by the forward pass")
        if self._uses is None and self._last is None:
            self._uses, self._last = uses, weighted[-1] if weighted else None
        return (output if self.layer is None else value), received


class Units:
    """One unit per run.

    Args:
        target: as in the module's text.
        runs: how many runs, where `target` has not one entry per run.
        activations: what the units belong to.

    Attributes:
        targets: one per run, as given.
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
        plain = [index for index in indices if index is not None and all(isinstance(part, int) for part in index)]
        self._function = self.targets[0] if callable(target) else None
        self._indices: Tensor | None = None
        if len(plain) == runs and len({len(index) for index in plain}) == 1:
            self._indices = torch.tensor(plain)
        self._separate = indices
        output = activations.layer is None and len(activations.shape) == 1 and activations.shape[0] > 1
        self.classes = self._indices[:, 0] if output and self._indices is not None else None

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
        """By how much a class leads the best other class `(m,)`; of other units the values."""
        values = self.select(activations, runs)
        if self.classes is None:
            return values
        classes = self.classes.to(activations.device)[runs.to(activations.device)].unsqueeze(1)
        return values - activations.scatter(1, classes, -torch.inf).amax(dim=1)

    def probabilities(self, activations: Tensor, runs: Tensor) -> Tensor | None:
        """The classes' probabilities `(m,)`, also if the classifier ends in a softmax; None without classes."""
        if self.classes is None:
            return None
        values = activations.detach()
        if not _are_probabilities(values):
            values = values.softmax(dim=1)
        return values.gather(1, self.classes.to(values.device)[runs.to(values.device)].unsqueeze(1)).squeeze(1)

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


def entries(target: Target, runs: int = 1) -> list[Unit]:
    """One target per run: those of a list, a range or a 1-d tensor, or `runs` times the one given."""
    if isinstance(target, Tensor):
        target = target.tolist() if target.ndim else int(target)
    return list(target) if isinstance(target, list | range) else [target] * runs  # type: ignore[list-item]


def several(target: Target) -> bool:
    """Whether a target has one entry per run."""
    return isinstance(target, list | range) or (isinstance(target, Tensor) and target.ndim > 0)


def _are_probabilities(values: Tensor) -> bool:
    return bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < 1e-4).all())
