"""What the forward pass of LRP leaves for its backward pass: layers with their rules, and what absorbs relevance."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ..kernels.blocks import in_blocks
from ..kernels.linear import LinearMap, MatrixProduct
from ..kernels.tracing import is_tracing
from ..rules.lrp import LinearOperation, Rule, Term, pass_down, per_example
from .backward import backward
from .operations import with_arguments
from .tensors import TensorTable, hooked

Derived = TypeVar("Derived")
_HALF = (torch.float16, torch.bfloat16)


@dataclass(eq=False)
class LayerRecord:
    """One linear layer at work, from the forward pass to the backward pass.

    Attributes:
        name, module: the layer; of the parameter if it has one, else of the module that was running.
        linear: its map; `weight` and `bias` are as used, with a following batch norm folded in.
        reads_input: the input is an input of the model.
        non_negative: the input is known to have no negative entry.
        rectified: the output is max(W x + b, 0), the ReLU that follows being part of the layer.
        rule: set when the forward pass is over and positions are known.
        terms: the rule's terms, kept where several backward passes follow (`repeated`).
        account: whether the following are noted.
        entered, left, to_bias: what the last backward pass brought, per example `(N,)`.
    """

    name: str
    module: nn.Module
    linear: LinearMap
    weight: Tensor
    bias: Tensor | None
    reads_input: bool
    non_negative: bool
    cached: Callable[[str, Callable[[], Tensor]], Tensor]
    rectified: bool = False
    rule: Rule | None = None
    terms: Sequence[Term] | None = None
    account: bool = False
    repeated: bool = False
    entered: Tensor | None = None
    left: Tensor | None = None
    to_bias: Tensor | None = None

    def changed(
        self,
        weight: Tensor,
        bias: Tensor | None,
        cached: Callable[[str, Callable[[], Tensor]], Tensor],
        rectified: bool = False,
    ) -> "LayerRecord":
        """The same layer with what follows it: a batch norm in weight and bias, or a ReLU."""
        return LayerRecord(
            self.name, self.module, self.linear, weight, bias, self.reads_input, self.non_negative, cached, rectified
        )

    def pass_down(self, value: Tensor, output: Tensor, multiplier: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(m, None) or (None, R) at the input for m at the output, by the layer's rule."""
        assert self.rule is not None
        weight, bias = self.weight, self.bias
        if value.dtype in _HALF or output.dtype in _HALF:  # they differ under autocast
            value, output, multiplier, weight = value.float(), output.float(), multiplier.float(), weight.float()
            bias = None if bias is None else bias.float()
        operation = LinearOperation(
            self.linear, value, output, weight, bias, self.non_negative, self.rectified, self.cached
        )
        terms = self.terms
        if terms is None and self.rule.proportional:
            terms = tuple(self.rule.terms(operation))
            if self.repeated:
                terms = self.terms = tuple(term.prepared(output) for term in terms)
        passage = pass_down(self.rule, operation, terms or (), multiplier, self.account)
        if self.account:
            self.entered = per_example((output * multiplier).double())
            below = passage.relevance if passage.multiplier is None else value * passage.multiplier
            assert below is not None
            self.left, self.to_bias = per_example(below.double()), passage.to_bias
        return passage.multiplier, passage.relevance


