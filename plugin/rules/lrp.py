"""The LRP rules for linear layers y = W x + b (Bach et al. 2015; Montavon et al. 2017, 2019; Andeol et al. 2021).

What travels is the multiplier m = R / a, not the relevance R. Every rule of the family redistributes R_j = y_j m_j in
proportion to contributions that are linear in the input, so it is a sum of terms

    m_i  =  sum_t  (W_t^T (m * y / st(den_t)))_i

with a modified weight W_t, which may depend on the sign of x_i, and a denominator den_t of y's shape. Rules whose
relevance is not proportional to x (w^2, flat, z^B) return R_i itself.

A new rule is a class with one of two methods; `LinearOperation` tells what it may read.

>>> class Quarter(Rule):
...     def terms(self, operation):
...         yield Term(operation.weight, operation.output, epsilon=0.25)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..kernels.blocks import in_blocks
from ..kernels.linear import LinearMap
from ..kernels.pointwise import STABILISER, may_have_values, stabilise


@dataclass(slots=True)
class LinearOperation:
    """A linear layer at work, as a rule sees it.

    Attributes:
        linear: the map z = W x, callable with any weight, and its transpose.
        input: x.
        output: y = W x + b; max(y, 0) if `rectified`.
        weight, bias: W and b, one entry per output channel (a following batch norm is folded into both).
        non_negative: x is known to have no negative entry.
        rectified: a ReLU is all that reads y here, so that no relevance arrives where y <= 0.
        cached: `cached(key, compute, others)` keeps what depends on the weight, and on other tensors if they are named;
            a weight may be used by several layers and rules, so the key is the rule and the part of it, and whatever
            depends on strides and sizes too has them in its key.
    """

    linear: LinearMap
    input: Tensor
    output: Tensor
    weight: Tensor
    bias: Tensor | None
    non_negative: bool
    rectified: bool
    cached: Callable[..., Tensor]

    @property
    def positive_weight(self) -> Tensor:
        """W+ = max(W, 0)."""
        return self.cached("positive", lambda: self.weight.clamp(min=0))

    @property
    def negative_weight(self) -> Tensor:
        """W- = min(W, 0)."""
        return self.cached("negative", lambda: self.weight.clamp(max=0))

    def positive_part(self, offset: Tensor) -> Tensor:
        """z+ = x+ W+ + x- W-, the sum of the positive products, plus an offset per output channel; a new tensor."""
        return self._one_sided(self.positive_weight, self.negative_weight, offset)

    def negative_part(self, offset: Tensor) -> Tensor:
        """z- = x+ W- + x- W+, the sum of the negative products, plus an offset per output channel; a new tensor."""
        return self._one_sided(self.negative_weight, self.positive_weight, offset)

    def _one_sided(self, upward: Tensor, downward: Tensor, offset: Tensor) -> Tensor:
        if self.non_negative:
            return self.linear(self.input, upward, offset)
        part = self.linear(self.input.clamp(min=0), upward, offset)
        return part.add_(self.linear(self.input.clamp(max=0), downward))

    def bias_part(self, sign: int = 0) -> Tensor:
        """b, b+ or b-, one entry per output channel; zeros without bias."""
        if self.bias is None:
            return self.output.new_zeros(self.linear.channels(self.output))
        return self.bias if sign == 0 else self.bias.clamp(min=0) if sign > 0 else self.bias.clamp(max=0)

    def spread(self, values: Tensor) -> Tensor:
        """One entry per output channel, in a shape that broadcasts over y."""
        return self.linear.per_channel(values, self.output.ndim)


@dataclass(slots=True)
class Term:
    """One summand of a rule: m -> W_t^T (m * n_t / st(den_t)).

    Attributes:
        weight: W_t.
        denominator: den_t, of y's shape; None for no division.
        epsilon: of the stabiliser.
        numerator: n_t, the part of y that the term distributes; all of y by default. It vanishes where y does.
        scale: a number that n_t is multiplied with.
        bias: what the bias contributes to den_t, one entry per output channel: that part of the relevance ends there.
        weight_below: W_t for inputs < 0, if that is another.
        non_negative: den_t is known to have no negative entry, so that sgn(den_t) = 1.
        rare: often no relevance takes part at all; worth a look before the transposed operator is applied.
    """

    weight: Tensor
    denominator: Tensor | None
    epsilon: float = 0.0
    numerator: Tensor | None = None
    scale: float = 1.0
    bias: Tensor | None = None
    weight_below: Tensor | None = None
    non_negative: bool = False
    rare: bool = False

    def signal(self, multiplier: Tensor, output: Tensor) -> Tensor:
        """m * n_t / st(den_t)."""
        if self.denominator is None:
            return multiplier if self.numerator is None else multiplier * self.numerator
        return in_blocks(self._share, multiplier, self._distributed(output), self.denominator)

    def _share(self, share: Tensor, multiplier: Tensor, numerator: Tensor, denominator: Tensor) -> None:
        # The quotient first: then no pass needs memory besides the result's.
        self._quotient(share, numerator, denominator)
        share.mul_(multiplier)

    def _quotient(self, quotient: Tensor, numerator: Tensor, denominator: Tensor) -> None:
        if self.epsilon and self.non_negative:
            denominator = torch.add(denominator, self.epsilon, out=quotient)
        elif self.epsilon:
            denominator = stabilise(denominator, self.epsilon, out=quotient)
        torch.div(numerator, denominator, out=quotient)
        if self.scale != 1:
            quotient.mul_(self.scale)

    def prepared(self, output: Tensor) -> "Term":
        """The same for many multipliers: the quotient n_t / st(den_t) is computed once."""
        if self.denominator is None:
            return self
        quotient = in_blocks(self._quotient, self._distributed(output), self.denominator)
        return replace(self, denominator=None, numerator=quotient)

    def _distributed(self, output: Tensor) -> Tensor:
        return output if self.numerator is None else self.numerator

    def transpose(self, operation: LinearOperation, signal: Tensor) -> Tensor:
        """W_t^T s."""
        passed = operation.linear.transpose(signal, self.weight, operation.input)
        if self.weight_below is None or operation.non_negative:
            return passed
        below = operation.linear.transpose(signal, self.weight_below, operation.input)
        return torch.where(operation.input >= 0, passed, below)


class Rule:
    """How relevance passes a linear layer. A subclass defines `terms`, or `relevance` if R is not proportional to x."""

    proportional = True

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        """The summands of the rule."""
        raise NotImplementedError

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        """R at the input, of x's shape, for R at the output; for rules with `proportional = False`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = x_i (W^T (R / st(y)))_i with st(d) = d + eps sgn(d); LRP-0 for eps = 0 (Bach et al. 2015, eq. 58)."""

    epsilon: float = STABILISER

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        denominator = operation.output if self.epsilon else None
        yield Term(operation.weight, denominator, self.epsilon, bias=operation.bias, non_negative=operation.rectified)


