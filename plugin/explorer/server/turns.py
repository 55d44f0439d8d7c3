"""Heavy work takes turns: a limited number runs at a time, the others wait in order of arrival and are told so.

The processor has a queue for each kind of work. A GPU has one queue for all kinds, and work on the processor does not
wait for it.

>>> turns = Turns(most=1)
>>> with turns.turn(told=lambda ahead: print(f"{ahead} before this one")):
...     pass  # nobody else is in here
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TELL_SECONDS = 0.3
PROCESSOR = "cpu"


class Turns:
    """A queue in front of work of one kind.

    Args:
        most: the number of threads that work at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._changed = threading.Condition()
        self._waiting: list[object] = []
        self._working: list[int] = []

    @contextmanager
    def turn(self, told: Callable[[int], None] = lambda ahead: None) -> Iterator[None]:
        """A context that begins when it is this thread's turn. Inside another of the same thread it begins at once.

        Args:
            told: called repeatedly while this waits, with the number of threads before it: those at work and those that
                came earlier. If it raises, the thread leaves the queue.
        """
        thread = threading.get_ident()
        if thread in self._working:
            yield
            return
        self._wait(thread, told)
        try:
            yield
        finally:
            with self._changed:
                self._working.remove(thread)
                self._changed.notify_all()

    def give_way(self, most_seconds: float) -> None:
        """Wait while other threads work here or wait for their turn, but no longer than `most_seconds`."""
        thread, end = threading.get_ident(), time.monotonic() + most_seconds
        with self._changed:
            while self._waiting or any(other != thread for other in self._working):
                left = end - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def _wait(self, thread: int, told: Callable[[int], None]) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
        try:
            while (ahead := self._enter(ticket, thread)) is not None:
                told(ahead)  # without the lock: it may take its time
        finally:
            with self._changed:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                    self._changed.notify_all()

    def _enter(self, ticket: object, thread: int) -> int | None:
        """None if it is this ticket's turn, which starts; else how many are before it, a moment later."""
        with self._changed:
            for last in (False, True):
                before = self._waiting.index(ticket)
                if len(self._working) + before < self.most:
                    self._waiting.remove(ticket)
                    self._working.append(thread)
                    return None
                if not last:
                    self._changed.wait(_TELL_SECONDS)
            return len(self._working) + self._waiting.index(ticket)


def ahead_of_this(ahead: int) -> str:
    """The text on a page whose work waits."""
    return f"Waiting for its turn: {ahead} {'others are' if ahead > 1 else 'other is'} before this …"


_CORES = os.cpu_count() or 1
# The queue of the pages' own work: each map uses several cores by itself.
MAPS = Turns(max(1, min(4, _CORES // 2)))
# The queue of runs and measurements, which take minutes: a map waits for none of them, and they wait for no map.
JOBS = Turns(max(1, min(4, _CORES // 2)) + 1)
# The queue of checks that nobody asked for: one at a time. Neither maps nor runs wait for them. They give way to maps.
CHECKS = Turns(1)
# The queues of the other devices by name, made at first use. Work at the same time would share a GPU's memory.
_elsewhere: dict[str, Turns] = {}


def turns_on(device: str, on_processor: Turns) -> Turns:
    """The queue of work on a device.

    Args:
        device: its name.
        on_processor: the queue of such work if it is done on the processor.
    """
    return on_processor if device == PROCESSOR else _elsewhere.setdefault(device, Turns(1))
