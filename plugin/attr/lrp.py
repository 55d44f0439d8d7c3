"""Layer-wise relevance propagation with transposed layers (Bach et al. 2015).

Relevance is conserved: the relevance at the inputs plus the part that biases and stabilisers absorbed is the explained
output. Rules are given by name (`plugin.rules.presets`) or as a `Composite`; the default is LRP-epsilon, as in Captum.
"""

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..captum_api import (
    LayerAttribution,
    Target,
    as_given,
    check_device_ids,
    log_usage,
    select_target,
)
from ..errors import InputValueError, LayerError, OptionError
from ..inputs import Inputs, as_tuple
from ..observing import LayerCapture, LayerCaptures, describe, find_layer
from ..propagation.lrp import Ledger, begin_at, build_ledger, descend
from ..rules.composite import Composite
from ._base import explaining
from ._batches import in_batches
from ._relevance import RelevanceAttribution, relevance_at


class LRPTranspose(RelevanceAttribution):
    """LRP of an output at the inputs; the API of `captum.attr.LRP`.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> lrp = LRPTranspose(model, rules="epsilon_plus_flat")
    >>> relevance, delta = lrp.attribute(images, target=[3, 5], return_convergence_delta=True)
    >>> relevance.shape, delta.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2]))
    >>> output = model(images)[[0, 1], [3, 5]]
    >>> torch.allclose(relevance.sum((1, 2, 3)) + delta, output, atol=1e-4)  # relevance is conserved
    True
    """

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
        internal_batch_size: int | None = None,
        create_graph: bool = False,
    ) -> Any:
        """Explain one output per example.

        Args:
            inputs: tensor `(N, ...)`, such as images `(N, C, H, W)`, or a tuple of tensors; floating point.
            target: output to explain: None (one output per example), an int, a tuple, a tensor, or a list with one
                entry per example, as in Captum; or a function of the output that returns `(N,)`.
            additional_forward_args: further arguments of the model, which receive no attribution.
            return_convergence_delta: also return the relevance that was absorbed on the way, `(N,)`.
            verbose: print the rule of each layer.
            internal_batch_size: the number of examples explained at a time, so that only their activations are held;
                None: all. The result is the same where examples do not influence each other, as in eval mode.
            create_graph: return relevance (and delta) with a graph, for losses on them. Gradients pass through values
                that the model detaches, too. The first call for inputs of one shape records the attribution, which
                takes seconds: keep this object between calls.

        Returns:
            Relevance in the inputs' shapes, in units of the output, detached unless `create_graph`; zeros for an input
            that is not used. With `return_convergence_delta`, a pair of the relevance and the delta.

        Raises:
            TargetError: there is no such target (an AssertionError, as in Captum, and an IndexError).
            ModelOutputError: the model returns no tensor, and the target is no function.
            NoRuleError: an operation has no LRP rule (a NotImplementedError).
            InputTypeError: an input is not floating point (a TypeError).
            OptionTypeError: a module's `rule` is not one of Captum's (a TypeError).
            InputValueError: an input is empty or not finite (a ValueError).
            NoDependenceError: the output depends on no input (a ValueError).
            NotSupportedError: with `create_graph`, values decide which operations the model computes, an operation has
                no derivative, or there are additional arguments (a NotImplementedError); or, as an OptionTypeError, the
                target is a function or a slice.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import LRPTranspose
        >>> lrp, inputs = LRPTranspose(nn.Linear(4, 3)), torch.randn(2, 4)
        >>> relevance, delta = lrp.attribute(inputs, target=[0, 2], return_convergence_delta=True)
        >>> relevance.shape, delta.shape
        (torch.Size([2, 4]), torch.Size([2]))
        """

        def explain(some: Inputs, target: Target, additional: Any) -> Any:
            if not create_graph:
                return self._explain(some, target, additional, return_convergence_delta, verbose)
            if verbose:
                self._explain(some, target, additional, False, verbose)
            result, selected = self._with_graph(some, target, additional)
            return (result, self.compute_convergence_delta(result, selected)) if return_convergence_delta else result

        return in_batches(explain, inputs, target, additional_forward_args, internal_batch_size)

    def _explain(
        self, inputs: Inputs, target: Target, additional: Any, return_convergence_delta: bool, verbose: bool
    ) -> Any:
        """`attribute` for all examples at once."""
        with explaining(self.model, as_tuple(inputs), additional):
            propagation = self._propagation(additional)
            leaves, carriers, selected = self._forward(
                propagation, as_tuple(inputs), additional, partial(select_target, target=target)
            )
            if verbose:
                for record in propagation.trail.ruled:
                    print(f"{record.name or type(record.module).__name__}: {record.rule}")
            relevance = relevance_at(leaves, carriers, selected)
        result = as_given(inputs, relevance)
        if return_convergence_delta:
            return result, self.compute_convergence_delta(relevance, selected.detach())
        return result

    def attribute_targets(
        self, inputs: Inputs, targets: Sequence[Target], additional_forward_args: Any = None
    ) -> Inputs:
        """Explain several outputs with one forward pass.

        Args:
            inputs: as in `attribute`.
            targets: T targets, each as `attribute` takes it.
            additional_forward_args: as in `attribute`.

        Returns:
            Relevance `(T, N, ...)`, in the inputs' order, detached.

        Raises:
            OptionError: there are no targets. Others as in `attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import LRPTranspose
        >>> LRPTranspose(nn.Linear(4, 3)).attribute_targets(torch.randn(2, 4), [0, 1, 2]).shape
        torch.Size([3, 2, 4])
        """
        if len(targets) == 0:
            raise OptionError("targets is empty: name at least one")
        with explaining(self.model, as_tuple(inputs), additional_forward_args):
            propagation = self._propagation(additional_forward_args, repeated=True)
            leaves, carriers, output = self._forward(
                propagation, as_tuple(inputs), additional_forward_args, lambda o: o
            )
            selections = descend(output, [select_target(output, target) for target in targets])
            last = len(selections) - 1
            parts = [relevance_at(leaves, carriers, chosen, keep=i < last) for i, chosen in enumerate(selections)]
        return as_given(inputs, tuple(torch.stack(part) for part in zip(*parts, strict=True)))

    def ledger(self, inputs: Inputs, target: Target = None, additional_forward_args: Any = None) -> Ledger:
        """The way of an output's relevance, layer by layer.

        Args:
            inputs: as in `attribute`.
            target: as in `attribute`.
            additional_forward_args: as in `attribute`.

        Returns:
            A table with, for each layer, the relevance that entered from above, that left below, and that its bias and
            its stabiliser absorbed, each summed over the examples. Errors as in `attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import LRPTranspose
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        >>> ledger = LRPTranspose(model).ledger(torch.randn(5, 3), target=1)
        >>> [(entry.layer, entry.rule) for entry in ledger]
        [('2', 'Epsilon(epsilon=1e-06)'), ('0', 'Epsilon(epsilon=1e-06)')]
        """
        with explaining(self.model, as_tuple(inputs), additional_forward_args):
            propagation = self._propagation(additional_forward_args, account=True)
            leaves, carriers, selected = self._forward(
                propagation, as_tuple(inputs), additional_forward_args, partial(select_target, target=target)
            )
            return build_ledger(propagation.trail, leaves, carriers, selected)


