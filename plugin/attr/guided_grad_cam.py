"""Guided Grad-CAM (Selvaraju et al. 2017): guided backprop, weighted by the regions where a layer supports the class.

With A the layer's activations `(N, K, h, w)` and y the explained output,

    L = relu(sum_k  mean_{i,j}(dy / dA_kij) * A_k),      result = guided backprop * L enlarged to the input's size.
"""

import warnings
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..captum_api import LayerAttribution, Target, as_given, check_device_ids, log_usage, select_target
from ..errors import LayerError
from ..inputs import Given, Inputs, as_tuple
from ..observing import LayerCapture, describe, find_layer
from ._base import ModifiedGradientAttribution, explaining, make_leaves, run_under_rules, signals_at
from ._batches import in_batches
from .guided import GuidedBackprop


class GuidedGradCam(ModifiedGradientAttribution):
    """Guided Grad-CAM of an output; the API of `captum.attr.GuidedGradCam`.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import GuidedGradCam
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> GuidedGradCam(model, "1").attribute(images, target=3, interpolate_mode="bilinear").shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(self, model: nn.Module, layer: nn.Module | str, device_ids: list[int] | None = None) -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            layer: one of its modules, or the name of one; usually the last with spatial extent.
            device_ids: accepted for compatibility with Captum; not needed.

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
            LayerError: it has no such layer.
            OptionTypeError: another option was given in the place of `device_ids`.
        """
        check_device_ids(device_ids)
        self.guided_backprop = GuidedBackprop(model)
        super().__init__(model)
        self.model, self.layer = model, find_layer(model, layer)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Given,
        target: Target = None,
        additional_forward_args: Any = None,
        interpolate_mode: str = "nearest",
        attribute_to_layer_input: bool = False,
        internal_batch_size: int | None = None,
    ) -> Given:
        """Explain one output per example.

        Args:
            inputs: tensor `(N, C, ...)` or a tuple of tensors; floating point.
            target: output to explain, see `GuidedBackprop.attribute`.
            additional_forward_args: further arguments of the model, which receive no attribution.
            interpolate_mode: the mode of `torch.nn.functional.interpolate` that enlarges the layer's map.
            attribute_to_layer_input: use the layer's input instead of its output.
            internal_batch_size: as in `GuidedBackprop.attribute`.

        Returns:
            The product at each input, in the inputs' shapes, detached. For an input to whose size the layer's map
            cannot be enlarged, an empty tensor (and a warning).

        Raises:
            LayerError: the layer was not reached, does not depend on the inputs, or handles more than one tensor.
            NoDependenceError: the output does not depend on the layer.
            TargetError, ModelOutputError, InputTypeError, InputValueError: as `GuidedBackprop.attribute`.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import GuidedGradCam
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
        >>> images = torch.randn(2, 3, 8, 8)
        >>> GuidedGradCam(model, "1").attribute(images, target=[3, 5], internal_batch_size=1).shape
        torch.Size([2, 3, 8, 8])
        """

        def explain(some: Inputs, target: Target, additional: Any) -> Inputs:
            values = as_tuple(some)
            cam = self._grad_cam(values, target, additional, attribute_to_layer_input)
            guided = self.guided_backprop.attribute(values, target, additional)
            return as_given(some, tuple(_weigh(signal, cam, interpolate_mode) for signal in guided))

        return cast("Given", in_batches(explain, inputs, target, additional_forward_args, internal_batch_size))

    def _grad_cam(
        self, inputs: tuple[Tensor, ...], target: Target, additional_forward_args: Any, at_input: bool
    ) -> Tensor:
        """The layer's map `(N, 1, h, w)`."""
        capture = LayerCapture(self.model, self.layer, at_input)
        with explaining(self.model, inputs, additional_forward_args):
            leaves = make_leaves(inputs)
            select = partial(select_target, target=target)
            selected = run_under_rules(self.model, {}, leaves, additional_forward_args, select, capture)
            activations = capture.dependent_tensors()
            if len(activations) != 1:
                raise LayerError(
                    f"layer {describe(self.model, self.layer)} has {len(activations)} tensors, and Guided Grad-CAM "
                    "needs one: choose another layer"
                )
            activation = activations[0]
            (gradient,) = signals_at((activation,), selected)
        weights = gradient.flatten(2).mean(2) if gradient.ndim > 2 else gradient
        weights = weights.reshape(*weights.shape, *(1,) * (gradient.ndim - weights.ndim))
        return (weights * activation.detach()).sum(1, keepdim=True).relu()


def _weigh(signal: Tensor, cam: Tensor, mode: str) -> Tensor:
    try:
        enlarged = LayerAttribution.interpolate(cam, tuple(signal.shape[2:]), mode)
        result: Tensor = signal * enlarged
        return result
    except (NotImplementedError, RuntimeError, ValueError) as error:
        warnings.warn(
            f"the layer's map {tuple(cam.shape)} cannot be enlarged to the input {tuple(signal.shape)} ({error}): "
            "an empty tensor is returned for it",
            stacklevel=2,
        )
        return torch.empty(0)
