"""The one backward pass that every attribution ends with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NO_DEPENDENCE, NoDependenceError, NotFiniteError, UnseenOperationError
from ..kernels.finite import Reading

REENTRANT = "torch.utils.checkpoint with use_reentrant=True"
NOT_REENTRANT = "pass use_reentrant=False, or turn checkpointing off"


def backward(selected: Tensor, tensors: Sequence[Tensor], keep_graph: bool = False) -> tuple[Tensor | None, ...]:
    """The signal of the selected values `(N,)` at each tensor, each example's own value with weight 1.

    Args:
        selected: the explained values, with their graph.
        tensors: the tensors at which the signal is wanted.
        keep_graph: another backward pass will follow.

    Returns:
        One signal per tensor, in its shape; None where the values do not depend on it.

    Raises:
        NoDependenceError: they depend on none of them.
        NotFiniteError: one of them is NaN or infinite.
        UnseenOperationError: a part of the model is computed once more, where it cannot be seen.
    """
    signals: tuple[Tensor | None, ...] = (None,) * len(tensors)
    values = Reading(selected)
    if selected.requires_grad:
        # autograd.grad is called on the sum: weights passed to autograd make it import sympy for seconds.
        try:
            signals = torch.autograd.grad(selected.sum(), tensors, retain_graph=keep_graph, allow_unused=True)
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise UnseenOperationError(
                f"the model computes {REENTRANT} where it cannot be seen: {NOT_REENTRANT}"
            ) from None
    if all(signal is None for signal in signals):
        raise NoDependenceError(NO_DEPENDENCE)
    if (found := values.first_not_finite()) is not None:
        raise NotFiniteError("the explained output of example {} is {}, of which no map can be made".format(*found))
    return signals
