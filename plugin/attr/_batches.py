"""Explanations of a few examples at a time."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..captum_api import Target, additional_arguments, as_given, plain_target
from ..errors import InputValueError, LayerError, OptionError, TargetError
from ..inputs import Inputs, as_tuple, check_finite

Result = TypeVar("Result")


def in_batches(
    explain: Callable[[Inputs, Target, Any], Result],
    inputs: Inputs,
    target: Target,
    additional_forward_args: Any,
    internal_batch_size: int | None,
    allow_integers: bool = False,
) -> Result:
    """Explain a few examples at a time, so that only their activations are held.

    Args:
        explain: a function of inputs, target and additional arguments that returns a tensor `(N, ...)`, or tuples and
            lists of such tensors.
        inputs: tensor `(N, ...)`, or a tuple of them.
        target: as in Captum; a list or tensor with one entry per example is split.
        additional_forward_args: further arguments of the model; tensors with one row per example are split.
        internal_batch_size: the number of examples at a time; None: all.
        allow_integers: as for `make_leaves`.

    Returns:
        The result of `explain` for all examples.

    Raises:
        TargetError: there is not one target per example.
        OptionError: the size is less than 1.
        InputTypeError, InputValueError: as `make_leaves`; or the inputs differ in length.
        LayerError: the dimension of a result that belongs to the examples cannot be determined.
    """
    if internal_batch_size is None:
        return explain(inputs, target, additional_forward_args)
    if internal_batch_size < 1:
        raise OptionError(f"internal_batch_size = {internal_batch_size}: it must be at least 1")
    tensors, additional = as_tuple(inputs), additional_arguments(additional_forward_args)
    check_finite(tensors, allow_integers)
    count = len(tensors[0])
    if any(len(tensor) != count for tensor in tensors):
        counts = [len(tensor) for tensor in tensors]
        raise InputValueError(
            f"the inputs have {counts} examples: with internal_batch_size they must have the same number"
        )
    target = plain_target(target)
    targets = target if isinstance(target, list) else None
    if targets is not None and len(targets) != count:
        raise TargetError(f"there are {len(targets)} targets for {count} examples: give one, or one for each")
    results, sizes = [], []
    for start in range(0, count, internal_batch_size):
        rows = slice(start, start + internal_batch_size)
        some = as_given(inputs, tuple(tensor[rows] for tensor in tensors))
        given = tuple(
            value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
            for value in additional
        )
        results.append(explain(some, target if targets is None else targets[rows], given or None))
        sizes.append(min(internal_batch_size, count - start))
    joined: Result = tree_map(lambda *parts: _joined(parts, sizes), *results)
    return joined


def _joined(parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Join the results for groups of examples, along the first dimension or the one that belongs to the examples.

    Args:
        parts: the results; those of a layer may be `(N, ...)`, `(T, N, ...)` or `(N * T, ...)`.
        sizes: the number of examples of each.

    Raises:
        LayerError: this dimension cannot be determined.
    """
    if len(parts) == 1:
        return parts[0]
    first, size = parts[0].shape, sizes[0]
    dims = sorted({d for part in parts for d, length in enumerate(part.shape) if length != first[d]})
    if not dims and len(set(sizes)) == 1:  # no dimension shows by its length that it belongs to the examples
        followers = [d for d, length in enumerate(first) if length == size or (d == 0 and length % size == 0)]
        dims = [0] if len(first) and first[0] == size else followers
    if len(dims) != 1:
        raise LayerError(
            f"the layer's tensor for {size} examples, {tuple(first)}, does not show which dimension is theirs, so it "
            "cannot be put together: explain all examples at once, without internal_batch_size"
        )
    return torch.cat(tuple(parts), dims[0])
