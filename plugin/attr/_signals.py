"""Many signals that pass down one autograd graph together.

Autograd requires the signal at a tensor to have the tensor's shape. As only shapes matter, the graph of one example is
enough for any number of units: a `Signals` has the shape of one unit's signal and holds those of all units. The
operations of this module keep it compact if they can (`plugin.kernels.compact`). Any other operation is applied to the
signal of one unit after the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..errors import NoRuleError
from ..kernels.compact import CompactSignal
from ..kernels.unpooling import SwitchFree, unpool
from ..propagation.convolution import ConvolutionGradient

aten = torch.ops.aten


class Signals(Tensor):
    """The signals of `units` units at one tensor, with that tensor's shape and type.

    Attributes:
        units: the number of units.
        held: a tensor `(units, *shape)`; or, at a tensor `(B, C, ...)`, a compact signal of `units * B` examples.
    """

    units: int
    held: Tensor | CompactSignal

    @staticmethod
    def __new__(cls, held: Tensor | CompactSignal, units: int) -> "Signals":
        if isinstance(held, CompactSignal):
            like, sides = held.values, tuple(map(len, held.tables))
            shape: Sequence[int] = (len(like) // units, held.channels, *sides)
        else:
            like, shape = held, held.shape[1:]
        signals = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        signals.held, signals.units = held, units
        return signals

    def each(self) -> Tensor:
        """The signal of each unit `(units, *shape)`, contiguous, as the strides of this tensor say."""
        if isinstance(self.held, Tensor):
            return self.held.contiguous()
        result: Tensor = self.held.dense().contiguous().unflatten(0, (self.units, -1))
        return result

    def compact(self) -> CompactSignal:
        """The same for signals at a tensor `(B, C, ...)`, as `units * B` examples."""
        return CompactSignal.of(self.held.flatten(0, 1)) if isinstance(self.held, Tensor) else self.held

    def changed(self, change: Callable[[CompactSignal], CompactSignal]) -> "Signals":
        """The signals after a change of their compact form."""
        return Signals(change(self.compact()), self.units)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares the wrong signature
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        known = _KNOWN.get(function)
        result = NotImplemented if known is None else known(*args, **kwargs)
        return _one_by_one(function, args, kwargs) if result is NotImplemented else result


def _one_by_one(function: Any, args: Any, kwargs: Any) -> Any:
    """The result of any operation, applied to one unit's signal after the other."""
    if function._schema.is_mutable:
        raise NoRuleError(f"{function} writes into a signal, which is shared: compute the result out of place")
    leaves, structure = tree_flatten((args, kwargs))
    signals = {position: leaf.each() for position, leaf in enumerate(leaves) if isinstance(leaf, Signals)}
    units = len(next(iter(signals.values())))
    results = []
    for unit in range(units):
        own = [signals[position][unit] if position in signals else leaf for position, leaf in enumerate(leaves)]
        own_args, own_kwargs = tree_unflatten(own, structure)
        results.append(tree_flatten(function(*own_args, **own_kwargs)))
    columns = zip(*(leaves for leaves, _ in results), strict=True)
    stacked = [Signals(torch.stack(same), units) if isinstance(same[0], Tensor) else same[0] for same in columns]
    return tree_unflatten(stacked, results[0][1])


def _alias(signals: Signals) -> Signals:
    return Signals(signals.held, signals.units)


def _clamp(signals: Signals, min: Any = None, max: Any = None) -> Any:
    if max is not None or min != 0:
        return NotImplemented
    if isinstance(signals.held, Tensor):
        return Signals(signals.held.clamp(min=0), signals.units)
    return signals.changed(CompactSignal.rectified)


def _add(signals: Any, other: Any, *, alpha: Any = 1) -> Any:
    if not (isinstance(signals, Signals) and isinstance(other, Signals)) or alpha != 1 or signals.shape != other.shape:
        return NotImplemented
    if isinstance(signals.held, Tensor) or isinstance(other.held, Tensor):
        return Signals(signals.each() + other.each(), signals.units)
    return signals.changed(other.held.plus)


def _slice(signals: Signals, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """The backward pass of a concatenation of channels: each part gets its own channels."""
    if isinstance(signals.held, Tensor) or dim not in (1, 1 - signals.ndim) or step != 1:
        return NotImplemented
    start, stop, _ = slice(start, end).indices(signals.shape[1])
    return signals.changed(lambda compact: compact.narrowed(start, stop))


def _batch_norm(
    signals: Any,
    value: Any,
    weight: Any,
    mean: Any,
    variance: Any,
    _: Any,
    __: Any,
    training: bool,
    epsilon: float,
    mask: Any,
) -> Any:
    """Batch norm with the running statistics: a scale per channel."""
    if not isinstance(signals, Signals) or training or variance is None or list(mask) != [True, False, False]:
        return NotImplemented
    scale = (variance + epsilon).rsqrt()
    return signals.changed(lambda compact: compact.scaled(scale if weight is None else scale * weight)), None, None


def _matrix_product(signals: Any, matrix: Any) -> Any:
    if not isinstance(signals, Signals) or isinstance(matrix, Signals):
        return NotImplemented
    return Signals(signals.each() @ matrix, signals.units)


def _convolution_backward(signals: Any, value: Any, weight: Any, *rest: Any) -> Any:
    """Convolutions without a row: padding by name, transposed convolutions, and computed weights."""
    *geometry, mask = rest
    batch = isinstance(signals, Signals) and not isinstance(weight, Signals) and list(mask) == [True, False, False]
    if not batch:
        return NotImplemented
    each = signals.each()
    values = value.expand(signals.units, *value.shape).flatten(0, 1)
    result = aten.convolution_backward(each.flatten(0, 1), values, weight, *geometry, mask)[0]
    return Signals(result.unflatten(0, (signals.units, -1)), signals.units), None, None


_KNOWN: dict[Any, Callable[..., Any]] = {
    aten.detach.default: _alias,
    aten.alias.default: _alias,
    aten.clamp.default: _clamp,
    aten.add.Tensor: _add,
    aten.slice.Tensor: _slice,
    aten.native_batch_norm_backward.default: _batch_norm,
    aten.mm.default: _matrix_product,
    aten.convolution_backward.default: _convolution_backward,
}


class ImageFreeConvolution(ConvolutionGradient):
    """`ConvolutionGradient` for signals of any kind."""

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        if not isinstance(signal, Signals):
            return ConvolutionGradient.backward(ctx, signal)
        return signal.changed(lambda compact: compact.transposed(ctx.weight, ctx.linear, ctx.size[2:])), None


class ImageFreePooling(SwitchFree):
    """`SwitchFree` for signals of any kind."""

    @staticmethod
    def backward(ctx: Any, signal: Tensor, *_: None) -> tuple[Tensor, None, None]:
        if not isinstance(signal, Signals):
            return unpool(signal, ctx.windows, ctx.mode), None, None
        if signal.ndim != len(ctx.windows) + 2:
            return Signals(unpool(signal.each(), ctx.windows, ctx.mode), signal.units), None, None
        return signal.changed(lambda compact: compact.unpooled(ctx.windows, ctx.mode)), None, None
