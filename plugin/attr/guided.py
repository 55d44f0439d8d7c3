"""Guided backprop (Springenberg et al. 2015): only positive signal passes, and only through active units.

    backward signal of y = relu(x):   relu(m) * 1[x > 0]

Every spelling of ReLU counts, and other activations have the rule of `plugin.rules.relu`. The values at the pixels
are not rectified: a negative value means that a darker pixel would raise the output.
"""

from typing import Any

from ..captum_api import Neuron, Target, log_usage
from ..inputs import Given
from ..propagation import Activation
from ..rules import GUIDED
from ._base import NeuronSignalAttribution, SignalAttribution


class GuidedBackprop(SignalAttribution):
    """Guided backprop of an output; the API of `captum.attr.GuidedBackprop`.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import GuidedBackprop
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> GuidedBackprop(model).attribute(images, target=[3, 5]).shape
    torch.Size([2, 3, 8, 8])
    """

    rules = {Activation: GUIDED.activation}

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Given,
        target: Target = None,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        create_graph: bool = False,
    ) -> Given:
        """Explain one output per example.

        Args:
            inputs: tensor `(N, ...)`, such as images `(N, C, H, W)`, or a tuple of tensors; floating point.
            target: output to explain: None (one output per example), an int, a tuple, a tensor, or a list with one
                entry per example, as in Captum; or a function of the output that returns `(N,)`.
            additional_forward_args: further arguments of the model, which receive no attribution.
            internal_batch_size: the number of examples explained at a time, so that only their activations are held;
                None: all. The result is the same where examples do not influence each other, as in eval mode.
            create_graph: return the signal with its graph, as in `LRPTranspose.attribute`.

        Returns:
            The signal at each input, in the inputs' shapes, detached unless `create_graph`; zeros for an input that is
            not used.

        Raises:
            TargetError: there is no such target (an AssertionError, as in Captum, and an IndexError).
            ModelOutputError: the model returns no tensor, and the target is no function.
            InputTypeError: an input is not floating point (a TypeError).
            InputValueError: an input is empty or not finite (a ValueError).
            NoDependenceError: the output depends on no input (a ValueError).
            UnseenOperationError: an activation escaped its rule (a RuntimeError).
            NotSupportedError: with `create_graph`, see `LRPTranspose.attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import GuidedBackprop
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
        >>> guided = GuidedBackprop(model)
        >>> images = torch.randn(2, 3, 8, 8)
        >>> guided.attribute(images, target=lambda output: output[:, 3] - output[:, 5]).shape  # two classes
        torch.Size([2, 3, 8, 8])
        """
        return self._attribute(inputs, target, additional_forward_args, internal_batch_size, create_graph)


class NeuronGuidedBackprop(NeuronSignalAttribution):
    """Guided backprop of one neuron; the API of `captum.attr.NeuronGuidedBackprop`.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import NeuronGuidedBackprop
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> NeuronGuidedBackprop(model, "0").attribute(images, (2, 4, 4)).shape  # channel 2 at row 4, column 4
    torch.Size([2, 3, 8, 8])
    """

    method = GuidedBackprop

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Given,
        neuron_selector: Neuron,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        internal_batch_size: int | None = None,
    ) -> Given:
        """Explain one neuron per example.

        Args:
            inputs: tensor `(N, ...)` or a tuple of tensors; floating point.
            neuron_selector: index in the layer's output without the batch dimension, such as `(channel, row, column)`;
                slices in a tuple are summed over; or a function of the output that returns `(N,)`.
            additional_forward_args: further arguments of the model, which receive no attribution.
            attribute_to_neuron_input: select in the layer's input instead of its output.
            internal_batch_size: as in `GuidedBackprop.attribute`.

        Returns:
            The signal at each input, in the inputs' shapes, detached.

        Raises:
            NeuronError: the layer has no such neuron (an AssertionError, as in Captum, and an IndexError).
            LayerError: the layer was not reached (a ValueError).
            InputTypeError, InputValueError, NoDependenceError, UnseenOperationError: as `GuidedBackprop.attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import NeuronGuidedBackprop
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
        >>> images = torch.randn(2, 3, 8, 8)
        >>> channel = (2, slice(None), slice(None))  # at all positions together
        >>> NeuronGuidedBackprop(model, "1").attribute(images, channel).shape
        torch.Size([2, 3, 8, 8])
        """
        return self._attribute(
            inputs, neuron_selector, additional_forward_args, attribute_to_neuron_input, internal_batch_size
        )
