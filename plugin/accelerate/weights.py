"""The parameters and buffers of a model that something was compiled from: followed, or refused."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ModelChangedError

Stamp = list[tuple[int, int]]


class LiveWeights:
    """The places of a model's tensors, and a check that the model's structure has not changed.

    In-place updates are seen by `stamp`: an optimiser's step, `load_state_dict`, a new tensor of the same shape, type
    and device in the old one's place. Writing through `tensor.data` or NumPy leaves no trace, as for autograd.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [*model.modules()]
        self._training = [module.training for module in self._modules]
        self._children = [
            (module._modules, name, child) for module in self._modules for name, child in module._modules.items()
        ]
        places: dict[int, tuple[dict[str, Any], str]] = {}
        for module in self._modules:
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None:
                        places.setdefault(id(tensor), (table, name))
        self._places = list(places.values())
        self.kinds = [_kind(tensor) for tensor in self.tensors()]

    def tensors(self) -> list[Tensor]:
        """Every parameter and buffer once, as the model holds them now."""
        return [table[name] for table, name in self._places]

    def keep(self, used: Sequence[bool]) -> None:
        """Watch only these tensors from now on, in the order of `tensors`."""
        self._places = [place for place, use in zip(self._places, used, strict=True) if use]
        self.kinds = [kind for kind, use in zip(self.kinds, used, strict=True) if use]

    def stamp(self) -> Stamp:
        """Version and address of each tensor; if they differ, values may have changed.

        Raises:
            ModelChangedError: a module was replaced, or switched between training and evaluation.
        """
        self._check_modules()
        return [(tensor._version, tensor.data_ptr()) for tensor in self.tensors()]

    def checked(self) -> list[Tensor]:
        """The tensors, without gradient, sharing the model's memory; errors as for `live`."""
        return [tensor.detach() for tensor in self.live()]

    def live(self) -> list[Tensor]:
        """The tensors that the model holds now.

        Raises:
            ModelChangedError: one has another shape, type, device or layout than when it was compiled; or as `stamp`.
        """
        self._check_modules()
        for (_, name), tensor, kind in zip(self._places, self.tensors(), self.kinds, strict=True):
            if not isinstance(tensor, Tensor) or _kind(tensor) != kind:
                raise ModelChangedError(
                    f"the model's {name} is no longer {_listed(kind)} as when compiled: compile again"
                )
        return self.tensors()

    def _check_modules(self) -> None:
        if any(table.get(name) is not child for table, name, child in self._children):
            raise ModelChangedError("a module of the compiled model was replaced or removed: compile again")
        if any(module.training is not was for module, was in zip(self._modules, self._training, strict=True)):
            raise ModelChangedError(
                "the compiled model was switched between train and eval: switch back, or compile again"
            )


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def _listed(kind: tuple[Any, ...]) -> str:
    shape, _, dtype, device = kind
    return f"{shape} {dtype} on {device}"