class LinearLayer(torch.autograd.Function):
    """y = W x + b forwards; backwards the multiplier at x, and the relevance itself at a zero-valued carrier."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, carrier: Tensor | None, compute: Callable[[], Tensor], record: LayerRecord
    ) -> Tensor:
        output = compute()
        ctx.save_for_backward(value, output)
        ctx.record, ctx.carried = record, carrier is not None
        return output

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        value, output = ctx.saved_tensors
        below, relevance = ctx.record.pass_down(value, output, multiplier)
        if relevance is not None and not ctx.carried:
            # Inside the network relevance travels as a multiplier; where nothing fired there is none to multiply.
            below, relevance = torch.where(value == 0, 0.0, relevance / torch.where(value == 0, 1.0, value)), None
        return (
            None if below is None else below.to(value.dtype),
            None if relevance is None else relevance.to(value.dtype),
            None,
            None,
        )


def descend(output: Tensor, selections: Sequence[Tensor]) -> Sequence[Tensor]:
    """Pass the matrix products that end a network, whose weights are its largest, with all targets together.

    Args:
        output: what the network returned `(N, ...)`.
        selections: of each target the values that were selected from it `(N,)`.

    Returns:
        Of each target values whose sum has the same signal below these products; the selections if there are none.

    Raises:
        ValueError: a selection does not depend on the output.
    """
    multipliers = None
    while _is_shared_product(output):
        node: Any = output.grad_fn
        if multipliers is None:
            signals = [backward(selected, [output], keep_graph=True)[0] for selected in selections]
            multipliers = torch.stack(cast(list[Tensor], signals))
        value, computed = node.saved_tensors
        with torch.no_grad():
            below, _ = node.record.pass_down(value, computed, multipliers)
        output, multipliers = value, below.to(value.dtype)
    return selections if multipliers is None else [output * multiplier for multiplier in multipliers]


def _is_shared_product(output: Tensor) -> bool:
    """Whether a matrix product computed it, inside the network, by a rule that many multipliers can pass at once."""
    node: Any = output.grad_fn
    if getattr(type(node), "_forward_cls", None) is not LinearLayer:
        return False
    # Who hooked the output expects to see one signal after the other.
    is_private = not node.carried and not output._backward_hooks
    return is_private and isinstance(node.record.linear, MatrixProduct) and node.record.rule.proportional


class ActivationLayer(torch.autograd.Function):
    """y = f(x) forwards, m * f(x) / x backwards: relevance passes unchanged."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, function: "partial[Tensor]", repeated: bool) -> Tensor:
        result = function(value)
        ctx.save_for_backward(value, result)
        ctx.function, ctx.repeated, ctx.ratio = function, repeated, None
        return result

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor, None, None]:
        if ctx.ratio is not None:
            return multiplier * ctx.ratio, None, None
        value, result = ctx.saved_tensors
        ratio = partial(_ratio, _slope_at_zero(ctx.function, value))
        if ctx.repeated:
            ctx.ratio = ratio(value, result)
            return multiplier * ctx.ratio, None, None
        return ratio(value, result, multiplier), None, None


def _ratio(slope: Tensor | float, value: Tensor, result: Tensor, *factors: Tensor) -> Tensor:
    """f(x) / x, its limit at 0, times the factors."""
    if isinstance(slope, Tensor):
        return math.prod(factors, start=torch.where(value == 0, slope, result / value))

    def compute(ratio: Tensor, value: Tensor, result: Tensor, *factors: Tensor) -> None:
        # Finite but for 0 / 0, and f(0) / 0 where f(0) is not 0. To ask for zeros takes six times as long.
        torch.div(result, value, out=ratio).nan_to_num_(slope, slope, slope)
        for factor in factors:
            ratio.mul_(factor)

    return in_blocks(compute, value, result, *factors)


def _slope_at_zero(function: "partial[Tensor]", like: Tensor) -> Tensor | float:
    """f'(0) if f(0) = 0, else 0, as relevance at x = 0 cannot be written as a multiple of x.

    A tensor if some of the values have a bound of their own, and where operations are recorded, which reads no value.
    """
    of_numbers, args, kwargs = function.args
    is_constant = not any(isinstance(argument, Tensor) for argument in (*args, *kwargs.values()))
    if is_constant and not is_tracing():
        return _known_slope(of_numbers, args, tuple(kwargs.items()), like.dtype, like.device)
    return _slope(function, like)


@lru_cache(maxsize=256)
def _known_slope(
    function: Callable[..., Tensor],
    args: tuple[Any, ...],
    kwargs: tuple[tuple[str, Any], ...],
    dtype: torch.dtype,
    device: torch.device,
) -> float:
    """Of a pointwise function of numbers; once, as on a GPU it has to be waited for."""
    return float(_slope(with_arguments(function, args, dict(kwargs)), torch.zeros((), dtype=dtype, device=device)))


