"""Whether operations are being recorded into a graph: then no value may decide which operations come next."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_thread = threading.local()


def is_tracing() -> bool:
    """Whether this thread records: shortcuts that look at values must not be taken, and checks of values wait."""
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
