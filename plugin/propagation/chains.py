"""Activations written by hand: a chain of pointwise operations on one tensor is one activation.

`x * sigmoid(x)`, `where(x > 0, x, 0)` and `(x + |x|) / 2` take several calls, and no single call shows the whole
function. Each pointwise result therefore remembers how it was computed, as a function of an earlier tensor, its root.
An operation whose operands are functions of one root is itself such a function, and gets an activation's rule with the
whole function f. The root of several operands is the last tensor that all of them are functions of.

* An affine chain a x + c is no activation.
* An activation that PyTorch has a name for is complete, and its root is the tensor it was applied to. A number that it
  is multiplied with, or that is added to it, makes it part of a function written with it, `relu6(x + 3) / 6`. So do
  other operands of the same root, `relu(x) - a * relu(-x)`; then numbers before it belong to that function, too.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .tensors import map_tensors

_NUMBERS = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.memory_format)


@dataclass(frozen=True, slots=True)
class Slot:
    """An argument that is a function of the root: the steps from the root to it, the last one first."""

    steps: "tuple[Step, ...]" = ()


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that does not depend on the root; `read` returns the number that all its entries are, if it is known."""

    tensor: Tensor
    read: Callable[[Tensor], float | None]

    @property
    def number(self) -> float | None:
        """The number that all entries are."""
        return self.read(self.tensor)


ROOT = Slot()


