"""A call of an operation, with the tensors among its arguments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .kinds import Operation
from .tensors import map_tensors


@dataclass(slots=True)
class Call:
    """A call that receives at least one signal.

    Attributes:
        operation: its row; None if the table has none.
        function, args, kwargs: the call.
        signals: the tensors that depend on the input, in order, each as often as it is given.
        given: all tensors among the arguments; parameters as the model holds them.
    """

    operation: Operation | None
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    signals: list[Tensor]
    given: list[Tensor]

    @property
    def name(self) -> str:
        """The operation's name, or the function's own."""
        if self.operation is not None:
            return self.operation.name
        return str(getattr(self.function, "__name__", self.function)).split(".")[0]

    def run(self) -> Any:
        """The plain call."""
        return self.function(*self.args, **self.kwargs)

    def run_with(self, swap: Mapping[int, Tensor | None]) -> Any:
        """The call with other tensors, or none, in place of those with these identities."""
        args, kwargs = with_tensors(self.args, self.kwargs, swap)
        return self.function(*args, **kwargs)

    def argument(self, name: str, default: Any = None) -> Any:
        """One argument, by its name in the operation's row."""
        return default if self.operation is None else self.operation.argument(self.args, self.kwargs, name, default)

    def bound(self) -> dict[str, Any]:
        """The arguments by their names in the operation's row."""
        return self.kwargs if self.operation is None else self.operation.bound(self.args, self.kwargs)


def exponent_of(call: Call) -> float | None:
    """The number p of a call that computes x ** p; None for other calls."""
    exponent = call.argument("exponent") if call.name == "pow" else None
    return float(exponent) if isinstance(exponent, (int, float)) else None


def first_by_position(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a movement; that which is moved comes by position, also if it was given by its name."""
    name = next((name for name in ("input", "tensors") if name in kwargs), None) if not args else None
    return (args, kwargs) if name is None else ((kwargs[name],), {k: v for k, v in kwargs.items() if k != name})


def with_tensors(
    args: tuple[Any, ...], kwargs: dict[str, Any], swap: Mapping[int, Tensor | None]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with other tensors in place of those with these identities."""

    def swapped(tensor: Tensor) -> Tensor | None:
        return swap.get(id(tensor), tensor)

    return map_tensors(swapped, args), map_tensors(swapped, kwargs) if kwargs else kwargs