@dataclass(frozen=True)
class ZPlus(Rule):
    """Relevance in proportion to the positive products: alpha-beta with alpha 1, beta 0 (Montavon et al. 2017).

    With `bias=False` the bias takes no share (excitation backprop, Zhang et al. 2016).
    """

    bias: bool = True
    epsilon: float = STABILISER

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        bias = operation.bias_part(+1) if self.bias else torch.zeros_like(operation.bias_part())
        # A weight that is not needed is not kept.
        down = None if operation.non_negative else operation.negative_weight
        denominator = operation.positive_part(bias)
        yield Term(
            operation.positive_weight, denominator, self.epsilon, bias=bias, weight_below=down, non_negative=True
        )


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """alpha times the share of z+ + b+, minus beta times the share of z- + b- (Bach et al. 2015, eq. 60).

    Raises:
        ValueError: unless alpha - beta = 1 and both are >= 0.
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = STABILISER

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(f"alpha = {self.alpha}, beta = {self.beta}: both must be >= 0 and alpha - beta = 1")

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        up, down = operation.positive_weight, operation.negative_weight
        bias = operation.bias_part(+1)
        part = operation.positive_part(bias)
        yield Term(up, part, self.epsilon, None, self.alpha, bias, weight_below=down, non_negative=True)
        if self.beta:
            bias = operation.bias_part(-1)
            yield Term(down, operation.negative_part(bias), self.epsilon, None, -self.beta, bias, weight_below=up)


@dataclass(frozen=True)
class Gamma(Rule):
    """Positive products count (1 + gamma)-fold where y > 0, negative ones where y < 0 (Andeol et al. 2021).

    `plain=True` is the rule of Montavon et al. 2019, W -> W + gamma W+ and b -> b + gamma b+ everywhere: the same for
    x >= 0 and y >= 0, but it explodes where y < 0 receives relevance, as before residual additions.

    Raises:
        ValueError: gamma is negative.
    """

    gamma: float = 0.25
    plain: bool = False
    epsilon: float = STABILISER

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma = {self.gamma}: it must be >= 0")

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        gamma, weight, output = self.gamma, operation.weight, operation.output
        up = operation.cached((self, "up"), lambda: weight + gamma * operation.positive_weight)
        bias = operation.bias_part() + gamma * operation.bias_part(+1)
        if self.plain:
            yield Term(up, operation.linear(operation.input, up, bias), self.epsilon, bias=bias)
            return

        def down() -> Tensor:
            return operation.cached((self, "down"), lambda: weight + gamma * operation.negative_weight)

        # With p = z+ + b+ the denominators are y + gamma p where y > 0, and y + gamma (y - p) where y < 0.
        part, above = operation.positive_part(operation.bias_part(+1)), output
        if not operation.rectified:
            above, below = output.clamp(min=0), output.clamp(max=0)
            denominator = (output - part).mul_(gamma).add_(below)
            end = operation.bias_part() + gamma * operation.bias_part(-1)
            # Relevance at y < 0 exists only where y is not rectified at once, as before residual additions.
            yield Term(down(), denominator, self.epsilon, below, bias=end, weight_below=up, rare=True)
        other = None if operation.non_negative else down()
        denominator = part.mul_(gamma).add_(above)
        yield Term(up, denominator, self.epsilon, above, bias=bias, weight_below=other, non_negative=True)


@dataclass(frozen=True)
class Pass(Rule):
    """R unchanged, for layers whose output has the input's shape."""

    proportional = False

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        if relevance.shape != operation.input.shape:
            raise ValueError(
                f"Pass needs an output of the input's shape, not {tuple(relevance.shape)} for "
                f"{tuple(operation.input.shape)}: give this layer another rule"
            )
        return relevance


