"""The kinds of operations, and a row of the table of operations."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor


class Kind(Enum):
    """The kind of an operation; the value describes how its relevance passes under LRP.

    >>> from plugin.operations import Kind
    >>> Kind.ACTIVATION.value
    'activation: R unchanged, m f(x) / x'
    """

    QUESTION = "a query about a tensor: computes no values"
    STATE = "changes a property of a tensor, not its values"
    CREATION = "a constant: its values depend on no signal"
    MOVEMENT = "moves values; relevance moves with them"
    SUM = "linear in all signals, element by element; a constant added to a linear layer is its bias"
    LINEAR = "linear in its signals: relevance in proportion to the contributions (LRP-0)"
    SELECTION = "chooses among values: relevance goes to the chosen"
    MASK = "chooses between values element by element; with a mask of the same tensor, an activation"
    ACTIVATION = "activation: R unchanged, m f(x) / x"
    POINTWISE = "element by element: R unchanged, m f(x) / x; a part of an activation written by hand"
    STEP = "element by element, without a derivative: a constant, or a part of an activation"
    PRODUCT = "all to the signal if the other factor is a weight, else half to each; linear if one is constant"
    FACTORS = "multiplies values along a dimension: an equal share to each"
    CONTRACTION = "a linear layer if one factor is constant; else as a product"
    QUOTIENT = "a product with the reciprocal, if the divisor is a constant, a weight, a statistic or an activation"
    CONVOLUTION = "linear layer: the composite's rule"
    TRANSPOSED_CONVOLUTION = "linear layer: the composite's rule; transposed"
    MATRIX_PRODUCT = "linear layer: the composite's rule; of the last dimension"
    BILINEAR = "a linear layer if one input is constant; else half to each"
    BATCH_NORM = "folded into the linear layer before it, else a linear layer of its own"
    NORM = "linear, the deviation held constant"
    STATISTIC = "a weight; linear if it is itself explained"
    SOFTMAX = "a weight; its gradient (AttnLRP), or held constant (CP-LRP)"
    LOG_SOFTMAX = "at the end of a network, the logits below it are explained"
    MAX_POOLING = "relevance goes to the maximum"
    SAMPLING = "linear in the first argument; the sampling positions are held constant"
    DROPOUT = "linear; no effect in eval mode"
    EMBEDDING = "the beginning of a network that reads token ids"
    COMPOSITE = "as its component operations"
    UNRULED = "no pointwise function: no rule of LRP; its gradient elsewhere"

    __hash__ = object.__hash__  # in C, as kinds are looked up for every operation


# Kinds of operations that may be a part of an activation written by hand.
POINTWISE_KINDS = (
    Kind.SUM, Kind.MASK, Kind.ACTIVATION, Kind.POINTWISE, Kind.STEP, Kind.PRODUCT, Kind.QUOTIENT,
)  # fmt: skip


# Kinds of operations for which the rule of LRP differs from the gradient.
RULED_KINDS = (
    Kind.ACTIVATION, Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION, Kind.MATRIX_PRODUCT, Kind.BATCH_NORM, Kind.NORM,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Operation:
    """One row of the table of operations.

    Attributes:
        name: PyTorch's name.
        kind: the kind.
        functions: its spellings: functions, methods, operators.
        arguments: their names, in order, as far as the engine asks for them.
        linear_in: the argument in which an operation is linear, if it is linear in some of its tensors only.
        first_only: of several tensors, the first gives the values; the others give the shape or the type.
        keeps_signs: signals without negative entries give a result without negative entries.
        non_negative: its result has no negative entry.
        adds_constants: it may add a constant, which keeps relevance.
        non_decreasing: its derivative is nowhere negative.
        weight: its result is the proportion of a signal that passes.
        even: f(x) = f(-x) or an exponential: sums of it are statistics.
        nodes: its nodes in autograd's graph, by the name without "Backward".
        parts: computes the same in operations that have rules, with the same arguments.
        contains_activations: activations are among the parts.
        keeps_order: if the shape stays the same, it moves nothing.
        joins: it puts a sequence of tensors together.
        pads: it puts numbers around the values, unless it repeats these.
        identity: it changes no value; only the type or the place in memory.
        training: the argument that makes it random, or dependent on the rest of the batch, with its default.
        statistics: the arguments that it overwrites if `training` is true.
        number: the value of every entry that it creates.
        shape_only: in place, it changes the shape of one object, not memory that others share.
        operator: the operator of this name takes these arguments, where functions of one name differ.
        remedy: the remedy for an operation without a rule of LRP.
        own: a user's operation, which is described, not inspected.
    """

    name: str
    kind: Kind
    functions: tuple[Any, ...] = ()
    arguments: tuple[str, ...] = ()
    linear_in: tuple[str, ...] = ()
    first_only: bool = False
    keeps_signs: bool = False
    non_negative: bool = False
    adds_constants: bool = False
    non_decreasing: bool = False
    weight: bool = False
    even: bool = False
    nodes: tuple[str, ...] = ()
    parts: Callable[..., Any] | None = None
    contains_activations: bool = False
    identity: bool = False
    joins: bool = False
    pads: bool = False
    keeps_order: bool = False
    training: tuple[str, bool] | None = None
    statistics: tuple[str, ...] = ()
    number: float | None = None
    shape_only: bool = False
    operator: bool = False
    remedy: str = ""
    own: bool = False

    def argument(self, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, default: Any = None) -> Any:
        """One argument of a call, given by position or by name."""
        position = self.arguments.index(name)
        return args[position] if len(args) > position else kwargs.get(name, default)

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, as far as the engine asks for them."""
        return dict(zip(self.arguments, args, strict=False)) | kwargs

    def created(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
        """The number that all entries of a new tensor are, if it is known."""
        value = self.argument(args, kwargs, "fill_value") if "fill_value" in self.arguments else self.number
        return float(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True)
class Written:
    """The copying form of an operation without a form out of place, such as an assignment: overwrites a copy."""

    function: Callable[..., Any]

    def __call__(self, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        copy = value.clone()
        self.function(copy, *args, **kwargs)
        return copy
