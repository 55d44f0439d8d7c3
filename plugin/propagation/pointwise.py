"""The reading of a pointwise call: a step of an affine chain, an activation, or neither (see `chains`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import chains
from .activation import Activation
from .calls import Call, exponent_of
from .chains import ROOT, Link, Slot, Step
from .joining import FirstOf, Joined
from .joins import Joins
from .kinds import Kind, Operation
from .notes import Note, Notes
from .operations import operation_of
from .shapes import Shape, shape_of
from .steps import CANONICAL, call_step, canonical_step

# f(a x) = a f(x) for positive a.
_HOMOGENEOUS = ("relu", "leaky_relu")
# Steps whose bounds are a tensor of one dimension.
_BINNING = ("bucketize", "searchsorted")
# A multiple or a sum computed by these is one of the function: they are no activation by themselves.
_LINEAR = frozenset({Kind.SUM, Kind.PRODUCT, Kind.QUOTIENT, Kind.MOVEMENT})


@dataclass(slots=True)
class Reading:
    """The result of reading a call.

    Attributes:
        link: the way from its root to its result; None if it is no function of one tensor.
        activation: the activation that it completes, if it is not affine.
        statistic: an operand is a statistic: an operation on it counts as no activation.
        identity: the call changes no number.
        remedy: the function has no meaning by itself; the remedy for the error message.
    """

    link: Link | None = None
    activation: Activation | None = None
    statistic: bool = False
    identity: bool = False
    remedy: str = ""


class Pointwise(Joins):
    """Reads the calls of a forward pass.

    Args:
        notes: the notes on tensors.
        turns: a falling function is read as a rising one of -x: this matters where signals are rectified.
    """

    def __init__(self, notes: Notes, turns: bool) -> None:
        super().__init__(notes)
        self._turns = turns

    def read_activation(
        self, row: Operation, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Reading | None:
        """An activation used unchanged, without a look at the operations before it; None for anything else.

        Most calls of most networks are of this form, or clamps that equal one.
        """
        if not args or row.kind not in (Kind.ACTIVATION, Kind.POINTWISE):
            return None
        root, rest = args[0], args[1:]
        if not isinstance(root, Tensor) or not root.requires_grad or isinstance(root, nn.Parameter):
            return None
        if root.is_complex():
            return Reading()
        step = call_step(function, rest, kwargs)
        if step is None:
            return None
        if row.kind is Kind.POINTWISE:
            note = self._notes.get(root)
            if note is not None and (note.link or note.statistic or note.total or note.log_totals):
                return None
            return self._canonical(root, shape_of(step, root.ndim))
        return self._complete(row, root, step, row.weight)

    def _canonical(self, begin: Tensor, shape: Shape | None) -> Reading | None:
        """PyTorch's activation that a function equals, if it is one with a kink at 0."""
        if shape is None or not shape.name:
            return None
        step, row = canonical_step(shape.name, shape.slope), CANONICAL[shape.name]
        return self._complete(row, begin, step, weight=False)

    def _complete(self, row: Operation, root: Tensor, step: Step, weight: bool) -> Reading:
        """One of PyTorch's activations, applied to `root`."""
        self._recent.append(root)
        activation = Activation(row.name, root, step, row.non_decreasing, row.non_negative, weight)
        return Reading(Link(root, step, complete=True), activation)

    def read(self, call: Call, of_statistic: bool = False) -> Reading:
        """The reading of a call of a pointwise operation; `of_statistic` reads a statistic like any other signal."""
        operands = self._operands(call)
        if not operands:
            return Reading()
        kind = call.operation.kind if call.operation is not None else Kind.POINTWISE
        if not of_statistic and any(self._note(operand).statistic for operand in operands):
            return Reading(statistic=True)
        if len(operands) == 1 and kind is not Kind.STEP:
            self._bring_along(operands[0])
        root = self._common_root(operands, kind)
        # Complex numbers do not rise or fall.
        if root is None or root.is_complex() or not self._is_elementwise(call, kind, operands, root):
            return Reading()
        times = sum(tensor is operands[0] for tensor in call.given)
        if kind in _LINEAR and (kind is Kind.SUM or len(operands) > 1 or times == 1) and not _divides(call, operands):
            reading = self._affine(call, kind, operands, root)
            if reading is not None:
                return reading
        step = self._whole(call, operands, root)
        if kind is Kind.STEP or not call.signals:
            return Reading(Link(root, step))
        if all(signal is root for signal in call.signals):
            shape = shape_of(step, root.ndim)
            if shape is not None and (shape.identity or (shape.keeps_positive and self._note(root).total)):
                return Reading(Link(root, step, affine=True), identity=True)
        return self._activation(call, kind, operands, root, times)

    def read_lookup(self, call: Call, places: Tensor) -> Link:
        """The link of the entries of a table at these places."""
        return Link(places, self._whole(call, [places], places))

    def read_choice(self, call: Call) -> Reading | None:
        """A maximum, a sum or the like of functions of one root that were put together; None for any other call.

        Raises:
            LookupError: it chooses between them in a form that is not known.
        """
        (value,) = call.given
        joined = Joined.of(self._note(value))
        if joined is None or not value.numel():
            return None
        combined = joined.combined(call)
        if not combined:
            if self._turns and joined.mixes(call) and not self.is_rectified(joined):
                raise LookupError
            return None
        if joined.is_residual(call):
            return None
        function, args, kwargs = joined.first_dim(call)
        self._notes.add(value).link = Link(joined.root, joined.stacked(combined), join=joined.link.join)
        whole = Call(call.operation, FirstOf(function), args, kwargs, call.signals, call.given)
        return self._activation(whole, Kind.POINTWISE, [value], joined.root, 1)

    def exponent(self, call: Call, activation: Activation) -> tuple[Tensor, float, float] | None:
        """v, a and c of a function that equals exp(a v + c), such as `pow(2, v)` or `expm1(v) + 1`; else None.

        None for PyTorch's own exponentials and for functions of these, which are known as such.
        """
        if activation.name or is_exponential(call) or any(self._note(signal).exponential for signal in call.signals):
            return None
        shape = shape_of(activation.function, activation.input.ndim)
        return None if shape is None or shape.exponent is None else (activation.input, *shape.exponent)

    def weighs(self, tensor: Tensor) -> bool:
        """Whether a factor is an exponential, possibly with a number added, and no other function of one."""
        note = self._note(tensor)
        if not note.exponential or note.statistic:
            return False
        shape = None if note.link is None else shape_of(note.link.step, tensor.ndim)
        found = None if shape is None else shape.exponential
        return shape is None or (found is not None and found.offset >= 0 and found.sign > 0)

    def divisor(self, call: Call) -> Tensor | None:
        """The divisor of a quotient if it is another function of a tensor than a multiple; else None."""
        other = None if call.name != "div" or call.kwargs.get("rounding_mode") else call.argument("other")
        if not isinstance(other, Tensor):
            return None
        self._bring_along(other)
        return other if self._tail(other) is not None else None

    def _is_elementwise(self, call: Call, kind: Kind, operands: Sequence[Tensor], root: Tensor) -> bool:
        """Whether the call combines its operands element by element, with constants that belong to the function."""
        shape = root.shape
        if any(operand.shape != shape for operand in operands):
            return False
        if complex in map(type, call.args):
            return False
        varying = {id(operand) for operand in operands}
        for constant in call.given if kind is not Kind.MOVEMENT else ():
            if constant.is_complex():
                return False
            if id(constant) in varying or constant.ndim == 0 or (constant.ndim == 1 and call.name in _BINNING):
                continue
            # An added tensor is a constant of the model, such as a bias; a mask computed from another tensor only
            # selects.
            if kind is Kind.SUM and self._note(constant).number is not None and _fits(constant.shape, shape):
                continue
            if kind is Kind.SUM or (constant.dtype is torch.bool and kind is not Kind.ACTIVATION):
                return False
            if kind is not Kind.ACTIVATION and not _fits(constant.shape, shape):
                return False
        if kind is Kind.MASK and call.name in ("max", "min"):
            return len(call.given) > 1  # else a reduction
        if kind is Kind.MASK and call.name in ("where", "masked_fill", "index_put", "assignment"):
            return any(tensor.dtype is torch.bool and id(tensor) in varying for tensor in call.given)
        return True

    def _affine(self, call: Call, kind: Kind, operands: Sequence[Tensor], root: Tensor) -> Reading | None:
        """A step of an affine chain, or a multiple of an activation; None for a part of one written by hand."""
        shifts = kind is Kind.SUM and (len(operands) == 1 and len(tuple(_numbers(call))) > 0)
        if len(operands) == 1:
            operand = operands[0]
            tail = self._tail(operand)
            # A number belongs to the activation that it multiplies; a tensor is a scale of the model.
            numbers = not any(tensor is not operand and (tensor.ndim or _is_of_model(tensor)) for tensor in call.given)
            doubled = kind is Kind.SUM and sum(tensor is operand for tensor in call.given) > 1
            belongs = tail is not None and numbers and (not tail.complete or (not doubled and self._is_recent(tail)))
            if belongs and kind is not Kind.MOVEMENT and not self._is_multiple(call, kind, tail, operand):
                return None
            link = self._link(operand)
            remedy = "" if link is None else link.remedy
            return Reading(
                Link(operand, self._whole(call, operands, operand), True, shifts, False, numbers, remedy=remedy)
            )
        if kind in (Kind.PRODUCT, Kind.QUOTIENT):
            return None
        paths = [chains.links_to(operand, root, self._link) for operand in operands]
        affine = [all(link.affine for link in path) for path in paths]
        shifted = any(link.shifted for path in paths for link in path)
        if all(affine):
            return Reading(Link(root, self._whole(call, operands, root), affine=True, shifted=shifted))
        if call.name == "add" and self.is_residual(operands, root):
            return Reading()
        return None

    def _is_multiple(self, call: Call, kind: Kind, tail: Link | None, operand: Tensor) -> bool:
        """Whether a call multiplies a ReLU, or a leaky one, by a positive number.

        As relu(a x) = a relu(x), this is no other activation. The deconvnet, which passes signal unchanged through an
        activation, would lose the factor.
        """
        if tail is None or not tail.complete or kind not in (Kind.PRODUCT, Kind.QUOTIENT):
            return False
        shape = shape_of(tail.step, operand.ndim)
        factor = shape_of(self._whole(call, [operand], operand), operand.ndim)
        return shape is not None and shape.name in _HOMOGENEOUS and factor is not None and not factor.falls

    def _activation(self, call: Call, kind: Kind, operands: Sequence[Tensor], root: Tensor, times: int) -> Reading:
        row, near = call.operation, root
        if kind is Kind.ACTIVATION and len(operands) == 1 and times == 1 and row is not None:
            step = self._whole(call, operands, root)
            return self._complete(row, root, step, row.weight)
        if len(operands) == 1:  # a multiple of an activation, or another function of one
            near = self._before_activation(root)
        begin, nearest = near, self._whole(call, operands, near)
        if len(operands) == 1:
            canonical = self._canonical(near, shape_of(nearest, near.ndim))
            if canonical is not None:
                return canonical
            begin = chains.beginning(near, self._link)
        begin, step, shape = self._upright(call, operands, root, begin)
        canonical = self._canonical(begin, shape)
        if canonical is not None:
            return canonical
        if shape is not None and shape.affine and all(self._tail(operand) is None for operand in operands):
            return Reading(Link(begin, step, affine=True))  # such as exp(x - x)
        remedy = self._remedy(call, kind, operands, shape, self._note(begin))
        link = Link(near, nearest, remedy=remedy)
        if shape is not None and shape.falls and self._turns:
            # As relu(-x) is ReLU of -x, any falling function is a rising function of -x.
            begin, step = -begin, Step(chains.same, (Slot((step, _NEGATIVE)),), {})
            shape = shape_of(step, begin.ndim)
        return Reading(link, _by_hand(begin, step, shape), remedy=remedy)

    def _upright(
        self, call: Call, operands: Sequence[Tensor], root: Tensor, begin: Tensor
    ) -> tuple[Tensor, Step, Shape | None]:
        """The whole function and its root; for a falling function, such as relu(-x) by hand, the root is -x."""
        step = self._whole(call, operands, begin)
        shape = shape_of(step, begin.ndim)
        if shape is None or not shape.falls or begin is root:
            return begin, step, shape
        for later in reversed([link.root for link in chains.links_to(root, begin, self._link)[:-1]] + [root]):
            if later is None or not all(link.affine for link in chains.links_to(later, begin, self._link)):
                break
            if all(self._follows(operand, later) for operand in operands):
                other = self._whole(call, operands, later)
                other_shape = shape_of(other, later.ndim)
                if other_shape is not None and not other_shape.falls:
                    return later, other, other_shape
        return begin, step, shape

    def _remedy(self, call: Call, kind: Kind, operands: Sequence[Tensor], shape: Shape | None, begin: Note) -> str:
        """The reason for which the function has no meaning by itself; empty if it has one."""
        own = call.operation.remedy if call.operation is not None else ""
        own = own or (_POLE if (exponent_of(call) or 0) < 0 else "")
        if (
            kind is Kind.POINTWISE
            and shape is not None
            and shape.rises_above
            and (begin.non_negative or begin.statistic)
        ):
            return ""  # a logarithm of energies
        if shape is not None and not shape.finite:
            return own or _POLE
        if shape is not None and shape.exponent is not None:
            return own or _EXPONENTIAL
        inner = self._link(operands[0]) if len(operands) == 1 else None
        if own or _divides(call, operands):
            # A function computed from it is an activation: log(1 + exp(x)), 1 / (1 + exp(-x)).
            joined = inner is not None and inner.join is not None
            return "" if joined or self._tail(operands[0]) is not None or len(operands) > 1 else own or _POLE
        if shape is not None and shape.exponential is not None:
            return ""  # exp(x) - 1
        return inner.remedy if inner is not None and kind in _LINEAR else ""


