"""The LRP rules for linear layers y = W x + b (Bach et al. 2015; Montavon et al. 2017, 2019; Andeol et al. 2021).

The multiplier m = R / a is propagated, not the relevance R. Every rule of the family redistributes R_j = y_j m_j in
proportion to contributions that are linear in the input, so it is a sum of terms

    m_i  =  sum_t  (W_t^T (m * y / st(den_t)))_i

with a modified weight W_t, which may depend on the sign of x_i, and a denominator den_t of y's shape. Rules whose
relevance is not proportional to x (w^2, flat, z^B) return R_i itself.

A new rule is a class with one of two methods; `LinearOperation` lists the values that it may read
(an example is in `Rule`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError
from ..kernels.pointwise import STABILISER, stabilise
from .terms import LinearOperation, Rule, Term


def _check(rule: Rule, *names: str) -> None:
    """Refuse numbers of a rule that are negative, infinite or NaN."""
    for name in names:
        if not 0 <= getattr(rule, name) < math.inf:
            raise OptionError(f"{name} = {getattr(rule, name)}: it must be a finite number >= 0")


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = x_i (W^T (R / st(y)))_i with st(d) = d + eps sgn(d); LRP-0 for eps = 0 (Bach et al. 2015, eq. 58).

    Attributes:
        epsilon: eps, the stabiliser, >= 0.

    Raises:
        OptionError: epsilon is negative or not finite.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, Epsilon
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> LRPTranspose(layer, Composite(default=Epsilon())).attribute(torch.tensor([[1.0, -2.0]]))
    tensor([[ 3.0000, -2.0000]])
    """

    epsilon: float = STABILISER

    def __post_init__(self) -> None:
        _check(self, "epsilon")

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        denominator = operation.output if self.epsilon else None
        yield Term(operation.weight, denominator, self.epsilon, bias=operation.bias, non_negative=operation.rectified)


@dataclass(frozen=True)
class ZPlus(Rule):
    """Relevance in proportion to the positive products: alpha-beta with alpha 1, beta 0 (Montavon et al. 2017).

    Attributes:
        bias: whether the positive bias takes a share; without it this is excitation backprop (Zhang et al. 2016).
        epsilon: the stabiliser of the denominators, >= 0.

    Raises:
        OptionError: epsilon is negative or not finite.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, ZPlus
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> LRPTranspose(layer, Composite(default=ZPlus())).attribute(torch.tensor([[1.0, -2.0]]))
    tensor([[1.0000, -0.0000]])
    """

    bias: bool = True
    epsilon: float = STABILISER

    def __post_init__(self) -> None:
        _check(self, "epsilon")

    def terms(self, operation: LinearOperation) -> Iterator[Term]:
        bias = operation.bias_part(+1) if self.bias else torch.zeros_like(operation.bias_part())
        # A weight that is not needed is not stored.
        down = None if operation.non_negative else operation.negative_weight
        denominator = operation.positive_part(bias)
        yield Term(
            operation.positive_weight, denominator, self.epsilon, bias=bias, weight_below=down, non_negative=True
        )


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """alpha times the share of z+ + b+, minus beta times the share of z- + b- (Bach et al. 2015, eq. 60).

    Attributes:
        alpha: the weight of the positive products.
        beta: the weight of the negative products.
        epsilon: the stabiliser of the denominators, >= 0.

    Raises:
        OptionError: unless alpha - beta = 1 and both are >= 0; or epsilon is negative or not finite.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, AlphaBeta
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> LRPTranspose(layer, Composite(default=AlphaBeta(2, 1))).attribute(torch.tensor([[1.0, -2.0]]))
    tensor([[ 2.0000, -1.0000]])
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = STABILISER

    def __post_init__(self) -> None:
        _check(self, "epsilon")
        if not (self.alpha >= 0 and self.beta >= 0 and abs(self.alpha - self.beta - 1) <= 1e-9):
            raise OptionError(f"alpha = {self.alpha}, beta = {self.beta}: both must be >= 0 and alpha - beta = 1")

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

    Attributes:
        gamma: the additional weight of products with the sign of y, >= 0; 0 is the epsilon rule.
        plain: take the rule of Montavon et al. 2019.
        epsilon: the stabiliser of the denominators, >= 0.

    Raises:
        OptionError: gamma or epsilon is negative or not finite.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, Gamma
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> LRPTranspose(layer, Composite(default=Gamma(0.25))).attribute(torch.tensor([[1.0, -2.0]]))
    tensor([[ 2.1429, -1.1429]])
    """

    gamma: float = 0.25
    plain: bool = False
    epsilon: float = STABILISER

    def __post_init__(self) -> None:
        _check(self, "gamma", "epsilon")

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
            # Relevance at y < 0 exists only where y is not rectified at once, for example before residual additions.
            yield Term(down(), denominator, self.epsilon, below, bias=end, weight_below=up, rare=True)
        other = None if operation.non_negative else down()
        denominator = part.mul_(gamma).add_(above)
        yield Term(up, denominator, self.epsilon, above, bias=bias, weight_below=other, non_negative=True)


