"""Deconvnet without an image: the pattern of one unit, from the weights alone (Springenberg et al. 2015).

In a network without max-pooling the deconvnet's backward pass depends on no image, so none is needed. The unit's
signal is passed down to the pixels through the transpose of each linear operation, and clamped at 0 at each ReLU,

    m_lower = W^T relu(m_upper).

Biases are dropped, batch norm becomes its scale, additions copy the signal, concatenations split it, and average
pooling spreads it. Max-pooling needs one of the modes of `plugin.kernels.unpooling`.
"""

import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ..errors import LayerError, ModelError, NeuronError, OptionError, OptionTypeError
from ..kernels.compact import CompactSignal
from ..kernels.tracing import building_graph
from ..observing import describe, find_layer
from ..propagation import ConvolutionLayer, MaxPooling
from ..rules import DECONVNET, LINEAR_ADJOINT, SWITCH_FREE, SignalRule
from ._base import check_model
from ._signals import ImageFreeConvolution, ImageFreePooling, Signals
from ._walk import RecordedWalk, Walk, agree, dependent_module
from .modified import operations_of

Unit: TypeAlias = int | tuple[int | slice, ...]

# Units per backward pass: more do not keep two cores busier, and would leave the cache.
_CHUNK = 16


def _image_free_operations(rule: SignalRule) -> dict[type, Callable[[Any], Any]]:
    return operations_of(rule) | {
        ConvolutionLayer: lambda operation: ImageFreeConvolution.apply(operation.input, operation),
        MaxPooling: lambda operation: ImageFreePooling.apply(operation.input, operation, rule.unpooling),
    }


