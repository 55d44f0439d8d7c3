"""Modules with a rule of their own, for any computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ...errors import AttributionError, OptionError, OptionTypeError
from ...observing import describe
from ..whole import apart, gradients, run_module, signals_in
from .layers import as_multiplier
from .linear import carry_unchanged

if TYPE_CHECKING:
    from .mode import RelevancePropagation

_HALF = (torch.float16, torch.bfloat16)


class ModuleRule(Protocol):
    """The passage of relevance through a module, whose map y = f(x) may be anything."""

    @property
    def unchanged(self) -> bool:
        """Whether relevance passes unchanged; then the rule's other methods are not called."""

    @property
    def proportional(self) -> bool:
        """Whether relevance is a multiple of the input at every position, including zeros."""

    def modified(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> nn.Module | None:
        """The module with other weights that replaces this one in the backward pass; None for the module itself."""

    def pass_down(
        self,
        relevance: Tensor,
        inputs: Sequence[Tensor],
        output: Tensor,
        transpose: Callable[[Tensor], Sequence[Tensor]],
    ) -> Sequence[Tensor]:
        """The multiplier at each input for R at the output; R at each input if the rule is not `proportional`.

        Args:
            relevance: R.
            inputs, output: x and f(x) of the module that replaces this one.
            transpose: its vector-Jacobian product.
        """


@dataclass(eq=False)
class ModuleRecord:
    """A module of a forward pass, kept for the backward pass.

    Attributes:
        name, module, rule: the module.
        reads_input: it reads an input of the model, and its rule is no affine step's.
        inputs, computed: x and y of the module that replaces it, with the graph between them.
        covered: see `Note`.
        account: whether the following attributes are recorded.
        entered, left: the relevance that entered and left in the last backward pass; sums over everything.
        carried: the part of it that went on to carriers.
    """

    name: str
    module: nn.Module
    rule: ModuleRule
    reads_input: bool
    inputs: Sequence[Tensor]
    computed: Tensor
    covered: Tensor | None
    account: bool
    entered: float | None = None
    left: float = 0.0
    carried: float = 0.0


def by_rule(
    mode: RelevancePropagation,
    module: nn.Module,
    rule: ModuleRule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> Any:
    """The output of a module, whose signal is passed down by a rule.

    Raises:
        OptionTypeError: the module returns several tensors, or the rule cannot be applied to it.
        OptionError: relevance cannot pass it unchanged.
    """
    signals, layer = signals_in(args, kwargs), describe(mode.model, module)
    if not isinstance(output, Tensor):
        raise OptionTypeError(f"{rule} on layer {layer}: it needs a layer that returns one tensor")
    if rule.unchanged and [signal.shape for signal in signals] != [output.shape]:
        shapes = " and ".join(str(tuple(signal.shape)) for signal in signals)
        raise OptionError(
            f"{rule} on layer {layer}: relevance passes unchanged from one tensor to one of its shape, not from "
            f"{tuple(output.shape)} to {shapes}: give this layer another rule"
        )
    alone, inputs = len(signals) == 1, tuple(signals)
    if not alone:
        inputs, args, kwargs = apart(signals, args, kwargs)
    computed = output if rule.unchanged else _computed(rule, layer, module, args, kwargs, output, anew=not alone)
    if not computed.requires_grad and not rule.unchanged:
        return output  # a constant
    note = mode.note(signals[0])
    carrier = note.carrier if alone and not rule.proportional else None
    reads_input = alone and note.carrier is not None and not rule.unchanged
    name = mode.names.get(module, "")
    record = ModuleRecord(name, module, rule, reads_input, inputs, computed, note.covered, mode.account)
    mode.trail.modules.append(record)
    root = _before_activation(mode, signals[0]) if alone and carrier is None and not rule.proportional else None
    result: Tensor = _ModuleLayer.apply(record, output.detach(), carrier, root, *signals)
    if rule.unchanged:
        carry_unchanged(mode, signals[0], result)
    return result


def _computed(
    rule: ModuleRule,
    layer: str,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Tensor,
    anew: bool,
) -> Tensor:
    """The output of the module that replaces this one, with its graph."""
    try:
        other = rule.modified(module, (*args, *kwargs.values()), output.detach())
        result = run_module(other or module, *args, **kwargs) if anew or other is not None else output
    except AttributionError:
        raise
    except Exception as error:
        raise OptionTypeError(f"{rule} cannot be applied to layer {layer}: {error}") from error
    if not isinstance(result, Tensor) or result.shape != output.shape:
        raise OptionTypeError(f"{rule} on layer {layer} changes more than the layer's weights")
    return result


def _before_activation(mode: RelevancePropagation, value: Tensor) -> Tensor | None:
    """The input of the activation that computed a tensor: relevance of the tensor's zeros passes there, unchanged."""
    link = mode.note(value).link
    root = None if link is None or link.affine or not link.complete else link.root
    return root if root is not None and root.requires_grad and root.shape == value.shape else None


class _ModuleLayer(torch.autograd.Function):
    """y forwards; backwards the multipliers at the inputs.

    Relevance that is no multiple of the input goes to the carrier, or, where the input is 0, to the activation's input.
    """

    @staticmethod
    def forward(
        ctx: Any, record: ModuleRecord, output: Tensor, carrier: Tensor | None, root: Tensor | None, *signals: Tensor
    ) -> Tensor:
        ctx.save_for_backward(output, root, *signals)
        ctx.record, ctx.carried = record, carrier is not None
        return output.clone()

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor | None, ...]:
        output, root, *signals = ctx.saved_tensors
        record: ModuleRecord = ctx.record
        relevance = _wide(output) * _wide(multiplier)
        values = [signal.detach() for signal in signals]
        at_carrier = at_root = None
        if record.rule.unchanged:
            below = [relevance]
        else:
            below = list(
                record.rule.pass_down(relevance, values, record.computed.detach(), partial(_transpose, record))
            )
        if not record.rule.proportional:
            if ctx.carried:
                at_carrier = below[0] if record.covered is None else below[0] * record.covered
                below[0] = below[0] - at_carrier
            elif root is not None:
                dead = (values[0] == 0) & (root != 0)
                at_root = torch.where(dead, below[0] / torch.where(dead, root.detach(), 1.0), 0.0)
            below = [as_multiplier(value, part) for value, part in zip(values, below, strict=True)]
        if record.account:
            passed = [value * part for value, part in zip(values, below, strict=True)]
            passed += [] if at_root is None else [root * at_root]
            passed += [] if at_carrier is None else [at_carrier]
            record.entered, record.left = _total(relevance), sum(map(_total, passed))
            record.carried = 0.0 if at_carrier is None else _total(at_carrier)
        handed = [None if part is None else part.to(output.dtype) for part in (at_carrier, at_root)] + [
            part.to(value.dtype) for value, part in zip(values, below, strict=True)
        ]
        return None, None, *handed


def _transpose(record: ModuleRecord, signal: Tensor) -> Sequence[Tensor]:
    found = gradients([record.computed], record.inputs, [signal.to(record.computed.dtype)])
    return [torch.zeros_like(s) if part is None else part for s, part in zip(record.inputs, found, strict=True)]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor


def _total(relevance: Tensor) -> float:
    return float(relevance.double().sum())
