"""Values that are kept by key for all sessions, and made in turns."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar, cast

from .device_memory import guarded
from .turns import PROCESSOR, Turns, turns_on

T = TypeVar("T")
_NOTHING = object()


class KeptValues(Generic[T]):
    """A bounded number of values by key; the least recently used go first.

    Callers share the value and must not change it.

    Args:
        most: how many are kept.
        turns: the queue in which a value that is not kept waits before it is made on the processor.
    """

    def __init__(self, most: int, turns: Turns) -> None:
        self._most, self._turns = most, turns
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def peek(self, key: Hashable) -> T | None:
        """The value of a key if it is kept; never waits."""
        found = self._kept(key)
        return None if found is _NOTHING else cast(T, found)

    def get(
        self,
        key: Hashable,
        make: Callable[[], T],
        told: Callable[[int], None] = lambda ahead: None,
        device: str = PROCESSOR,
    ) -> T:
        """The value of a key, made now if it is not kept.

        Args:
            key: everything that the value depends on.
            make: creates the value. Errors are not kept.
            told: see `Turns.turn`.
            device: where it is made.

        Raises:
            OutOfDeviceMemory: the device has too little memory left.
        """
        found = self._kept(key)
        if found is _NOTHING:
            with turns_on(device, self._turns).turn(told), guarded(device):
                found = self._kept(key)  # another session may have asked for it too
                if found is _NOTHING:
                    found = self._keep(key, make())
        return cast(T, found)

    def _kept(self, key: Hashable) -> object:
        with self._lock:
            if key not in self._values:
                return _NOTHING
            self._values.move_to_end(key)
            return self._values[key]

    def _keep(self, key: Hashable, value: T) -> T:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value