class DeconvNet:
    """Pictures of units, without an image.

    Attributes:
        pooled: whether max-pooling lies on the way to the layer, so that `unpooling` matters.

    >>> from plugin import models
    >>> from plugin.attr import DeconvNet
    >>> network = models.load("all-cnn-c").network
    >>> DeconvNet(network, "features.conv3", (3, 32, 32)).reconstruct([0, 1], position=(8, 8)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, model: nn.Module, layer: nn.Module | str, input_shape: tuple[int, ...], unpooling: str | None = None
    ) -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            layer: the layer with the units: a module, or its name. If a layer is used several times, the last use
                counts. The modules after it are not needed.
            input_shape: shape of one example, such as (3, 32, 32).
            unpooling: where max-pooling on the way to the layer passes its signal: "center", "corner", "uniform" or
                "replicate". None for networks without max-pooling.

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            OptionTypeError: `input_shape` is no tuple of ints.
            OptionError: the network cannot process this shape, or there is no such `unpooling`, or it is needed.
            LayerError: the network has no such layer, or does not reach it.
            ModelError: the model was scripted, compiled or quantised, or an operation on the way passes down a signal
                that depends on the data (softmax, gates, products of two signals, layer norm, recurrent layers): the
                message names its layer.
        """
        check_model(model)
        if unpooling is not None and unpooling not in SWITCH_FREE:
            hint = ", or explain an image with NeuronDeconvolution" if unpooling == "switches" else ""
            choices = ", ".join(SWITCH_FREE)
            raise OptionError(
                f"unpooling {unpooling!r} is not possible without an image: choose one of {choices}{hint}"
            )
        self.model, self.layer = model, find_layer(model, layer)
        self.input_shape = _sizes("input_shape", input_shape, "such as (3, 32, 32)")
        self.unpooling = unpooling
        if not self.input_shape or min(self.input_shape) < 1:
            raise OptionError(f"input_shape {self.input_shape} holds no values: give the shape of one example")
        self._rule = DECONVNET.with_unpooling(unpooling or "center")
        self._uses: int | None = None
        with building_graph():
            self._check()

    def reconstruct(
        self,
        neurons: Unit | slice | Iterable[Unit],
        position: tuple[int, ...] | None = None,
        seed_value: float = 1.0,
    ) -> Tensor:
        """Pass the signal of units down to the pixels, each unit by itself.

        Args:
            neurons: a unit, or several: an int is a channel, a tuple an index into the layer's output without the
                batch, such as `(channel, row, column)`, whose slices are seeded together; a slice is a range of
                channels; a list (or a range, or a 1-d tensor) has one unit per entry.
            position: the position that is seeded in each channel, such as `(row, column)`; None seeds them all.
            seed_value: the signal at the unit. The result is proportional to it, if it is positive.

        Returns:
            One picture per unit `(n, *input_shape)`, signed, detached.

        Raises:
            OptionTypeError: a unit or the position has none of these types (a TypeError).
            NeuronError: the layer has no such unit (a ValueError, and an IndexError).
            OptionError: no unit was asked for, or the position does not match the units (a ValueError).

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import DeconvNet
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> units = DeconvNet(model, "1", (3, 8, 8))
        >>> units.reconstruct(slice(0, 3), position=(2, 2)).shape  # three channels, each at one position
        torch.Size([3, 3, 8, 8])
        """
        units = self._units(neurons, position)
        passes = -(-len(units) // _CHUNK)
        size = -(-len(units) // passes)
        results = []
        with building_graph():
            leaf = self._input(seed=0)
            walk = Walk(self.model, self.layer, self._uses)
            walk.run(_image_free_operations(self._rule), leaf)
            output = self._output(walk)
            for start in range(0, len(units), size):
                chunk = units[start : start + size]
                seeds = CompactSignal.of_units(chunk, self._shape, seed_value, output.detach())
                more = start + size < len(units)
                (signals,) = torch.autograd.grad(output, leaf, Signals(seeds, len(chunk)), retain_graph=more)
                results.append(cast(Signals, signals).each()[:, 0])
        return torch.cat(results)

    def _input(self, seed: int) -> Tensor:
        """A random input `(1, *input_shape)` of the right type and device; random, so that a dependence on it shows."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.zeros((), device="cpu"))
        values = torch.randn(1, *self.input_shape, generator=torch.Generator().manual_seed(seed), device="cpu")
        return values.to(like).requires_grad_()

    def _output(self, walk: Walk) -> Tensor:
        """The layer's output `(1, ...)`."""
        output = walk.output()
        if output.ndim < 2 or len(output) != 1:
            raise LayerError(
                f"layer {describe(self.model, self.layer)} returns {tuple(output.shape)} for one example: "
                "choose a layer with one entry per example"
            )
        return output

    def _check(self) -> None:
        """Record the facts that later runs need, and refuse networks that have no deconvnet without an image."""
        rule = LINEAR_ADJOINT.with_unpooling(self._rule.unpooling)  # passes all signal: no dependence can hide
        pooled: list[tuple[Tensor, str]] = []
        walk, leaf = RecordedWalk(self.model, self.layer), self._input(seed=0)

        def note_pooling(operation: MaxPooling) -> Tensor | tuple[Tensor, Tensor]:
            result = rule.max_pooling(operation)
            pooled.append((result if isinstance(result, Tensor) else result[0], walk.running))
            return result

        try:
            propagation = walk.run(_image_free_operations(rule) | {MaxPooling: note_pooling}, leaf)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OptionError(
                f"the {type(self.model).__name__} cannot process an input of shape {self.input_shape} ({reason}): "
                "input_shape is the shape of one example, such as (3, 32, 32)"
            ) from error
        output = self._output(walk)
        propagation.check(output)
        self._uses, self._shape = walk.uses, tuple(output.shape[1:])
        taking_maxima = self._pooling_on_the_way(output, pooled)
        self.pooled = bool(taking_maxima)
        if self.unpooling is None and taking_maxima:
            raise OptionError(
                f"{taking_maxima} takes maxima, and without an image there are no switches to undo them: "
                f"choose unpooling= one of {', '.join(SWITCH_FREE)}"
            )
        self._refuse_dependence(walk, leaf, rule)

    def _pooling_on_the_way(self, output: Tensor, pooled: list[tuple[Tensor, str]]) -> str:
        """The layer of the first max-pooling that the output depends on; empty if there is none."""
        tensors = [tensor for tensor, _ in pooled]
        if not tensors:
            return ""
        signals = torch.autograd.grad(output, tensors, torch.ones_like(output), allow_unused=True, retain_graph=True)
        return next((layer for signal, (_, layer) in zip(signals, pooled, strict=True) if signal is not None), "")

    def _refuse_dependence(self, walk: RecordedWalk, leaf: Tensor, rule: SignalRule) -> None:
        """Pass the same signal down for other data: the pixels must receive the same."""
        other, other_leaf = RecordedWalk(self.model, self.layer, self._uses), self._input(seed=1)
        other.run(_image_free_operations(rule), other_leaf)
        output = walk.output()
        seed = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), device="cpu").to(output)
        (signal,) = torch.autograd.grad(output, leaf, seed, retain_graph=True)
        (other_signal,) = torch.autograd.grad(other.output(), other_leaf, seed, retain_graph=True)
        if agree(signal, other_signal):
            return
        module = dependent_module(walk, other)
        remedy = "choose a layer before it, or explain an image with NeuronDeconvolution"
        if module.training and isinstance(module, (_NormBase, _DropoutNd)):
            remedy = "call model.eval() first"
        raise ModelError(
            f"the signal that {describe(self.model, module)} passes down depends on the data (as in softmax, gates, "
            "products of two signals, layer norm and recurrent layers), so nothing can be reconstructed without an "
            f"image: {remedy}"
        )

    def _units(
        self, neurons: Unit | slice | Iterable[Unit], position: tuple[int, ...] | None
    ) -> list[tuple[range, ...]]:
        """Each unit as the indices along every dimension of the layer's output for one example."""
        if isinstance(neurons, slice):
            entries: Iterable[Unit] = range(*neurons.indices(self._shape[0]))
        else:
            entries = neurons if isinstance(neurons, Iterable) and not isinstance(neurons, tuple) else [neurons]
        if position is not None:
            position = _sizes("position", position, "such as (row, column)")
        units = [self._unit(unit, position) for unit in entries]
        if not units:
            raise OptionError(f"no unit was asked for: name channels between 0 and {self._shape[0] - 1}")
        return units

    def _unit(self, unit: Unit, position: tuple[int, ...] | None) -> tuple[range, ...]:
        shape = self._shape
        if position is not None and (isinstance(unit, tuple) or len(position) != len(shape) - 1):
            raise OptionError(
                f"position {position} does not go with unit {unit}: give a channel and {len(shape) - 1} numbers, "
                f"as the layer's shape per example is {shape}"
            )
        index = unit if isinstance(unit, tuple) else (unit, *(position or ()))
        every = (*index, *(slice(None),) * (len(shape) - len(index)))
        try:
            ranges = tuple(_chosen(range(size), entry) for size, entry in zip(shape, every, strict=True))
        except TypeError:
            raise OptionTypeError(
                f"unit {index} is no index: a unit is an int (a channel) or a tuple of ints and slices, such as "
                "(channel, row, column)"
            ) from None
        except (IndexError, ValueError):
            ranges = ()
        if not ranges or not all(ranges):
            last = tuple(size - 1 for size in shape[1:])
            positions = f" and positions go up to {last}" if last else ""
            raise NeuronError(
                f"layer {describe(self.model, self.layer)} has no unit {index}: its shape per example is {shape}, "
                f"so channels are 0 to {shape[0] - 1}{positions}"
            )
        return ranges


def _sizes(name: str, value: Iterable[int], example: str) -> tuple[int, ...]:
    try:
        return tuple(map(operator.index, value))
    except TypeError:
        raise OptionTypeError(
            f"{name} {value!r} is no tuple of ints: give one number per dimension, {example}"
        ) from None


def _chosen(indices: range, entry: int | slice) -> range:
    """The indices that an entry selects, as a range even for a single index."""
    return indices[entry] if isinstance(entry, slice) else indices[indices[entry] : indices[entry] + 1]
