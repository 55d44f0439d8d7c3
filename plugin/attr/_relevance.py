"""The base of the LRP classes: a model, its rules, and a forward pass under them."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..captum_api import (
    additional_arguments,
    run_forward,
)
from ..errors import NO_DEPENDENCE, InputValueError, NoDependenceError, OptionError, OptionTypeError
from ..inputs import Inputs, as_tuple
from ..kernels.tracing import known_any
from ..observing import LayerCapture
from ..propagation import backward
from ..propagation.lrp import Check, Refusal, RelevancePropagation, WeightCache, rules_of
from ..propagation.tensors import tensors_in
from ..rules.composite import Composite
from ..rules.presets import preset
from ..rules.terms import per_example
from ._base import ModifiedGradientAttribution, check_model, explaining, make_leaves
from ._captum_rules import rules_on


class RelevanceAttribution(ModifiedGradientAttribution):
    """The base of the LRP classes: a model, its rules, and a forward pass under them."""

    _takes_token_ids = False

    def __init__(self, model: nn.Module, rules: str | Composite = "epsilon", unknown: str = "raise") -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            rules: the name of a preset, or a composite. A rule of Captum's in `module.rule` takes precedence.
            unknown: "raise" for operations without LRP meaning, or "gradient" to use their gradient instead.

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
            OptionError: unknown preset, or another value of `unknown`.
            OptionTypeError: `rules` is neither, or a module's `rule` is not one of Captum's.
        """
        check_model(model)
        if unknown not in ("raise", "gradient"):
            raise OptionError(f"unknown = {unknown!r}: it must be 'raise' or 'gradient'")
        if not isinstance(rules, (str, Composite)):
            raise OptionTypeError(f"rules = {rules!r}: give the name of a preset or a Composite")
        rules_on(model)
        super().__init__(model)
        self.model, self.unknown = model, unknown
        self.composite = preset(rules) if isinstance(rules, str) else rules
        self._cache = WeightCache()

    def recordable(self) -> "RelevanceAttribution":
        """The same attribution, without tensors stored by earlier calls."""
        fresh = copy.copy(self)
        fresh._cache = WeightCache()
        return fresh

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: relevance is in units of the output."""
        return True

    def has_convergence_delta(self) -> bool:
        """True: see `compute_convergence_delta`."""
        return True

    def compute_convergence_delta(self, attributions: Inputs, output: Tensor) -> Tensor:
        """Output minus the sum of the relevance, per example: the relevance that biases and stabilisers absorbed.

        Args:
            attributions: relevance `(N, ...)`, or a tuple of such tensors.
            output: the explained values `(N,)`.

        Returns:
            `(N,)`.

        Raises:
            InputValueError: the first dimension of the relevance does not belong to the examples.
        """
        for part in as_tuple(attributions):
            if part.ndim == 0 or len(part) != len(output):
                raise InputValueError(
                    f"relevance {tuple(part.shape)} has no sum for each of {len(output)} examples, as its first "
                    "dimension is not theirs: leave out the convergence delta, or compare the sums of both"
                )
        return output - torch.stack([per_example(part) for part in as_tuple(attributions)]).sum(0)

    def check(self, inputs: Inputs, additional_forward_args: Any = None) -> Check:
        """A dry run of LRP: one forward pass, before anything is explained.

        Args:
            inputs: as in `attribute`; one example is enough.
            additional_forward_args: as in `attribute`.

        Returns:
            Every operation on the way to the output that has no rule, each with its layer and the remedy, and the rule
            of each linear layer; it prints as a table, and its `require()` raises if any operation has no rule.

        Raises:
            InputTypeError, InputValueError, ModelOutputError: as in `attribute`.
            NoDependenceError: no part of the output depends on the inputs.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import LRPTranspose
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> print(LRPTranspose(model).check(torch.randn(1, 3)))
        layer  type    rule
        -----  ------  ----------------------
        0      Linear  Epsilon(epsilon=1e-06)
        2      Linear  Epsilon(epsilon=1e-06)
        every operation has a rule
        """
        found: list[Refusal] = []
        with explaining(self.model, as_tuple(inputs), additional_forward_args):
            propagation = self._propagation(additional_forward_args)

            def note(output: Any) -> Tensor:
                tensors = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
                if not tensors:
                    raise NoDependenceError(NO_DEPENDENCE)
                for tensor in tensors:
                    found.extend(propagation.unruled(tensor))
                return torch.zeros(0)

            self._forward(propagation, as_tuple(inputs), additional_forward_args, note)
        return Check(tuple(dict.fromkeys(found)), rules_of(propagation.trail.ruled))

    def _propagation(
        self, additional: Any, capture: LayerCapture | None = None, account: bool = False, repeated: bool = False
    ) -> RelevancePropagation:
        layer_rules, module_rules = rules_on(self.model)
        return RelevancePropagation(
            self.model,
            self.composite,
            self._cache,
            self.unknown,
            account,
            repeated,
            additional_arguments(additional),
            None if capture is None else capture.on_enter,
            None if capture is None else capture.on_exit,
            layer_rules,
            module_rules,
        )

    def _forward(
        self,
        propagation: RelevancePropagation,
        inputs: tuple[Tensor, ...],
        additional: Any,
        select: Callable[[Any], Tensor],
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
        """Leaves, their zero-valued carriers, and the explained values."""
        leaves = make_leaves(inputs, self._takes_token_ids)
        # Token ids have no gradient: the attribution begins at their embeddings.
        propagation.from_embeddings = not all(leaf.requires_grad for leaf in leaves)
        carriers = tuple(torch.zeros_like(leaf, requires_grad=True) for leaf in leaves if leaf.requires_grad)
        copies = tuple(leaf.clone() for leaf in leaves)
        for value, carrier in zip([value for value in copies if value.requires_grad], carriers, strict=True):
            propagation.carry(value, carrier)
        with propagation:
            output = propagation.current(run_forward(self.forward_func, copies, additional))
        propagation.assign_rules()
        selected = select(_below_log_softmax(propagation, output))
        _warn_if_saturated(propagation, output, selected)
        propagation.check(selected)
        return leaves, carriers, selected


def _below_log_softmax(propagation: RelevancePropagation, output: Any) -> Any:
    """The logits of a network that ends in a log-softmax; other outputs unchanged."""
    logits = propagation.note(output).logits if isinstance(output, Tensor) else None
    if logits is None:
        return output
    warnings.warn(
        "the model ends in a log-softmax: the logits below it are explained. For a contrast of logits, choose a target "
        "such as lambda logits: logits[:, 3] - logits[:, 5]",
        stacklevel=5,
    )
    return logits


def _warn_if_saturated(propagation: RelevancePropagation, output: Any, selected: Tensor) -> None:
    """Warn of a final softmax near 0 or 1, which passes almost no signal down."""
    if not isinstance(output, Tensor) or not propagation.note(output).softmax or not _sums_to_one(output.detach()):
        return
    slope = selected.detach() * (1 - selected.detach())
    if known_any(slope < 1e-4):
        warnings.warn(
            f"the model ends in a softmax that is saturated (probabilities {selected.detach().tolist()}): its gradient "
            "vanishes, and so does the map. Explain the logits: pass the model without the softmax",
            stacklevel=5,
        )


def _sums_to_one(output: Tensor) -> bool:
    """Whether these are a softmax's, over the second or the last dimension: its mean place in an image is none."""
    return output.ndim > 1 and any(not known_any((output.sum(dim) - 1).abs() > 1e-2) for dim in (1, -1))


def relevance_at(
    tensors: Sequence[Tensor], carriers: Sequence[Tensor | None], selected: Tensor, keep: bool = False
) -> tuple[Tensor, ...]:
    """Relevance of the selected values at each tensor: value times multiplier, plus the relevance at its carrier."""
    # Masks and other tensors without a gradient among a layer's results have no relevance.
    places = [place for place in (*tensors, *carriers) if place is not None and place.requires_grad]
    signals = {id(place): signal for place, signal in zip(places, backward(selected, places, keep), strict=True)}
    results = []
    for tensor, carrier in zip(tensors, carriers, strict=True):
        multiplier, own = signals.get(id(tensor)), signals.get(id(carrier))
        relevance = torch.zeros_like(tensor) if multiplier is None else tensor.detach() * multiplier
        results.append(relevance if own is None else relevance + own)
    return tuple(results)
