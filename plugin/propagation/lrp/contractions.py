"""Linear layers written as products: `x @ W`, `W @ x`, `einsum`, `bmm`, `tensordot`, `(x * W).sum(...)`.

Each dimension of a product has a letter, as in `torch.einsum`. One signal and constants make a linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.linear import Contraction, MatrixProduct, SparseProduct
from ..calls import Call
from ..letters import ALPHABET, letters
from .exponentials import note_attention
from .linear import is_signal, linear_layer
from .products import is_nothing

if TYPE_CHECKING:
    from .mode import RelevancePropagation


def contraction(mode: RelevancePropagation, call: Call) -> Any:
    """A product that sums over a dimension: a linear layer if one signal meets constants, else a product."""
    if is_nothing(mode, call):
        return call.run().detach()
    if len(call.signals) != 1:
        return note_attention(mode, call, mode.by_autograd(call, mode.product(call)))
    value = call.signals[0]
    if any(mode.pointwise.varies(tensor) for tensor in call.given if tensor is not value):
        return _in_proportion(mode, call)  # a mask that was computed from a signal is no weight of the model
    if call.name == "vecdot" and len(call.given) == 2:
        (weight,) = [tensor for tensor in call.given if tensor is not value]
        shape = torch.broadcast_shapes(value.shape, weight.shape)
        layer = _summed(mode, call, shape, value, weight, {int(call.kwargs.get("dim", -1)) % len(shape)})
        return _in_proportion(mode, call) if layer is None else layer
    if any(tensor.layout is not torch.strided for tensor in call.given):
        return _sparse(mode, call, value)
    written = letters(call)
    constants = [] if written is None else [tensor for tensor in written[0] if tensor is not value]
    if written is None or len(constants) + 1 != len(written[0]) or not constants:
        return _in_proportion(mode, call)
    tensors, indices, output = written
    of_value = next(index for tensor, index in zip(tensors, indices, strict=True) if tensor is value)
    rest = [index for tensor, index in zip(tensors, indices, strict=True) if tensor is not value]
    if any(len(set(index)) < len(index) for index in (of_value, *rest)):
        return _in_proportion(mode, call)  # a diagonal
    weight, of_weight = constants[0], rest[0]
    if len(constants) > 1:
        of_weight = "".join(dict.fromkeys(letter for index in rest for letter in index if letter in of_value + output))
        weight = torch.einsum(f"{','.join(rest)}->{of_weight}", *constants)
    return contracted(mode, call, (value, of_value), (weight, of_weight), output)


def _sparse(mode: RelevancePropagation, call: Call, value: Tensor) -> Any:
    """A product of a signal with a sparse matrix, or of a sparse signal with a matrix."""
    if value.layout is not torch.strided:
        with mode.seeing():
            return call.run_with({id(value): value.to_dense()})
    written = letters(call)
    others = [] if written is None else [other for other in written[0] if other is not value]
    if written is None or len(others) != 1 or others[0].ndim != 2:
        return mode.unknown_operation(call)
    (matrix,), (first, *_) = others, written[0]
    dimension = value.ndim - 1 if first is value else max(value.ndim - 2, 0)

    def entries() -> tuple[Tensor, Tensor]:
        stored = (matrix.t() if first is value else matrix).to_sparse_coo().coalesce()
        return stored.indices(), stored.values()

    indices, weight = mode.cache.get(matrix, ("entries", first is value), entries)
    rows, columns = matrix.shape[::-1] if first is value else matrix.shape
    return linear_layer(mode, call, value, SparseProduct(indices, (rows, columns), dimension), weight, None)


def contracted(
    mode: RelevancePropagation,
    call: Call,
    value: tuple[Tensor, str],
    weight: tuple[Tensor, str],
    output: str,
    compute: Callable[[], Tensor] | None = None,
) -> Any:
    """The linear layer of a product, from the letters of its tensors."""
    (x, of_x), (w, of_w) = value, weight
    if compute is None and output == of_x and set(of_w) <= set(of_x):
        return _scaled(mode, call, value, weight)
    kept, own = of_x[:-1], output[-1:]
    if x.ndim >= 2 and len(of_w) == 2 and output == kept + own and set(of_w) == {of_x[-1], own} and own not in of_x:
        matrix = w if of_w == own + of_x[-1] else mode.cache.get(mode.cache.constant(w), "transposed", w.t)
        return linear_layer(mode, call, x, MatrixProduct(), matrix, None, compute)
    # A dimension of size 1 that is only broadcast belongs to neither tensor; a weight repeated along one of x is one.
    sizes = dict(zip(of_x, x.shape, strict=True))
    stretched = [
        d
        for d, letter in enumerate(of_w)
        if letter in sizes and (w.shape[d] == 1 or (w.stride(d) == 0 and w.shape[d] == sizes[letter]))
    ]
    for d in reversed(stretched):
        w, of_w = w.select(d, 0), of_w[:d] + of_w[d + 1 :]
    if any(x.shape[d] == 1 and letter in of_w for d, letter in enumerate(of_x)) and not all(
        w.shape[of_w.index(letter)] == 1 for d, letter in enumerate(of_x) if x.shape[d] == 1 and letter in of_w
    ):
        return _in_proportion(mode, call)
    mixes = of_x[-1:] not in output
    return linear_layer(mode, call, x, Contraction(of_x, of_w, output, tuple(w.shape)), w, None, compute, mixes=mixes)


def _scaled(mode: RelevancePropagation, call: Call, value: tuple[Tensor, str], weight: tuple[Tensor, str]) -> Any:
    """A product that sums over nothing and moves nothing: the same as one entry by entry."""
    (x, of_x), (w, of_w) = value, weight
    order = sorted(range(w.ndim), key=lambda d: of_x.index(of_w[d]))
    aligned = w.detach().permute(order).reshape([w.shape[of_w.index(one)] if one in of_w else 1 for one in of_x])
    mode.noted(aligned).owner = mode.owner_of(w)
    with mode.seeing():
        return x * aligned


def _in_proportion(mode: RelevancePropagation, call: Call) -> Any:
    """A product of one signal in a form without a rule of its own: LRP-0."""
    return mode.by_autograd(call, mode.as_it_is(call))


def summed_product(mode: RelevancePropagation, call: Call) -> Any:
    """`(x * W).sum(...)` for a weight W of the model, or its mean, as a linear layer; None for any other sum."""
    scaled = mode.note(call.signals[0]).scaled if len(call.signals) == 1 and call.name in ("sum", "mean") else None
    if scaled is None or len(call.args) > 3 or not set(call.kwargs) <= {"dim", "keepdim", "input"}:
        return None
    product, (value, weight) = call.signals[0], scaled
    given = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim")
    dims = {int(d) % product.ndim for d in ([given] if isinstance(given, int) else given or range(product.ndim))}
    shape = torch.broadcast_shapes(value.shape, weight.shape)
    groups = _merged(shape, product.shape)
    if groups is None or len(shape) > len(ALPHABET):
        return None
    rest = [product.shape[d] for d in range(product.ndim) if d not in dims]
    summed = {d for dim in dims for d in groups[dim]}
    if not _mixes(shape, weight, summed) or [shape[d] for d in range(len(shape)) if d not in summed] != rest:
        return None
    if call.args[2:] == (True,) or call.kwargs.get("keepdim"):
        with mode.seeing():
            total = getattr(product, call.name)(sorted(dims))
            return total.view([1 if d in dims else size for d, size in enumerate(product.shape)])
    if call.name == "mean":
        owner, weight = mode.owner_of(weight), weight.detach() / math.prod(product.shape[d] for d in dims)
        mode.noted(weight).owner = owner
    # The weight identifies the layer.
    whole = Call(call.operation, call.function, call.args, call.kwargs, call.signals, [*call.given, weight])
    result = _summed(mode, whole, shape, value, weight, summed)
    if call.name == "mean" and isinstance(result, Tensor):
        mode.noted(result).averaged = call
    return result


def centred(mode: RelevancePropagation, call: Call) -> Any:
    """`y - y.mean(...)` for a product y with a weight: the mean is a step of a norm, and no layer; None for others."""
    if call.name != "sub" or len(call.signals) != 2 or call.kwargs:
        return None
    value, mean = call.signals
    moved = mode.note(mean).moved
    averaged = mode.note(mean if moved is None else moved[0]).averaged
    if averaged is None or averaged.signals[0] is not value:
        return None
    note = mode.note(value)
    scaled, note.scaled = note.scaled, None
    try:
        with mode.seeing():
            return value - averaged.run().reshape(mean.shape)
    finally:
        note.scaled = scaled


def _merged(shape: torch.Size, into: torch.Size) -> list[list[int]] | None:
    """For each dimension of a view, those that were merged to it; None for a view of any other form."""
    groups: list[list[int]] = []
    position = 0
    for size in into:
        group = list(range(position, min(position + 1, len(shape))))
        while group and math.prod(shape[d] for d in group) < size and group[-1] + 1 < len(shape):
            group.append(group[-1] + 1)
        if math.prod(shape[d] for d in group) != size:
            return None
        groups.append(group)
        position += len(group)
    if groups and shape[position:].numel() == 1:
        groups[-1] += range(position, len(shape))
        return groups
    return None


def _mixes(shape: torch.Size, weight: Tensor, dims: set[int]) -> bool:
    """Whether a product that is broadcast to a shape, and then summed, has several weights in a sum."""
    shift = len(shape) - weight.ndim
    return any(d >= shift and weight.shape[d - shift] == shape[d] for d in dims)


def _summed(
    mode: RelevancePropagation, call: Call, shape: torch.Size, value: Tensor, weight: Tensor, dims: set[int]
) -> Any:
    """The layer that multiplies x and W, each broadcast to a shape, and sums over dimensions; None if there is none."""
    index = ALPHABET[: len(shape)]

    def own(tensor: Tensor) -> tuple[Tensor, str]:
        shift = len(shape) - tensor.ndim
        kept = [d for d in range(tensor.ndim) if tensor.shape[d] == shape[d + shift]]
        squeezed = [d for d in range(tensor.ndim) if d not in kept]
        return tensor.squeeze(squeezed), "".join(index[d + shift] for d in kept)

    w, of_w = own(weight)
    if not any(index[d] in of_w for d in dims):
        return None
    with mode.seeing():
        x, of_x = own(value)
    output = "".join(letter for d, letter in enumerate(index) if d not in dims)
    if any(letter not in of_x + of_w for letter in output):
        return None
    return contracted(mode, call, (x, of_x), (w, of_w), output, lambda: call.run().detach())


def two_inputs(
    mode: RelevancePropagation, call: Call, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    """`F.bilinear`: a linear layer of one input if the other is constant, else half to each."""
    if bias is not None:  # which is added, as to any layer
        with mode.seeing():
            return F.bilinear(input1, input2, weight) + bias
    if len(call.signals) > 1 or is_signal(call, weight):
        return mode.product(call)
    swap = is_signal(call, input2)
    value, other = (input2, input1) if swap else (input1, input2)
    own = torch.einsum("...j,oij->...oi" if not swap else "...i,oij->...oj", other, weight)
    batch = ALPHABET[: value.ndim - 1]
    return contracted(mode, call, (value, batch + "x"), (own, batch + "yx"), batch + "y",
                      lambda: F.bilinear(input1, input2, weight).detach())  # fmt: skip
