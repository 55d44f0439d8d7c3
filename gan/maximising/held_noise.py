"""Networks that draw random numbers in their forward pass: noise of a generator, dropout that is never switched off.

An ascent compares values, and a run's seed decides everything about it. Such numbers are therefore held: they are the
same in every pass, and the caller's random state is not changed.
"""

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from plugin.seeds import global_states, seeded

# PyTorch has one random state for all threads: while one thread holds it, no other may set it.
_state = threading.RLock()


class _Draws(TorchDispatchMode):
    """Notes whether this thread calls an operation that may draw random numbers."""

    any = False

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.any = self.any or torch.Tag.nondeterministic_seeded in function.tags
        return function(*args, **(kwargs or {}))


class Held:
    """A context for each forward pass of a network, in which its random numbers are the same. It can be pickled.

    Args:
        device: the network's device.

    Attributes:
        draws: whether the network draws any; if not, the context does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.draws = device, False
        self._open: list[ExitStack] = []

    @contextmanager
    def watching(self, network: nn.Module, name: str) -> Iterator[None]:
        """Detect in a first pass whether a network draws random numbers; the random state is restored afterwards.

        A network with lazy layers draws their weights in its first pass, as it would for its owner.

        Warns:
            UserWarning: the network draws random numbers.
        """
        if any(is_lazy(weight) for weight in network.parameters()):
            yield
            return
        with _state, seeded(0, self.device), _Draws() as seen:  # type: ignore[no-untyped-call]
            before = global_states(self.device)
            yield
            # Other threads may draw meanwhile; and attention is tagged as drawing even without dropout.
            self.draws = seen.any and not all(map(torch.equal, before, global_states(self.device)))
        if self.draws:
            warnings.warn(
                f"the {name} draws random numbers in its forward pass: they are the same in every pass, so that runs "
                "can be repeated; the result for an image may depend on the images beside it",
                stacklevel=5,
            )

    def __enter__(self) -> None:
        if self.draws:
            context = ExitStack()
            context.enter_context(_state)
            context.enter_context(seeded(0, self.device))
            self._open.append(context)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.draws:
            self._open.pop().__exit__(kind, error, at)