@dataclass(frozen=True)
class WSquare(Rule):
    """R_i = sum_j W_ij^2 / (sum_i' W_i'j^2) R_j, whatever the input; no bias (Montavon et al. 2017)."""

    epsilon: float = STABILISER
    proportional = False

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        squared = operation.cached("squared", lambda: operation.weight**2)
        ones = torch.ones_like(operation.input[:1])
        # Padding counts for nothing, so the sum depends on the position and on nothing else.
        key = ("squared total", operation.linear, ones.shape)
        total = operation.cached(key, lambda: operation.linear(ones, squared))
        return operation.linear.transpose(relevance / stabilise(total, self.epsilon), squared, operation.input)


@dataclass(frozen=True)
class Flat(Rule):
    """R_j spread evenly over the real (unpadded) inputs of unit j (Lapuschkin et al. 2019)."""

    epsilon: float = STABILISER
    proportional = False

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        ones = torch.ones_like(operation.input[:1])

        def count() -> Tensor:
            return operation.linear(ones, torch.ones_like(operation.weight))

        fan_in = operation.cached(("fan in", operation.linear, ones.shape), count)
        share = relevance / stabilise(fan_in, self.epsilon)
        return operation.linear.spread(share, operation.weight, operation.input)


# Compared by identity: its bounds may be tensors.
@dataclass(frozen=True, eq=False)
class ZBox(Rule):
    """R in proportion to x W - l W+ - h W- for inputs between l <= 0 and h >= 0 (Montavon et al. 2017).

    Args:
        low, high: the bounds, numbers or tensors that broadcast over the input, such as `(C, 1, 1)`.
    """

    low: float | Tensor
    high: float | Tensor
    epsilon: float = STABILISER
    proportional = False

    def __post_init__(self) -> None:
        if bool((torch.as_tensor(self.low) > 0).any()) or bool((torch.as_tensor(self.high) < 0).any()):
            raise ValueError(f"low = {self.low}, high = {self.high}: they must enclose 0")

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        # With c = (l + h) / 2 and d = (l - h) / 2: l W+ + h W- = c W + d |W|.
        x, linear, weight = operation.input, operation.linear, operation.weight
        low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in (self.low, self.high))
        centre, half = ((bound / 2).expand_as(x[:1]) for bound in (low + high, low - high))
        magnitude = operation.cached("magnitude", weight.abs)
        offset = operation.cached(
            (self, linear, x.shape[1:]),
            lambda: linear(centre.contiguous(), weight) + linear(half.contiguous(), magnitude),
            [bound for bound in (self.low, self.high) if isinstance(bound, Tensor)],
        )
        # Where y is rectified no relevance arrives, and any denominator will do.
        denominator = operation.output - (offset + operation.spread(operation.bias_part()))
        share = relevance / stabilise(denominator, self.epsilon)
        return (x - centre) * linear.transpose(share, weight, x) - half * linear.transpose(share, magnitude, x)