def _slope(function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    with torch.enable_grad():
        origin = like.new_zeros((1,) * like.ndim, requires_grad=True)
        result = function(origin)
        if result.numel() > 1:
            origin = origin.detach().expand_as(result).requires_grad_()
            result = function(origin)
        (slope,) = torch.autograd.grad(result.sum(), origin)
    return torch.where(result.detach() == 0, slope, 0.0)


class NormalisationLayer(torch.autograd.Function):
    """y = (x - mean) / deviation over the last dimensions, linear in x as the deviation is held constant.

    Backwards (m - mean of m) / deviation: the mean is linear, and nothing but the deviation need be kept.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, dims: list[int], epsilon: float, centre: bool = True) -> Tensor:
        if centre and not is_tracing():  # in one pass over memory, and rounded as in the model
            result, _, inverse = torch.native_layer_norm(value, value.shape[dims[0] :], None, None, epsilon)
        else:
            centred = value - value.mean(dims, keepdim=True) if centre else value
            inverse = (centred.square().mean(dims, keepdim=True) + epsilon).rsqrt()
            result = centred * inverse
        ctx.save_for_backward(inverse)
        ctx.dims, ctx.centre = dims, centre
        return result

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        scaled = multiplier * inverse.to(multiplier.dtype)
        below = scaled - scaled.mean(ctx.dims, keepdim=True) if ctx.centre else scaled
        return below, None, None, None


@dataclass(eq=False)
class Absorption:
    """An operation that is no layer, and may keep relevance: for a constant that it adds, as a bias does, mostly.

    Attributes:
        name: the operation, and where it ran.
        entered, left: what the backward pass brought to its results, and took on from there; sums over everything.
        magnitude: the sum of what entered, without signs.
    """

    name: str
    entered: float = 0.0
    left: float = 0.0
    magnitude: float = 0.0
    _resolution: float = 0.0

    def watch_signal(self, signal: Tensor) -> Tensor:
        """The same tensor, for the operation to read."""
        return hooked(signal, partial(self._note, signal.detach(), False))

    def watch_result(self, result: Tensor) -> None:
        """A tensor that the operation computed."""
        self._resolution = torch.finfo(result.dtype).eps
        result.register_hook(partial(self._note, result.detach(), True))

    def _note(self, values: Tensor, result: bool, multiplier: Tensor) -> None:
        # Masked attention scores are -inf, and receive nothing.
        relevance = torch.where(multiplier == 0, 0.0, values.double() * multiplier)
        if result:
            self.entered += float(relevance.sum())
            self.magnitude += float(relevance.abs().sum())
        else:
            self.left += float(relevance.sum())

    @property
    def amount(self) -> float:
        """The relevance that ended here; 0 if it is no more than rounding."""
        kept = self.entered - self.left
        return kept if abs(kept) > 16 * self._resolution * self.magnitude else 0.0


@dataclass
class Trail:
    """What a forward pass left for the backward pass and for the ledger.

    Attributes:
        layers: in the order in which they ran, each with what was folded into it.
        superseded: pairs of a layer and the same layer with a batch norm or ReLU folded in. Relevance passes the first
            too where its output has another reader, such as an addition.
        absorptions: the other operations, if relevance is accounted for.
    """

    layers: list[LayerRecord] = field(default_factory=list)
    superseded: list[tuple[LayerRecord, LayerRecord]] = field(default_factory=list)
    absorptions: list[Absorption] = field(default_factory=list)

    def supersede(self, before: LayerRecord, record: LayerRecord) -> None:
        """`record` is `before` with something folded in."""
        if self.layers[-1] is before:
            self.layers.pop()
        else:
            self.layers = [other for other in self.layers if other is not before]
        self.superseded.append((before, record))

    @property
    def passed(self) -> list[LayerRecord]:
        """Every record that relevance may have passed."""
        return list(dict.fromkeys([*self.layers, *(before for before, _ in self.superseded)]))


class WeightCache:
    """What rules derive from weights alone, kept as long as the weights and their versions are the same."""

    def __init__(self) -> None:
        self._derived: TensorTable[dict[str, tuple[Sequence[Tensor], list[int], Any]]] = TensorTable()
        self._constants: TensorTable[Tensor] = TensorTable()

    def constant(self, parameter: Tensor) -> Tensor:
        """The parameter without gradient: the same tensor object at every call, until its memory is replaced."""
        constant = self._constants.get(parameter)
        if constant is None or constant.dtype != parameter.dtype or not constant.is_set_to(parameter):
            constant = self._constants[parameter] = parameter.detach()
        return constant

    def get(self, weight: Tensor, name: str, compute: Callable[[], Derived], others: Sequence[Tensor] = ()) -> Derived:
        """`compute()`, or what it returned before for this weight and these other tensors that it depends on."""
        entries = self._derived.get(weight)
        if entries is None:
            entries = self._derived[weight] = {}
        versions = [source._version for source in (weight, *others)]
        entry = entries.get(name)
        if entry is None or entry[1] != versions or any(map(operator.is_not, entry[0], others)):
            with torch.no_grad():
                entry = entries[name] = (others, versions, compute())
        return cast(Derived, entry[2])
