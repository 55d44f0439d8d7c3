"""A letter for each dimension of the tensors of a product, as in `torch.einsum`."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..kernels.tracing import untraced
from .calls import Call
from .kinds import Kind

ALPHABET = "abcdefghijklmnopqrstuvw"


def letters(call: Call) -> tuple[list[Tensor], list[str], str] | None:
    """The operands of a product, the letters of their dimensions, and those of the result; None for unusual forms."""
    name, args = call.name, [*call.args, *(v for v in call.kwargs.values() if isinstance(v, Tensor))]
    if name == "einsum":
        equation, operands = args[0], args[1:]
        operands = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
        return None if not isinstance(equation, str) else _einsum_letters(equation, operands)
    first, second = args[0], args[1]
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return None
    if name == "rmatmul":
        first, second = second, first
    if name == "tensordot":
        return _tensordot_letters(first, second, args[2] if len(args) > 2 else call.kwargs.get("dims", 2))
    if name == "inner" and first.ndim and second.ndim:
        left, right = ALPHABET[: first.ndim - 1], ALPHABET[first.ndim - 1 : first.ndim + second.ndim - 2]
        return [first, second], [left + "x", right + "x"], left + right
    if name in ("outer", "ger"):
        return [first, second], ["a", "b"], "ab"
    if name in ("dot", "vdot"):
        return [first, second], ["a", "a"], ""
    if name in ("kron", "inner", "vecdot", "cross"):
        return None
    return _matmul_letters(first, second)


def _matmul_letters(first: Tensor, second: Tensor) -> tuple[list[Tensor], list[str], str]:
    batch = ALPHABET[: max(first.ndim, second.ndim) - 2]
    left = "x" if first.ndim == 1 else batch[len(batch) - (first.ndim - 2) :] + "yx"
    right = "x" if second.ndim == 1 else batch[len(batch) - (second.ndim - 2) :] + "xz"
    output = batch + ("" if first.ndim == 1 else "y") + ("" if second.ndim == 1 else "z")
    return [first, second], [left, right], output


def _tensordot_letters(first: Tensor, second: Tensor, dims: Any) -> tuple[list[Tensor], list[str], str] | None:
    if isinstance(dims, int):
        dims = list(range(first.ndim - dims, first.ndim)), list(range(dims))
    if not isinstance(dims, (tuple, list)):
        return None
    left, right = list(ALPHABET[: first.ndim]), list(ALPHABET[first.ndim : first.ndim + second.ndim])
    pairs = [(int(a) % first.ndim, int(b) % second.ndim) for a, b in zip(*dims, strict=True)]
    for a, b in pairs:
        right[b] = left[a]
    output = [x for d, x in enumerate(left) if d not in {a for a, _ in pairs}]
    output += [x for d, x in enumerate(right) if d not in {b for _, b in pairs}]
    return [first, second], ["".join(left), "".join(right)], "".join(output)


def _einsum_letters(equation: str, operands: Sequence[Any]) -> tuple[list[Tensor], list[str], str] | None:
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    indices = inputs.split(",")
    if not arrow:
        every = inputs.replace(",", "").replace(".", "")
        output = ("..." if "..." in inputs else "") + "".join(sorted(x for x in set(every) if every.count(x) == 1))
    free = [letter for letter in ALPHABET + ALPHABET.upper() + "xyzXYZ" if letter not in equation]
    widths = [t.ndim - len(i.replace("...", "")) for t, i in zip(operands, indices, strict=True) if "..." in i]
    dots = "".join(free[: max(widths, default=0)])
    expanded = [
        index.replace("...", dots[len(dots) - (tensor.ndim - len(index) + 3) :] if "..." in index else "")
        for tensor, index in zip(operands, indices, strict=True)
    ]
    return list(operands), expanded, output.replace("...", dots)


def factors(call: Call) -> list[Tensor] | None:
    """The factors of a product that sums over nothing and moves nothing, in shapes to multiply them; None for others.

    One factor has all dimensions of the result, and signals alone have fewer.
    """
    written = letters(call) if call.name == "einsum" else None
    if written is None or any(len(set(index)) < len(index) for index in written[1]):
        return None
    tensors, indices, output = written
    places = [[output.find(letter) for letter in index] for index in indices]
    if output not in indices or any(-1 in place or place != sorted(place) for place in places):
        return None
    if len(call.signals) < len(tensors) and any(index != output for index in indices):
        return None  # a product with a constant may be a linear layer
    missing = [[d for d in range(len(output)) if d not in place] for place in places]
    return [_unsqueezed(tensor, dims) for tensor, dims in zip(tensors, missing, strict=True)]


def _unsqueezed(tensor: Tensor, dims: Sequence[int]) -> Tensor:
    for d in dims:
        tensor = tensor.unsqueeze(d)
    return tensor


def summed(call: Call) -> Tensor | None:
    """The result of a product of one factor alone, as a sum and a permutation; None for any other."""
    written = letters(call) if call.name == "einsum" else None
    if written is None or len(written[0]) != 1 or len(set(written[1][0])) < len(written[1][0]):
        return None
    ((value,), (index,), output) = written
    left_out = [d for d, letter in enumerate(index) if letter not in output]
    kept = [letter for letter in index if letter in output]
    return (value.sum(left_out) if left_out else value).permute([kept.index(letter) for letter in output])


def is_squared(call: Call) -> bool:
    """Whether each entry of a product is a sum of squares: it multiplies a tensor with itself, entry by entry."""
    if len(call.signals) != 2 or not _is_same(*call.signals):
        return False
    written = letters(call)
    if written is None:
        return call.name == "vecdot" and call.signals[0] is call.signals[1]
    tensors, indices, _ = written
    if len(tensors) != 2:
        return False
    first, second = (_strides(tensor, index) for tensor, index in zip(tensors, indices, strict=True))
    return first == second


def sums_with(call: Call, tensor: Tensor) -> bool:
    """Whether a product sums over a dimension that a factor shares with another signal; True if it is not known."""
    written = letters(call)
    if written is None:
        return True
    tensors, indices, output = written
    own = {letter for one, index in zip(tensors, indices, strict=True) if one is tensor for letter in index}
    signals = [signal for signal in call.signals if signal is not tensor]
    others = {
        letter
        for one, index in zip(tensors, indices, strict=True)
        if any(one is signal for signal in signals)
        for letter in index
    }
    return not own & others <= {*output}


def own_entries(call: Call, tensor: Tensor) -> int:
    """The number of entries of a factor that meet each set of the other signals' entries; 0 if it is not known."""
    if call.operation is not None and call.operation.kind is Kind.PRODUCT:
        index = ALPHABET[: max(signal.ndim for signal in call.signals)]
        output, written = index, [(signal, index[len(index) - signal.ndim :]) for signal in call.signals]
    elif (found := letters(call)) is not None:
        output, written = found[2], list(zip(found[0], found[1], strict=True))
    else:
        return 0
    others = {
        (letter, size)
        for one, index in written
        if one is not tensor and any(one is signal for signal in call.signals)
        for letter, size in zip(index, one.shape, strict=True)
    }
    (own,) = [index for one, index in written if one is tensor][:1] or [""]
    sizes = zip(own, tensor.shape, strict=True)
    return math.prod(size for letter, size in sizes if letter not in output or (letter, size) not in others)