@dataclass(slots=True)
class Passage:
    """What a rule made of the relevance that arrived at one layer.

    Attributes:
        multiplier: m at the input, or None for rules that give R itself.
        relevance: R at the input, or None.
        to_bias: the relevance that ended in the bias, per example `(N,)`; None unless it was asked for.
    """

    multiplier: Tensor | None
    relevance: Tensor | None
    to_bias: Tensor | None


def pass_down(
    rule: Rule, operation: LinearOperation, terms: Sequence[Term], multiplier: Tensor, account: bool = False
) -> Passage:
    """Apply a rule to the multiplier at a layer's output.

    Args:
        rule: the layer's rule.
        operation: the layer at work.
        terms: `rule.terms(operation)`, which do not depend on the multiplier; empty for rules that give R.
        multiplier: m at the output, of y's shape.
        account: also compute what ends in the bias.
    """
    to_bias = torch.zeros_like(operation.output) if account else None
    if operation.rectified and any(term.denominator is None and term.numerator is None for term in terms):
        multiplier = torch.ops.aten.threshold_backward(multiplier, operation.output.expand_as(multiplier), 0)
    if not rule.proportional:
        relevance = rule.relevance(operation, operation.output * multiplier)
        return Passage(None, relevance, to_bias if to_bias is None else per_example(to_bias))
    result: Tensor | None = None
    for term in terms:
        signal = term.signal(multiplier, operation.output)
        if term.rare and not may_have_values(signal):
            continue
        if to_bias is not None and term.bias is not None:
            to_bias = to_bias + operation.spread(term.bias) * signal
        passed = term.transpose(operation, signal)
        result = passed if result is None else result + passed
    if result is None:
        result = torch.zeros_like(operation.input)
    return Passage(result, None, to_bias if to_bias is None else per_example(to_bias))


def per_example(values: Tensor) -> Tensor:
    """Sums over everything but the first dimension: `(N, ...)` to `(N,)`."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values
