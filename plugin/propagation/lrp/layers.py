"""Records of the forward pass of LRP for its backward pass: layers with their rules, and absorptions of relevance."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...kernels.linear import LinearMap, MatrixProduct, Reaching
from ...rules.terms import LinearOperation, Rule, Term, pass_down, per_example
from ..backward import backward
from .quotients import Quotients

_HALF = (torch.float16, torch.bfloat16)


@dataclass(eq=False)
class LayerRecord:
    """One linear layer of a forward pass, kept for the backward pass.

    Attributes:
        name, module: the layer that owns the parameter; without one, the module that was running.
        linear: its map; `weight` and `bias` are as used, with a following batch norm folded in.
        reads_input: the input is an input of the model.
        non_negative: the input is known to have no negative entry.
        reached: computes a mask that is False where zeros stand beside the input, such as padding that was moved.
        rectified: the output is max(W x + b, 0), with the ReLU that follows as part of the layer.
        rule: set when the forward pass is over and positions are known.
        terms: the rule's terms, kept where several backward passes follow (`repeated`).
        quotients: those of several layers, computed at once where this is faster.
        account: whether the following attributes are recorded.
        entered, left, to_bias: the relevance of the last backward pass, per example `(N,)`.
        carried: the part of it that went on to carriers.
        lost: the part of it that went to inner values of 0, where there is nothing to multiply.
    """

    name: str
    module: nn.Module
    linear: LinearMap
    weight: Tensor
    bias: Tensor | None
    reads_input: bool
    non_negative: bool
    cached: Callable[..., Tensor]
    reached: Callable[[], Tensor] | None = None
    rectified: bool = False
    rule: Rule | None = None
    terms: Sequence[Term] | None = None
    account: bool = False
    repeated: bool = False
    quotients: Quotients | None = None
    entered: Tensor | None = None
    left: Tensor | None = None
    to_bias: Tensor | None = None
    carried: float = 0.0
    lost: float = 0.0

    def changed(
        self,
        weight: Tensor,
        bias: Tensor | None,
        cached: Callable[..., Tensor],
        rectified: bool = False,
    ) -> "LayerRecord":
        """The same layer with the next operation folded in: a batch norm in weight and bias, or a ReLU."""
        reads_input, non_negative, reached = self.reads_input, self.non_negative, self.reached
        return LayerRecord(
            self.name, self.module, self.linear, weight, bias, reads_input, non_negative, cached, reached, rectified
        )

    def pass_down(self, value: Tensor, output: Tensor, multiplier: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(m, None) or (None, R) at the input for m at the output, by the layer's rule."""
        if self.rule is None:
            raise RuntimeError(f"layer {self.name!r} has no rule yet: the backward pass comes after the forward pass")
        weight, bias = self.weight, self.bias
        if value.dtype in _HALF or output.dtype in _HALF:  # they differ under autocast
            value, output, multiplier, weight = value.float(), output.float(), multiplier.float(), weight.float()
            bias = None if bias is None else bias.float()
        linear, cached = self.linear, self.cached
        if self.reached is not None and not self.rule.proportional:
            linear, cached = Reaching(linear, self.reached()), _computed
        operation = LinearOperation(linear, value, output, weight, bias, self.non_negative, self.rectified, cached)
        terms = self.terms
        if terms is None and self.rule.proportional:
            terms = tuple(self.rule.terms(operation))
            if self.repeated:
                terms = self.terms = tuple(term.prepared(output) for term in terms)
            elif self.quotients is not None and (quotient := self.quotients.take(self)) is not None:
                terms = tuple(term.with_quotient(quotient) for term in terms)
        try:
            passage = pass_down(self.rule, operation, terms or (), multiplier, self.account)
        except ValueError as error:
            raise OptionError(f"layer {self.name!r}: {error}") from error
        if self.account:
            self.entered = per_example((output * multiplier).double())
            below = passage.relevance if passage.multiplier is None else value * passage.multiplier
            if below is None:
                raise RuntimeError(f"rule {self.rule} of layer {self.name!r} returned neither m nor R")
            self.left, self.to_bias = per_example(below.double()), passage.to_bias
        return passage.multiplier, passage.relevance


def _computed(key: Hashable, compute: Callable[[], Tensor], others: Sequence[Tensor] = ()) -> Tensor:
    """A tensor derived from a map that differs at each call, so that it is not kept."""
    return compute()


class LinearLayer(torch.autograd.Function):
    """y = W x + b forwards; backwards the multiplier at x, and the relevance itself at a zero-valued carrier."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        carrier: Tensor | None,
        compute: Callable[[], Tensor],
        record: LayerRecord,
        covered: Tensor | None,
    ) -> Tensor:
        output = compute()
        if output._is_view():  # of a flattened result: a tensor that is written into later must be no view
            output = torch.ops.aten._unsafe_view(output, output.shape)
        ctx.save_for_backward(value, output)
        ctx.record, ctx.carried, ctx.covered = record, carrier is not None, covered
        return output

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        value, output = ctx.saved_tensors
        below, relevance = ctx.record.pass_down(value, output, multiplier)
        if relevance is not None:
            below, relevance = _divided(ctx, value, relevance)
        return (
            None if below is None else below.to(value.dtype),
            None if relevance is None else relevance.to(value.dtype),
            None,
            None,
            None,
        )


def _divided(ctx: Any, value: Tensor, relevance: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Relevance as a multiplier at the input, and relevance at the carrier."""
    record: LayerRecord = ctx.record
    rest: Tensor | None = relevance
    at_carrier = None
    if ctx.carried:
        at_carrier = relevance if ctx.covered is None else relevance * ctx.covered
        rest = None if ctx.covered is None else relevance - at_carrier
    if record.account:
        record.carried = 0.0 if at_carrier is None else float(at_carrier.double().sum())
        record.lost = 0.0 if rest is None else float(rest[value == 0].double().sum())
    return None if rest is None else as_multiplier(value, rest), at_carrier


def as_multiplier(value: Tensor, relevance: Tensor) -> Tensor:
    """Relevance as a multiplier inside the network; where the value is 0 there is nothing to multiply."""
    return torch.where(value == 0, 0.0, relevance / torch.where(value == 0, 1.0, value))


def descend(output: Tensor, selections: Sequence[Tensor]) -> Sequence[Tensor]:
    """Pass the signals of all targets together through the matrix products that end a network, its largest weights.

    Args:
        output: the network's output `(N, ...)`.
        selections: for each target, the values `(N,)` selected from it.

    Returns:
        For each target, values whose sum has the same signal below these products; without any, the selections.

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
    """Whether an inner matrix product computed it, with a rule that many multipliers can pass at once."""
    node: Any = output.grad_fn
    if getattr(type(node), "_forward_cls", None) is not LinearLayer:
        return False
    # A hook of the output expects one signal after the other.
    is_private = not node.carried and not output._backward_hooks
    return is_private and isinstance(node.record.linear, MatrixProduct) and node.record.rule.proportional