class LayerLRPTranspose(LayerAttribution, RelevanceAttribution):
    """LRP of an output at layers; the API of `captum.attr.LayerLRP`.

    Inputs may be token ids: relevance at an embedding layer is that of the embeddings.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LayerLRPTranspose
    >>> model = nn.Sequential(nn.Embedding(100, 16), nn.Flatten(), nn.Linear(7 * 16, 2))
    >>> tokens = torch.randint(100, (3, 7))
    >>> LayerLRPTranspose(model, "0").attribute(tokens, target=1).shape  # a value for each feature of each token
    torch.Size([3, 7, 16])
    """

    _takes_token_ids = True

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str | list[nn.Module] | list[str] | list[nn.Module | str],
        device_ids: list[int] | None = None,
        rules: str | Composite = "epsilon",
        unknown: str = "raise",
    ) -> None:
        """
        Args:
            model, rules, unknown: see `LRPTranspose`.
            layer: a module of the model or its name, or a list of them.
            device_ids: accepted for compatibility with Captum; not needed.

        Raises:
            OptionTypeError: another option was given in the place of `device_ids`. Others as `LRPTranspose`.
            LayerError: the model has no such layer.
        """
        check_device_ids(device_ids, "rules")
        RelevanceAttribution.__init__(self, model, rules, unknown)
        if isinstance(layer, nn.Module | str):
            LayerAttribution.__init__(self, model, find_layer(model, layer), device_ids)
        else:
            LayerAttribution.__init__(self, model, [find_layer(model, one) for one in layer], device_ids)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        verbose: bool = False,
        internal_batch_size: int | None = None,
        create_graph: bool = False,
    ) -> Any:
        """Relevance at the layer's output, or at its input.

        Args:
            inputs: tensor `(N, ...)` or a tuple of tensors; floating point, or token ids.
            target: output to explain, as in `LRPTranspose.attribute`.
            additional_forward_args: further arguments of the model, which receive no attribution.
            return_convergence_delta: also return the relevance that was absorbed above the layer, `(N,)`.
            attribute_to_layer_input: the relevance of the layer's input instead of its output.
            verbose: accepted for compatibility with Captum; `LRPTranspose.attribute` prints the rules.
            internal_batch_size: the number of examples explained at a time; None: all.
            create_graph: return relevance (and delta) with a graph, as in `LRPTranspose.attribute`.

        Returns:
            Relevance in the layer's shape (a tuple for a layer with several tensors, a list for a list of layers),
            detached unless `create_graph`; zeros at a layer that no relevance reaches, such as one inside a gate. With
            `return_convergence_delta`, a pair of the relevance and the delta (a list for a list of layers).

        Raises:
            LayerError: a layer was not reached, or does not depend on the inputs; or the first dimension of its
                tensors does not belong to the examples, and a delta was asked for, or `internal_batch_size` was
                given and no other dimension can be matched to the examples. Others as in `LRPTranspose.attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import LayerLRPTranspose
        >>> LayerLRPTranspose(nn.Sequential(nn.Linear(4, 5), nn.ReLU()), "0").attribute(torch.randn(2, 4), 1).shape
        torch.Size([2, 5])
        """

        def explain(some: Inputs, target: Target, additional: Any) -> Any:
            if create_graph:
                at = {"attribute_to_layer_input": attribute_to_layer_input}
                found, selected = self._with_graph(some, target, additional, allow_integers=True, **at)
                relevance = found if isinstance(self.layer, list) else [found]
            else:
                relevance, selected = self._explain(some, target, additional, attribute_to_layer_input)
            parts = relevance if isinstance(self.layer, list) else relevance[0]
            return (parts, self._deltas(relevance, selected)) if return_convergence_delta else parts

        return in_batches(explain, inputs, target, additional_forward_args, internal_batch_size, allow_integers=True)

    def _explain(
        self, inputs: Inputs, target: Target, additional: Any, attribute_to_layer_input: bool
    ) -> tuple[list[Any], Tensor]:
        """The relevance at each layer and the explained values, all examples at once."""
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        captures = [LayerCapture(self.model, layer, attribute_to_layer_input) for layer in layers]
        with explaining(self.model, as_tuple(inputs), additional):
            propagation = self._propagation(additional, LayerCaptures(captures))
            for capture in captures:  # which the propagation refers to: a cycle would outlive the call
                capture.then = partial(begin_at, weakref.proxy(propagation))
            _, _, selected = self._forward(
                propagation, as_tuple(inputs), additional, partial(select_target, target=target)
            )
            # For each tensor of each layer, the places of its relevance: one backward pass for all.
            groups = [[propagation.found_at(tensor) for tensor in capture.dependent_tensors()] for capture in captures]
            places = [place for group in groups for several in group for place in several]
            # The explained values are a place, too: they have relevance even if no layer has any.
            # Relevance at the carrier of a folded result arrives at the carrier of the tensor itself, too.
            carriers = [
                propagation.carrier(place) if place is several[0] else None
                for group in groups
                for several in group
                for place in several
            ]
            found = iter(relevance_at([*places, selected], [*carriers, None], selected))
            results = [
                tuple(torch.stack([next(found) for _ in several]).sum(0) for several in group) for group in groups
            ]
        return [parts if len(parts) > 1 else parts[0] for parts in results], selected.detach()

    def _deltas(self, relevance: Sequence[Any], output: Tensor) -> Any:
        """The relevance absorbed above each layer."""
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        deltas = [self._delta(layer, parts, output) for layer, parts in zip(layers, relevance, strict=True)]
        return deltas if isinstance(self.layer, list) else deltas[0]

    def _delta(self, layer: nn.Module, relevance: Inputs, output: Tensor) -> Tensor:
        """The relevance absorbed above a layer `(N,)`."""
        try:
            return self.compute_convergence_delta(relevance, output)
        except InputValueError as error:
            raise LayerError(f"layer {describe(self.model, layer)} has no convergence delta: its {error}") from None
