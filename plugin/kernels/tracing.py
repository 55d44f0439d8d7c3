"""Whether operations are being recorded into a graph: then no value may decide which operations come next."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_thread = threading.local()


def is_tracing() -> bool:
    """Whether this thread records. If so, shortcuts must not depend on values, and checks of values wait."""
    return getattr(_thread, "tracing", False)


@contextmanager
def tracing() -> Iterator[None]:
    """Record on this thread."""
    before = is_tracing()
    _thread.tracing = True
    try:
        yield
    finally:
        _thread.tracing = before


@contextmanager
def untraced() -> Iterator[None]:
    """Operations on constants of the package, whose values are known: no recording contains them."""
    if not is_tracing():
        with torch._C.DisableTorchFunction():
            yield
        return
    before, _thread.tracing = True, False
    try:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            yield
    finally:
        _thread.tracing = before


def known_any(mask: Tensor) -> bool:
    """Whether an entry is true; False while it is recorded, when no value is known."""
    return not is_tracing() and bool(mask.any())


def known_number(constant: Tensor) -> float | None:
    """The value of a constant with one entry, or 0 if all entries are 0; else, or if no value is known, None."""
    if is_tracing() or constant.requires_grad or constant.dtype is torch.bool or not constant.numel():
        return None
    if constant.numel() == 1:
        return float(constant)
    # A bound is often a tensor of zeros.
    return None if bool(constant.any()) else 0.0


def values_are_known() -> bool:
    """Whether the values of the model's constants are known; in a recording they are not."""
    return not is_tracing()


def python_runs_again() -> bool:
    """Whether Python code that changes tensors past autograd runs at every call; in a recording it would run once."""
    return not is_tracing()


def memory_is_our_own() -> bool:
    """Whether a result that nothing needs may be overwritten; a recorded graph has to hold it."""
    return not is_tracing()


@contextmanager
def building_graph() -> Iterator[None]:
    """Turn autograd on, even if the caller turned it off (NoiseTunnel calls under `no_grad`).

    A recording is known to its own thread only, and autograd has another thread for each GPU. This context keeps
    autograd from using them. `inference_mode(False)` allows them again, so this setting comes after it.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autograd.set_multithreading_enabled(not is_tracing()):
        yield
