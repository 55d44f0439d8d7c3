"""Backpropagation under any row of the table in `plugin.rules.relu`, by name or as a rule of your own."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ..captum_api import Neuron, Target, log_usage
from ..errors import OptionError, OptionTypeError
from ..inputs import Given
from ..propagation import Activation, MaxPooling
from ..propagation.activation import own_gradient
from ..rules import SIGNAL_RULES, SignalRule
from ._base import NeuronSignalAttribution, SignalAttribution


def operations_of(rule: SignalRule) -> dict[type, Callable[[Any], Any]]:
    """The operations that a rule computes; pooling with switches is autograd's own, and may be so with all else."""
    if rule.unpooling == "switches":
        is_gradient = rule.forward_mask and not rule.backward_relu
        return {Activation: own_gradient if is_gradient else rule.activation}
    return {Activation: rule.activation, MaxPooling: rule.max_pooling}


class ModifiedBackprop(SignalAttribution):
    """The signal at the inputs under one rule of the family.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import ModifiedBackprop
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> ModifiedBackprop(model, "gradient").attribute(images, target=3).shape
    torch.Size([2, 3, 8, 8])
    >>> ModifiedBackprop(model, "guided without switches").attribute(images, target=3).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(self, model: nn.Module, rule: str | SignalRule) -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            rule: a name in `plugin.rules.SIGNAL_RULES`, or a rule.

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
            OptionError: there is no such rule.
            OptionTypeError: it is neither.
        """
        super().__init__(model)
        if not isinstance(rule, str | SignalRule):
            raise OptionTypeError(f"rule = {rule!r}: give a name in plugin.rules.SIGNAL_RULES or a SignalRule")
        if isinstance(rule, str) and rule not in SIGNAL_RULES:
            raise OptionError(f"unknown rule {rule!r}: choose one of {', '.join(SIGNAL_RULES)}")
        self.rule = SIGNAL_RULES[rule] if isinstance(rule, str) else rule
        self.rules = operations_of(self.rule)

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
            internal_batch_size: the number of examples explained at a time; None: all.
            create_graph: return the signal with its graph, as in `LRPTranspose.attribute`.

        Returns:
            The signal at each input, in the inputs' shapes, detached unless `create_graph`.

        Raises:
            TargetError: there is no such target (an AssertionError, as in Captum, and an IndexError).
            ModelOutputError: the model returns no tensor, and the target is no function.
            InputTypeError, InputValueError: an input is not floating point; it is empty or not finite.
            NoDependenceError: the output depends on no input (a ValueError).
            UnseenOperationError: an activation escaped its rule (a RuntimeError); for "gradient", which needs none, a
                function read a value that had been overwritten.
            NotSupportedError: with `create_graph`, see `LRPTranspose.attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import ModifiedBackprop
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
        >>> images = torch.randn(2, 3, 8, 8)
        >>> gradient = ModifiedBackprop(model, "gradient").attribute(images, target=[3, 5])
        >>> (images * gradient).shape  # input times gradient
        torch.Size([2, 3, 8, 8])
        """
        return self._attribute(inputs, target, additional_forward_args, internal_batch_size, create_graph)


class NeuronModifiedBackprop(NeuronSignalAttribution):
    """The signal of one neuron of any layer at the inputs under one rule of the family.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import NeuronModifiedBackprop
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> NeuronModifiedBackprop(model, "0", "linear adjoint").attribute(images, (2, 4, 4)).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        rule: str | SignalRule,
        device_ids: list[int] | None = None,
    ) -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            layer: one of its modules, or the name of one.
            rule: a name in `plugin.rules.SIGNAL_RULES`, or a rule.
            device_ids: accepted for compatibility with Captum; not needed.

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
            LayerError: it has no such layer.
            OptionError: there is no such rule.
            OptionTypeError: the rule is neither, or another option was given in the place of `device_ids`.
        """
        self.method = partial(ModifiedBackprop, rule=rule)
        super().__init__(model, layer, device_ids)

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
            internal_batch_size: the number of examples explained at a time; None: all.

        Returns:
            The signal at each input, in the inputs' shapes, detached.

        Raises:
            NeuronError: the layer has no such neuron (an AssertionError, as in Captum, and an IndexError).
            LayerError: the layer was not reached (a ValueError).
            InputTypeError, InputValueError, NoDependenceError, UnseenOperationError: as `ModifiedBackprop.attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import NeuronModifiedBackprop
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
        >>> images = torch.randn(2, 3, 8, 8)
        >>> signal = NeuronModifiedBackprop(model, "1", "gradient")
        >>> signal.attribute(images, (2, 4, 4), attribute_to_neuron_input=True).shape
        torch.Size([2, 3, 8, 8])
        """
        return self._attribute(
            inputs, neuron_selector, additional_forward_args, attribute_to_neuron_input, internal_batch_size
        )