@dataclass(frozen=True)
class Pass(Rule):
    """R unchanged, for layers whose output has the input's shape. An attribution raises OptionError for any other.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, Pass
    >>> LRPTranspose(nn.Linear(2, 2), Composite(default=Pass())).attribute(torch.randn(1, 2), target=0)[0, 1]
    tensor(0.)
    """

    proportional = False

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        if relevance.shape != operation.input.shape:
            raise OptionError(
                f"Pass needs an output of the input's shape, not {tuple(relevance.shape)} for "
                f"{tuple(operation.input.shape)}: give this layer another rule"
            )
        return relevance


@dataclass(frozen=True)
class WSquare(Rule):
    """R_i = sum_j W_ij^2 / (sum_i' W_i'j^2) R_j, independent of the input; no bias (Montavon et al. 2017).

    Attributes:
        epsilon: the stabiliser of the denominators, >= 0.

    Raises:
        OptionError: epsilon is negative or not finite.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, WSquare
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> LRPTranspose(layer, Composite(default=WSquare())).attribute(torch.tensor([[1.0, -2.0]]))
    tensor([[0.9000, 0.1000]])
    """

    epsilon: float = STABILISER
    proportional = False

    def __post_init__(self) -> None:
        _check(self, "epsilon")

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        squared, ones = operation.cached("squared", lambda: operation.weight**2), operation.ones()
        # Padding counts for nothing, so the sum depends on the position only.
        key = ("squared total", operation.linear, ones.shape)
        total = operation.cached(key, lambda: operation.linear(ones, squared))
        return operation.linear.transpose(relevance / stabilise(total, self.epsilon), squared, operation.input)


@dataclass(frozen=True)
class Flat(Rule):
    """R_j spread evenly over the real (unpadded) inputs of unit j (Lapuschkin et al. 2019).

    Attributes:
        epsilon: the stabiliser of the denominators, >= 0.

    Raises:
        OptionError: epsilon is negative or not finite.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, Flat
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> LRPTranspose(layer, Composite(default=Flat())).attribute(torch.tensor([[1.0, -2.0]]))
    tensor([[0.5000, 0.5000]])
    """

    epsilon: float = STABILISER
    proportional = False

    def __post_init__(self) -> None:
        _check(self, "epsilon")

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        ones = operation.ones()

        def count() -> Tensor:
            return operation.linear(ones, torch.ones_like(operation.weight))

        fan_in = operation.cached(("fan in", operation.linear, ones.shape), count)
        share = relevance / stabilise(fan_in, self.epsilon)
        return operation.linear.spread(share, operation.weight, operation.input)


# Compared by identity: its bounds may be tensors.
@dataclass(frozen=True, eq=False)
class ZBox(Rule):
    """R in proportion to x W - l W+ - h W- for inputs between l <= 0 and h >= 0 (Montavon et al. 2017).

    Attributes:
        low, high: the bounds, numbers or tensors that broadcast over the input, such as `(C, 1, 1)`.
        epsilon: the stabiliser of the denominators, >= 0.

    Raises:
        OptionError: the bounds do not enclose 0.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin.rules import Composite, ZBox
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> LRPTranspose(layer, Composite(default=ZBox(-3, 3))).attribute(torch.tensor([[1.0, -2.0]]))
    tensor([[0.9231, 0.0769]])
    """

    low: float | Tensor
    high: float | Tensor
    epsilon: float = STABILISER
    proportional = False

    def __post_init__(self) -> None:
        _check(self, "epsilon")
        bounds = (self.low <= 0, self.high >= 0)
        if not all(bool(each.all()) if isinstance(each, Tensor) else each for each in bounds):
            raise OptionError(f"low = {self.low}, high = {self.high}: they must enclose 0")

    def relevance(self, operation: LinearOperation, relevance: Tensor) -> Tensor:
        # With c = (l + h) / 2 and d = (l - h) / 2: l W+ + h W- = c W + d |W|.
        x, linear, weight = operation.input, operation.linear, operation.weight
        low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in (self.low, self.high))
        shape = operation.ones().shape
        centre, half = ((bound / 2).expand(shape) for bound in (low + high, low - high))
        magnitude = operation.cached("magnitude", weight.abs)
        offset = operation.cached(
            (self, linear, shape),
            lambda: linear(centre.contiguous(), weight) + linear(half.contiguous(), magnitude),
            [bound for bound in (self.low, self.high) if isinstance(bound, Tensor)],
        )
        # Where y is rectified, no relevance arrives, and any denominator will do.
        denominator = operation.output - (offset + operation.spread(operation.bias_part()))
        share = relevance / stabilise(denominator, self.epsilon)
        return (x - centre) * linear.transpose(share, weight, x) - half * linear.transpose(share, magnitude, x)


# The rules that a single layer can be given, by name, with the constants of the literature. The bounds of "box" are
# placeholders for those of the network's inputs.
RULES: dict[str, partial[Any]] = {
    "lrp-0": partial(Epsilon, epsilon=0.0),
    "epsilon": partial(Epsilon, epsilon=STABILISER),
    "gamma": partial(Gamma, gamma=0.25),
    "z-plus": partial(ZPlus),
    "z-plus-no-bias": partial(ZPlus, bias=False),
    "alpha2-beta1": partial(AlphaBeta, alpha=2.0, beta=1.0),
    "w-square": partial(WSquare),
    "flat": partial(Flat),
    "box": partial(ZBox, low=0.0, high=0.0),
}
