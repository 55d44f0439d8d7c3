"""Random weights that depend on a seed only, not on other threads.

PyTorch's layers draw their first weights from one generator for the whole process. Seeding it gives the same weights
only as long as no other thread draws, or seeds, in between.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class SeededWeights(TorchDispatchMode):
    """Within it, random initialisation on this thread gives the same values as after `torch.manual_seed(seed)`.

    The process's own generators are neither read nor advanced.

    >>> with SeededWeights(0):
    ...     network = torchvision.models.resnet18()

    Args:
        seed: seed of the numbers.

    Raises:
        NotImplementedError: within it, for a random operation that takes no generator, such as `torch.native_dropout`.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Give a random operation the generator of its device."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in function.tags:
            device = torch.device((args[0].device if isinstance(args[0], Tensor) else kwargs.get("device")) or "cpu")
            if device.type != "meta":  # there are no values to draw
                function = _with_generator(function)
                kwargs["generator"] = self._generator(device)
        return function(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def _with_generator(function: Any) -> Any:
    """The overload of a random operation that takes a generator."""
    if any(argument.name == "generator" for argument in function._schema.arguments):
        return function
    packet, name = function.overloadpacket, {"low": "low_generator"}.get(function._overloadname, "generator")
    if name not in packet.overloads():
        raise NotImplementedError(f"{function} takes no generator: draw it outside of SeededWeights")
    return getattr(packet, name)