def mixed_entries(call: Call, result: Tensor) -> Tensor | None:
    """Of a product of a tensor with itself: 0 where an entry is a sum of squares, 1 elsewhere; None for others."""
    written = letters(call) if len(call.signals) == 2 and _is_same(*call.signals) else None
    if written is None or len(written[0]) != 2 or any(len(set(index)) < len(index) for index in written[1]):
        return None
    tensors, indices, output = written
    first, second = (dict(zip(index, t.stride(), strict=True)) for t, index in zip(tensors, indices, strict=True))
    if any(first.get(letter) != second.get(letter) for letter in {*first, *second} - {*output}):
        return None
    with untraced():
        distance = torch.zeros((1,) * len(output), dtype=torch.int64)
        for d, letter in enumerate(output):
            step = first.get(letter, 0) - second.get(letter, 0)
            if step:
                distance = distance + step * torch.arange(result.shape[d]).view(-1, *(1,) * (len(output) - d - 1))
        return (distance != 0).to(result.device, result.dtype).expand(result.shape)


def _strides(tensor: Tensor, index: str) -> dict[str, int]:
    return {letter: tensor.stride(d) for d, letter in enumerate(index) if tensor.shape[d] > 1}


def _is_same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same, or one a view of the same entries as the other."""
    if first is second:
        return True
    bases = [tensor._base if tensor._is_view() else tensor for tensor in (first, second)]
    places = [(tensor.storage_offset(), tensor.numel()) for tensor in (first, second)]
    return bases[0] is bases[1] and places[0] == places[1]
