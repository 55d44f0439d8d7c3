"""A function mode that reads: it notes properties of each tensor, and finds activations of several pointwise calls.

See `chains` for activations that are written by hand. Sums of squares, magnitudes and exponentials are statistics.
Where a statistic is a divisor, or is under a root, its operands count as no activation. Exponentials over a statistic
are a softmax; a square or a magnitude over a statistic is an activation, which is normalised. A norm or a softmax
written by hand is then treated as PyTorch's own.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import UnseenOperationError
from ..observing import describe, running_module
from .activation import Activation
from .calls import Call, exponent_of, with_tensors
from .joining import is_of_one
from .kinds import Kind
from .letters import factors, is_squared, mixed_entries, summed
from .log_totals import note_log_totals
from .moving import note_moved
from .noting import NotingMode, first_tensor
from .pointwise import Reading, is_exponential
from .regrouping import note_factors, regrouped
from .tensors import map_tensors
from .totals import note_total


class ReadingMode(NotingMode):
    """Computes pointwise calls and reductions according to their reading; arguments as for `FunctionalMode`."""

    def reduced(self, call: Call, compute: Callable[[], Any]) -> Any:
        """A call of an operation that sums or chooses; `compute` computes it if no reading does."""
        result = self.chosen(call)
        if result is not None:
            return result
        contracts = call.operation is not None and call.operation.kind is Kind.CONTRACTION
        if call.name == "einsum":
            with self.seeing():
                if (entries := factors(call)) is not None:
                    return reduce(torch.mul, entries)
                if (total := summed(call)) is not None:
                    return total
        if contracts and self.rectifies:
            self.check_masks(call)
        result = compute()
        self._note_statistic(call, result)
        note_total(self, call, result)
        if contracts and not call.signals:
            self.note_selected(result, call.given)
        return result

    def check_masks(self, call: Call) -> None:
        """Refuse a product of a signal with a matrix or a kernel that was computed from it by comparison."""
        if not self.is_gradient and self.pointwise.meets_own_mask(call):
            self.refuse_own_mask(call)

    def chosen(self, call: Call) -> Any:
        """The result of a reduction of functions of one tensor to one function; None for any other call."""
        if len(call.given) != 1:
            return None
        value = call.given[0]
        if is_of_one(call, self.pointwise.root(value)):
            return self._of_one(call, value)
        try:
            reading = self.pointwise.read_choice(call)
        except LookupError:
            self.refuse_choice(call)
        if reading is None or reading.activation is None:
            return None
        result = call.run()
        values = first_tensor(result)
        if not reading.activation.name:
            reading.activation.value = values.detach().reshape(reading.activation.input.shape)
        whole = self.as_activation(call, reading, reading.activation)
        if whole.shape != values.shape:
            flat, whole = whole, whole.reshape(values.shape)
            note_moved(self.notes, (flat, values.shape), {}, Tensor.reshape, whole)
        return whole if isinstance(result, Tensor) else type(result)((whole, *result[1:]))

    def refuse_own_mask(self, call: Call) -> NoReturn:
        """Refuse a product of a signal with values that it selects, in a form that is not known."""
        raise UnseenOperationError(
            f"{describe(self.model, running_module(self.model))} computes an activation with {call.name}, which "
            "multiplies a tensor with a mask or with table entries that it selects itself: write it element by "
            "element, with torch.nn.functional, torch.where or a table of one dimension"
        )

    def refuse_choice(self, call: Call) -> NoReturn:
        """Refuse an activation in a form that is not known."""
        raise UnseenOperationError(
            f"{describe(self.model, running_module(self.model))} computes an activation with {call.name}, which "
            "chooses between functions of one tensor: write it with torch.nn.functional, torch.maximum or torch.where"
        ) from None

    def _of_one(self, call: Call, value: Tensor) -> Any:
        """A combination of nothing moves the values; the norm of a number is its magnitude."""
        result = call.run()
        if call.operation is not None and call.operation.kind is Kind.STATISTIC:
            if 0 in (*call.args[1:2], call.kwargs.get("p"), call.kwargs.get("ord")):
                return result  # counts the numbers that are not 0
            with self.seeing():
                return value.abs().reshape(result.shape)
        note_moved(self.notes, call.args, call.kwargs, call.function, result)
        return result

    def _note_statistic(self, call: Call, result: Any) -> None:
        if _is_operand(result, call):
            return
        notes = [self.note(signal) for signal in call.signals]
        squared = call.operation is not None and call.operation.kind is Kind.CONTRACTION and is_squared(call)
        if isinstance(result, Tensor) and notes and (squared or all(n.statistic or n.plain is not None for n in notes)):
            noted = self.noted(result)
            noted.plain = partial(self.plainly, call)
            noted.statistic = squared or all(n.statistic or n.log_totals >= 0 for n in notes)
            noted.exponential = all(note.exponential for note in notes)
        elif call.operation is not None and call.operation.kind is Kind.CONTRACTION and len(notes) == 2:
            if isinstance(result, Tensor) and (mixed := mixed_entries(call, result)) is not None:
                self.noted(result).mixed = mixed
        elif len(notes) == 1 and notes[0].mixed is not None:
            self.note_squares(call, notes[0].mixed, result)

    def as_read(self, call: Call) -> Any:
        """A pointwise call, computed according to its reading."""
        if call.name == "exp" and len(call.signals) == 1:
            note = self.note(call.signals[0])
            if note.log_totals < 0 and not note.statistic:
                return self.softmax_by_hand(call)
        reading = self.pointwise.read(call)
        if reading.activation is not None and not self.is_gradient:
            exponent = self.pointwise.exponent(call, reading.activation)
            if exponent is not None:
                value, rate, shift = exponent
                with self.seeing():
                    return (value * rate + shift).exp()
        if reading.activation is None and not self.is_gradient and (product := regrouped(self, call)) is not None:
            return product
        if reading.link is None:
            name = call.name
            if name in ("assignment", "index_put") and self.rectifies:
                self.warn_of_assignment(call)
            elif name == "mul" and any(map(self.pointwise.is_selected, call.given)):
                self.check_masks(call)
            elif self.rectifies and not reading.statistic and (divisor := self.pointwise.divisor(call)) is not None:
                with self.seeing():  # a gate such as x / (1 + exp(-g)): the reciprocal completes its activation
                    return call.argument("input") * divisor.reciprocal()
        return self._read(call, reading)

    def warn_of_assignment(self, call: Call) -> None:
        """Warn of a masked assignment: it may be an activation, which takes more calls than are read here."""
        notes = [(tensor, self.note(tensor)) for tensor in call.given]
        if any(note.places or (tensor.dtype is torch.bool and note.link is not None) for tensor, note in notes):
            warnings.warn(
                f"{describe(self.model, running_module(self.model))} assigns values selected by a mask, which "
                "is differentiated unchanged: if it is an activation, write it with torch.where",
                stacklevel=2,
            )

    def weighed(self, call: Call) -> Any:
        """The result of a call; an exponential that is a factor counts as a weight, and as no activation."""
        swap = {}
        kind = None if call.operation is None else call.operation.kind
        if kind in _DIVIDING or (kind in _MULTIPLYING and len(call.signals) > 1):
            for signal in call.signals:
                note = self.note(signal)
                if note.exponential and note.plain is not None and self.pointwise.weighs(signal):
                    swap[id(signal)] = note.plain()
        args, kwargs = with_tensors(call.args, call.kwargs, swap) if swap else (call.args, call.kwargs)
        return self.plain(call.function, args, kwargs)

    def softmax_by_hand(self, call: Call) -> Tensor:
        """The result of exponentials that sum to 1, or of an exponential that scales such a sum."""
        result = self.plainly(call)
        noted = self.noted(result)
        noted.plain, noted.exponential = lambda: result, True  # the call would keep the exponentials alive
        return result

    def note_logarithm(self, call: Call, result: Tensor) -> None:
        """Note a log-softmax, or the logarithm of a softmax's denominator: its exponential is not an activation."""
        if len(call.signals) == 1:
            noted = self.noted(result)
            noted.plain = partial(self.plainly, call)
            if call.name == "logsumexp":
                noted.log_totals, noted.statistic = 1, True
            else:
                noted.log_totals, noted.logits = -1, call.signals[0]

    def _read(self, call: Call, reading: Reading) -> Any:
        if reading.statistic:
            result = self.of_statistic(call)
            if isinstance(result, Tensor):
                note_log_totals(self, call, result)
            return result
        activation = reading.activation
        if activation is None:
            result = self.plain(call.function, call.args, call.kwargs) if reading.identity else self.otherwise(call)
        else:
            if not activation.name or (call.operation is not None and call.operation.own):
                with torch.no_grad():
                    activation.value = first_tensor(call.run())
            result = self.activation(activation, call, reading)
        if isinstance(result, Tensor):
            self.note_link(reading, result)
            self._note_plain(call, result)
            note_log_totals(self, call, result)
            note_total(self, call, result)
            if activation is None and not self.is_gradient:
                note_factors(self, call, result)
            if reading.link is None and not call.signals:
                self.note_selected(result, call.given)
        elif call.name == "where":  # of a condition alone
            self.note_places(call.name, call.given[0], result)
        return result

    def as_activation(self, call: Call | None, reading: Reading, activation: Activation) -> Any:
        """An activation used unchanged."""
        result = self.activation(activation, call, reading)
        self.note_link(reading, result)
        return result

    def _note_plain(self, call: Call, result: Tensor) -> None:
        """Note the values of a result that count as no activation."""
        if not result.requires_grad or _is_operand(result, call):
            return
        count = len(call.signals)
        if count == 1 and (mixed := self.note(call.signals[0]).mixed) is not None:
            if call.name in ("mul", "div"):
                self.note_squares(call, mixed, result)
            elif call.name == "add":
                self.noted(result).mixed = mixed.expand_as(result)
        notes = [self.note(signal) for signal in call.signals]
        if _is_even(call) or (notes and all(note.plain is not None for note in notes)):
            noted = self.noted(result)
            noted.plain = partial(self.plainly, call)
            noted.exponential = is_exponential(call) or any(note.exponential for note in notes)
            adds = call.name == "add" and count > 1 and not call.kwargs
            if adds and self.note(result).link is None:
                self.noted(result).statistic = True  # a sum of squares of several tensors

    def of_statistic(self, call: Call) -> Any:
        """The result of a call on statistics: a statistic; a signal divided by a statistic stays a signal."""
        row = call.operation
        several = row is not None and row.kind in (Kind.PRODUCT, Kind.QUOTIENT) and len(call.signals) > 1
        notes = [self.note(signal) for signal in call.signals]
        scaled = row is not None and row.kind is Kind.PRODUCT and all(note.statistic for note in notes)
        if several and is_share(self, call) and not scaled:
            return self.softmax_by_hand(call)
        if several and any(note.plain is not None and not note.statistic for note in notes):
            return self.otherwise(call)  # a square or a magnitude is divided: it is an activation, also in the divisor
        by_number = row is not None and row.kind is Kind.QUOTIENT and row.name == "div" and len(notes) == 1
        if row is None or row.kind in (Kind.SUM, Kind.PRODUCT, Kind.MOVEMENT, Kind.MASK) or by_number:
            result = self.otherwise(call)
            self._note_statistic(call, result)
            return result
        result = self.plainly(call)
        if call.name == "sqrt" and not self.is_gradient:
            _flatten_at_zero(result)
        if all(note.statistic or note.plain is not None for note in notes):
            self.noted(result).statistic = True
        return result

    def activation(self, activation: Activation, call: Call | None, reading: Reading) -> Any:
        """An activation, computed by its rule."""
        raise NotImplementedError

    def otherwise(self, call: Call) -> Any:
        """A pointwise call that is no activation."""
        kind = None if call.operation is None else call.operation.kind
        if (
            not self.is_gradient
            and kind in (Kind.ACTIVATION, Kind.POINTWISE)
            and call.name not in _LENGTHS
            and any(map(_is_complex, call.given))
        ):
            raise UnseenOperationError(
                f"{describe(self.model, running_module(self.model))} computes {call.name} of complex numbers, which "
                "have no sign that an activation could pass by: write it with their real and imaginary parts"
            )
        if not self.is_gradient and kind is Kind.ACTIVATION and len(call.signals) > 1:
            place = describe(self.model, running_module(self.model))
            raise UnseenOperationError(f"{place} computes {call.name} with {OF_SEVERAL}")
        result = self.weighed(call)
        if call.name == "abs" and call.given[0].is_complex():
            self.noted(result).statistic = True  # a length, as is the root of a sum of squares
        steps = kind is Kind.STEP and not call.given[0].is_complex()
        return map_tensors(Tensor.detach, result) if steps else result


