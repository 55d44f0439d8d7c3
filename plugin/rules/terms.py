"""A linear layer as a rule of LRP sees it, and the sum of terms that the rule returns for it.

The multiplier m = R / a is propagated. Every rule of the family redistributes R_j = y_j m_j in proportion to
contributions that are linear in the input, so it is a sum of terms

    m_i  =  sum_t  (W_t^T (m * y / st(den_t)))_i

with a modified weight W_t, which may depend on the sign of x_i, and a denominator den_t of y's shape. Rules whose
relevance is not proportional to x return R_i itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..kernels.blocks import in_blocks
from ..kernels.linear import LinearMap
from ..kernels.pointwise import may_have_values, stabilise


@dataclass(slots=True)
class LinearOperation:
    """A linear layer in a forward pass, as a rule sees it.

    Attributes:
        linear: the map z = W x, callable with any weight, and its transpose.
        input: x.
        output: y = W x + b; max(y, 0) if `rectified`.
        weight, bias: W and b, one entry per output channel (a following batch norm is folded into both).
        non_negative: x is known to have no negative entry.
        rectified: y is read by a ReLU only, so that no relevance arrives where y <= 0.
        cached: `cached(key, compute, others)` keeps tensors that depend on the weight, and on other tensors if they are
            named. Several layers and rules may use one weight, so the key is the rule and the part of it; the key of a
            tensor that also depends on strides and sizes contains them.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, Epsilon
    >>> class Shapes(Epsilon):
    ...     def terms(self, operation):
    ...         print(tuple(operation.input.shape), tuple(operation.weight.shape), tuple(operation.output.shape))
    ...         return super().terms(operation)
    >>> _ = LRPTranspose(nn.Linear(3, 2), Composite(default=Shapes())).attribute(torch.randn(4, 3), target=1)
    (4, 3) (2, 3) (4, 2)
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
        """z+ = x+ W+ + x- W-, the sum of the positive products, plus an offset; a new tensor of y's shape.

        Args:
            offset: one entry per output channel, such as `bias_part(+1)`.
        """
        return self._one_sided(self.positive_weight, self.negative_weight, offset)

    def negative_part(self, offset: Tensor) -> Tensor:
        """z- = x+ W- + x- W+, the sum of the negative products, plus an offset; a new tensor of y's shape.

        Args:
            offset: one entry per output channel, such as `bias_part(-1)`.
        """
        return self._one_sided(self.negative_weight, self.positive_weight, offset)

    def _one_sided(self, upward: Tensor, downward: Tensor, offset: Tensor) -> Tensor:
        if self.non_negative:
            return self.linear(self.input, upward, offset)
        part = self.linear(self.input.clamp(min=0), upward, offset)
        return part.add_(self.linear(self.input.clamp(max=0), downward))

    def bias_part(self, sign: int = 0) -> Tensor:
        """b, b+ or b-, one entry per output channel; zeros without bias.

        Args:
            sign: 0 for b, +1 for b+ = max(b, 0), -1 for b- = min(b, 0).
        """
        if self.bias is None:
            return self.output.new_zeros(self.linear.channels(self.output))
        return self.bias if sign == 0 else self.bias.clamp(min=0) if sign > 0 else self.bias.clamp(max=0)

    def ones(self) -> Tensor:
        """Ones in the shape of one example of x, `(1, ...)`, also where x has none; of a vector, in its own."""
        return self.input.new_ones((1, *self.input.shape[1:]) if self.input.ndim > 1 else self.input.shape)

    def spread(self, values: Tensor) -> Tensor:
        """Values in a shape that broadcasts over y.

        Args:
            values: one entry per output channel.
        """
        return self.linear.per_channel(values, self.output.ndim)


@dataclass(slots=True)
class Term:
    """One summand of a rule: m -> W_t^T (m * n_t / st(den_t)).

    Attributes:
        weight: W_t.
        denominator: den_t, of y's shape; None for no division.
        epsilon: the stabiliser's epsilon.
        numerator: n_t, the part of y that the term distributes; all of y by default. It vanishes where y does.
        scale: a number that n_t is multiplied with.
        bias: the bias's contribution to den_t, one entry per output channel: that part of the relevance ends there.
        weight_below: W_t for inputs < 0, if it differs.
        non_negative: den_t is known to have no negative entry, so that sgn(den_t) = 1.
        rare: often no relevance takes part at all; a check before the transposed operator is applied pays off.

    >>> import torch
    >>> from plugin.rules import Term
    >>> term = Term(torch.eye(2), denominator=torch.tensor([[2.0, 4.0]]))
    >>> term.signal(multiplier=torch.ones(1, 2), output=torch.tensor([[1.0, 1.0]]))
    tensor([[0.5000, 0.2500]])
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
        """m * n_t / st(den_t), of y's shape.

        Args:
            multiplier: m at the output, of y's shape.
            output: y.
        """
        if self.denominator is None:
            return multiplier if self.numerator is None else multiplier * self.numerator
        numerator = output if self.numerator is None else self.numerator
        return in_blocks(self._share, multiplier, numerator, self.denominator)

    def _share(self, share: Tensor, multiplier: Tensor, numerator: Tensor, denominator: Tensor) -> None:
        # The quotient comes first: then no pass needs memory besides the result's.
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
        """The same term for many multipliers: the quotient n_t / st(den_t) is computed once.

        Args:
            output: y.
        """
        if self.denominator is None:
            return self
        numerator = output if self.numerator is None else self.numerator
        quotient = in_blocks(self._quotient, numerator, self.denominator)
        return self.with_quotient(quotient)

    def with_quotient(self, quotient: Tensor) -> "Term":
        """The same term with a known quotient.

        Args:
            quotient: n_t / st(den_t), of y's shape.
        """
        return replace(self, denominator=None, numerator=quotient)

    def transpose(self, operation: LinearOperation, signal: Tensor) -> Tensor:
        """W_t^T s, of x's shape.

        Args:
            operation: the layer in a forward pass.
            signal: s, of y's shape.
        """
        passed = operation.linear.transpose(signal, self.weight, operation.input)
        if self.weight_below is None or operation.non_negative:
            return passed
        below = operation.linear.transpose(signal, self.weight_below, operation.input)
        return torch.where(operation.input >= 0, passed, below)


class Rule:
    """A rule for linear layers. A subclass defines `terms`, or `relevance` if R is not proportional to x.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, Rule, Term
    >>> class Quarter(Rule):
    ...     def terms(self, operation):
    ...         yield Term(operation.weight, operation.output, epsilon=0.25)
    >>> LRPTranspose(nn.Linear(3, 2), Composite(default=Quarter())).attribute(torch.randn(4, 3), target=1).shape
    torch.Size([4, 3])
    """

    proportional = True

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        """The summands of the rule.

        Args:
            operation: the layer in a forward pass.

        Raises:
            NotImplementedError: the rule returns relevance (`proportional = False`).
        """
        raise NotImplementedError

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        """R at the input, of x's shape; for rules with `proportional = False`.

        Args:
            operation: the layer in a forward pass.
            relevance: R at the output, of y's shape.

        Raises:
            NotImplementedError: the rule has terms (`proportional = True`).
        """
        raise NotImplementedError


@dataclass(slots=True)
class Passage:
    """The result of a rule for the relevance that arrived at one layer.

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
        operation: the layer in a forward pass.
        terms: `rule.terms(operation)`, which do not depend on the multiplier; empty for rules that return R.
        multiplier: m at the output, of y's shape.
        account: also compute the relevance that ends in the bias.
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
