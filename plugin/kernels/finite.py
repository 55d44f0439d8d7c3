"""Whether values are finite, without a wait for the work that is queued after them."""

import cmath

import torch
from torch import Tensor

from .tracing import is_tracing


class Reading:
    """Values on their way to the processor.

    A GPU copies them as soon as it has computed them, beside the work that it is given meanwhile: reading them later
    waits for no more than that. While operations are recorded no value is known.

    Args:
        values: any tensor.
    """

    def __init__(self, values: Tensor) -> None:
        self._copy: Tensor | None = None
        self._copied: torch.cuda.Event | None = None
        if is_tracing():
            return
        self._copy = values.detach().to("cpu", non_blocking=values.is_cuda)
        if values.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(values.device))

    def first_not_finite(self) -> tuple[int, complex | float] | None:
        """The first value that is NaN or infinite, and its position in the flattened values; None if all are finite."""
        if self._copy is None:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        values = enumerate(self._copy.flatten().tolist())
        return next(((position, value) for position, value in values if not cmath.isfinite(value)), None)