# In these, exponentials are weights: of other signals, or of each other.
_MULTIPLYING = frozenset({Kind.PRODUCT, Kind.QUOTIENT, Kind.CONTRACTION})
_DIVIDING = frozenset({Kind.STATISTIC, Kind.NORM})
# Of PReLU, the activation with a parameter that may be a signal.
OF_SEVERAL = "a slope that is computed from the input: write it as F.relu(x) - slope * F.relu(-x)"
# Of complex numbers, they lead to lengths and products.
_LENGTHS = frozenset({"abs", "square", "pow", "reciprocal", "sqrt", "rsqrt"})
_is_complex = Tensor.is_complex


def _is_even(call: Call) -> bool:
    """Whether it squares, or f(x) = f(-x) or an exponential: sums of its results are statistics."""
    row = call.operation
    if row is None or (call.signals and call.signals[0].is_complex()):
        return False
    return row.even or exponent_of(call) == 2 or (row.kind is Kind.PRODUCT and _is_repeated(call.signals))


def is_share(mode: NotingMode, call: Call) -> bool:
    """Whether all operands are statistics or exponentials, so that a quotient of them is a share, as in a softmax."""
    return all(mode.note(signal).statistic or mode.note(signal).exponential for signal in call.signals)


def _flatten_at_zero(root: Tensor) -> None:
    """Let the root of a sum of squares have the gradient 0 at 0, as other norms have: its own is infinite."""
    if root.grad_fn is not None:
        zero = root.detach() == 0
        root.grad_fn.register_hook(
            lambda below, _: tuple(None if one is None else one.masked_fill(zero, 0.0) for one in below)
        )


def _is_operand(result: Any, call: Call) -> bool:
    """Whether a call did nothing, such as a cast to the type that its operand has."""
    return any(result is signal for signal in call.signals)


def _is_repeated(signals: Sequence[Tensor]) -> bool:
    """Whether both factors are the same tensor."""
    return len(signals) == 2 and signals[0] is signals[1]