_NEGATIVE = Step(torch.neg, (ROOT,), {})


def is_exponential(call: Call) -> bool:
    """Whether a call is one of PyTorch's exponentials."""
    row = call.operation
    return row is not None and row.even and row.weight


def _is_of_model(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _divides(call: Call, operands: Sequence[Tensor]) -> bool:
    """Whether an operand is a divisor."""
    if call.operation is None or call.operation.kind is not Kind.QUOTIENT:
        return False
    divisor = call.argument("other")
    return any(divisor is operand for operand in operands) or call.kwargs.get("rounding_mode") is not None


def _by_hand(root: Tensor, step: Step, shape: Shape | None) -> Activation:
    if shape is None:
        return Activation("", root, step, False, False, False)
    return Activation("", root, step, shape.non_decreasing, shape.non_negative, shape.gate)


def _fits(small: torch.Size, large: torch.Size) -> bool:
    """Whether a tensor can be broadcast to a shape."""
    sizes = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(one in (1, other) for one, other in sizes)


_POLE = getattr(operation_of(torch.reciprocal), "remedy", "")
_EXPONENTIAL = getattr(operation_of(torch.exp), "remedy", "")


def _numbers(call: Call) -> Sequence[Any]:
    """The numbers among the operands of a sum, as such or as tensors without dimensions."""
    given = [*call.args[:2], *(value for name, value in call.kwargs.items() if name in ("other", "input"))]
    signals = {id(signal) for signal in call.signals}
    return [v for v in given if isinstance(v, (int, float)) or (isinstance(v, Tensor) and id(v) not in signals)]
