"""LRP of one neuron at the inputs (Bach et al. 2015): `LRPTranspose` that begins at a value of a layer."""

from typing import Any, cast

from torch import Tensor, nn

from ..captum_api import Neuron, NeuronAttribution, Target, as_given, check_device_ids, log_usage, select_neuron
from ..inputs import Given, Inputs, as_tuple
from ..observing import LayerCapture, describe, find_layer
from ..rules.composite import Composite
from ._base import explaining
from ._batches import in_batches
from ._relevance import RelevanceAttribution, relevance_at


class NeuronLRPTranspose(NeuronAttribution, RelevanceAttribution):
    """LRP of one neuron at the inputs.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import NeuronLRPTranspose
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> NeuronLRPTranspose(model, "0", rules="epsilon_plus").attribute(images, (2, 4, 4)).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        device_ids: list[int] | None = None,
        rules: str | Composite = "epsilon",
        unknown: str = "raise",
    ) -> None:
        """
        Args:
            model, rules, unknown: see `LRPTranspose`.
            layer: a module of the model, or its name.
            device_ids: accepted for compatibility with Captum; not needed.

        Raises:
            OptionTypeError: another option was given in the place of `device_ids`. Others as `LRPTranspose`.
            LayerError: the model has no such layer.
        """
        check_device_ids(device_ids, "rules")
        RelevanceAttribution.__init__(self, model, rules, unknown)
        NeuronAttribution.__init__(self, model, find_layer(model, layer), device_ids)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Given,
        neuron_selector: Neuron,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        internal_batch_size: int | None = None,
    ) -> Given:
        """Explain one neuron per example; the relevance sums to its activation, less the absorbed part.

        Args:
            inputs: tensor `(N, ...)` or a tuple of tensors; floating point.
            neuron_selector: index in the layer's output without the batch dimension, such as `(channel, row, column)`;
                slices in a tuple are summed over; or a function of the output that returns `(N,)`.
            additional_forward_args: further arguments of the model, which receive no attribution.
            attribute_to_neuron_input: select in the layer's input instead of its output.
            internal_batch_size: the number of examples explained at a time; None: all.

        Returns:
            Relevance in the inputs' shapes, in units of the neuron's value, detached.

        Raises:
            NeuronError: the layer has no such neuron (an AssertionError, as in Captum, and an IndexError).
            LayerError: the layer was not reached (a ValueError). Others as in `LRPTranspose.attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import NeuronLRPTranspose
        >>> NeuronLRPTranspose(nn.Sequential(nn.Linear(4, 5), nn.ReLU()), "1").attribute(torch.randn(2, 4), 3).shape
        torch.Size([2, 4])
        """

        def explain(some: Inputs, _: Target, additional: Any) -> Inputs:
            capture = LayerCapture(self.model, self.layer, attribute_to_neuron_input)
            with explaining(self.model, as_tuple(some), additional):
                propagation = self._propagation(additional, capture)

                def select(_: Any) -> Tensor:
                    return select_neuron(capture.tensors(), neuron_selector, describe(self.model, self.layer))

                leaves, carriers, selected = self._forward(propagation, as_tuple(some), additional, select)
                return as_given(some, relevance_at(leaves, carriers, selected))

        return cast("Given", in_batches(explain, inputs, None, additional_forward_args, internal_batch_size))