class Step:
    """A call as a function of one tensor.

    Attributes:
        function, args, kwargs: the call, with a `Slot` or `Constant` in place of each tensor.
    """

    __slots__ = ("_key", "_rest", "args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self._key: Any = None
        # In most steps, the root is the first argument, and the others are numbers.
        rest = (*args[1:], *kwargs.values())
        of_root_alone = bool(args) and args[0] is ROOT and all(isinstance(argument, _NUMBERS) for argument in rest)
        self._rest = args[1:] if of_root_alone else None

    def __call__(self, value: Tensor) -> Tensor:
        """The function at a value of the root."""
        if self._rest is not None:
            result: Tensor = self.function(value, *self._rest, **self.kwargs)
            return result
        return self._at(value, {}, _as_tensor)

    def _at(self, value: Tensor, known: dict[tuple[int, int], Tensor], constant: Callable[[Constant], Any]) -> Tensor:
        found = known.get((id(self), id(value)))
        if found is None:
            args = [_filled(argument, value, known, constant) for argument in self.args]
            kwargs = {name: _filled(argument, value, known, constant) for name, argument in self.kwargs.items()}
            found = known[id(self), id(value)] = self.function(*args, **kwargs)
        return found

    @property
    def key(self) -> Any:
        """Equal for steps that compute the same function; None if something but numbers takes part."""
        if self._key is None:
            parts = _key(self.args), _key(tuple(sorted(self.kwargs.items())))
            self._key = False if None in parts else (self.function, *parts)
        return self._key or None

    @property
    def joins(self) -> bool:
        """Whether it joins tensors, so that all of them have the size of the root's."""

        def joined(argument: Any, inside: bool = False) -> bool:
            if isinstance(argument, Slot):
                return inside or any(step.joins for step in argument.steps)
            return type(argument) in (tuple, list) and any(joined(entry, True) for entry in argument)

        return any(joined(argument) for argument in (*self.args, *self.kwargs.values()))

    def without_shapes(self) -> "Step":
        """The same for a root of another shape, for steps that have a key."""

        def changed(argument: Any) -> Any:
            if isinstance(argument, Slot):
                return Slot(tuple(step.without_shapes() for step in argument.steps))
            if isinstance(argument, Constant) and argument.tensor.ndim:
                number = argument.number
                return Constant(argument.tensor.new_tensor(number), lambda _: number)
            if isinstance(argument, torch.memory_format):
                return torch.contiguous_format  # any shape may have this one
            return type(argument)(map(changed, argument)) if type(argument) in (tuple, list) else argument

        return Step(self.function, changed(self.args), {name: changed(value) for name, value in self.kwargs.items()})

    def on_numbers(self, values: Tensor) -> Tensor:
        """The function at some numbers; for steps that have a key."""

        def constant(constant: Constant) -> Tensor:
            if constant.number is None:
                raise ValueError("a tensor takes part whose entries are not one number")
            shape = constant.tensor.shape if constant.tensor.numel() == 1 else values.shape
            return torch.full(shape, constant.number, dtype=values.dtype, device=values.device)

        return self._at(values, {}, constant)


def same(value: Tensor) -> Tensor:
    """The identity."""
    return value


IDENTITY = Step(same, (ROOT,), {})


def _filled(
    argument: Any, value: Tensor, known: dict[tuple[int, int], Tensor], constant: Callable[[Constant], Any]
) -> Any:
    """An argument of a call, at a value of the root."""
    if isinstance(argument, Slot):
        for step in reversed(argument.steps):
            value = step._at(value, known, constant)
        return value
    if isinstance(argument, Constant):
        return constant(argument)
    if type(argument) in (tuple, list):
        return type(argument)(_filled(entry, value, known, constant) for entry in argument)
    return argument


def _as_tensor(constant: Constant) -> Tensor:
    return constant.tensor


def _key(argument: Any) -> Any:
    if isinstance(argument, Slot):
        keys = tuple(step.key for step in argument.steps)
        return None if None in keys else ("root", keys)
    if isinstance(argument, Constant):
        return None if argument.number is None else ("number", argument.number)
    if type(argument) in (tuple, list):
        keys = tuple(map(_key, argument))
        return None if None in keys else keys
    return ("is", argument) if isinstance(argument, _NUMBERS) else None


@dataclass(frozen=True)
class Stepwise:
    """A function without a derivative, such as rounding; PyTorch has none for some of them."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self.function(*args, **kwargs)


class Link:
    """The way from a root to a tensor.

    Attributes:
        step: the tensor as a function of the root.
        affine: the function is a x + c.
        shifted: a number was added on the way.
        complete: the tensor is the result of an activation used unchanged, or a multiple of one.
        numbers: for an affine step: only numbers took part.
        join: puts several functions of the root together, as `stack` or `cat`; None if there is one function.
        remedy: the function has no meaning by itself; the remedy for the error message.
        constant: the tensor was computed without a gradient.
    """

    __slots__ = ("_root", "affine", "complete", "constant", "join", "numbers", "remedy", "shifted", "step")

    def __init__(
        self,
        root: Tensor,
        step: Step,
        affine: bool = False,
        shifted: bool = False,
        complete: bool = False,
        numbers: bool = True,
        join: Callable[..., Tensor] | None = None,
        remedy: str = "",
    ) -> None:
        # The result of an activation lives on as the next layer's input: it must not keep the activation's input alive.
        self._root: Callable[[], Tensor | None] = weakref.ref(root) if complete and not affine else lambda: root
        self.step, self.affine, self.shifted, self.complete = step, affine, shifted, complete
        self.numbers, self.join, self.remedy, self.constant = numbers, join, remedy, False

    @property
    def root(self) -> Tensor | None:
        """The tensor that this is a function of; None if it has been freed."""
        return self._root()


LinkOf = Callable[[Tensor], Link | None]


def common_root(operands: Sequence[Tensor], link_of: LinkOf) -> Tensor | None:
    """The last tensor that all operands are functions of, or None."""
    if len(operands) == 1:
        return operands[0]
    others = [{id(tensor) for tensor in ancestors(operand, link_of)} for operand in operands[1:]]
    return next(
        (tensor for tensor in ancestors(operands[0], link_of) if all(id(tensor) in other for other in others)), None
    )


def ancestors(tensor: Tensor | None, link_of: LinkOf) -> list[Tensor]:
    """A tensor, its root, the root of that, and so on, as far as one function leads: to functions put together."""
    found = []
    while tensor is not None:
        found.append(tensor)
        link = link_of(tensor)
        tensor = None if link is None or link.join is not None else link.root
    return found


def links_to(tensor: Tensor, root: Tensor, link_of: LinkOf) -> list[Link]:
    """The links from a tensor back to a root that it is a function of.

    Raises:
        LookupError: it is no function of this root.
    """
    links: list[Link] = []
    while tensor is not root:
        link = link_of(tensor)
        below = None if link is None else link.root
        if link is None or below is None:
            raise LookupError("the tensor is no function of this root")
        links.append(link)
        tensor = below
    return links


def steps_to(tensor: Tensor, root: Tensor, link_of: LinkOf) -> tuple[Step, ...]:
    """The steps from a root to a tensor that is a function of it, the last one first."""
    return tuple(link.step for link in links_to(tensor, root, link_of))


def beginning(root: Tensor, link_of: LinkOf) -> Tensor:
    """The root of a function of `root` as a whole: numbers, and hand-written operations before it, belong to it."""
    while (link := link_of(root)) is not None and (below := link.root) is not None:
        if link.complete or link.join is not None or not (link.numbers or link.shifted):
            break
        root = below
    return root


def step_of(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    slots: dict[int, Slot],
    number_of: Callable[[Tensor], float | None],
) -> Step:
    """The call as a function of the root; `slots` maps the identity of a tensor to its function of the root."""

    def replaced(tensor: Tensor) -> Any:
        return slots.get(id(tensor)) or Constant(tensor, number_of)

    return Step(function, map_tensors(replaced, args), map_tensors(replaced, kwargs) if kwargs else kwargs)
