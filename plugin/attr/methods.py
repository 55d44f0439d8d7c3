"""The methods by name, one row each: the explorer and `python -m plugin attribute` offer every row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..errors import OptionError
from ..rules.presets import PRESETS


@dataclass(frozen=True)
class Method:
    """The call of a method, as text and as data, so that the map and its snippet cannot disagree.

    Attributes:
        label: the name for people.
        module: the module of both classes.
        explains_class: name of the class with `(network[, layer], **construct).attribute(inputs, target=, **call)`.
        explains_neuron: name of the class with `(network, layer, **construct).attribute(inputs, neuron_selector=,
            **neuron_call)`; empty if the method has none.
        needs_layer: the first class takes a layer of shape (C, H, W), too.
        construct: keyword arguments of the constructors.
        call: keyword arguments of the first `attribute`.
        preset: the preset of `plugin.rules.presets` that the constructors take as `rules`; empty if they take none.
        reading: the meaning of a map's colours, in sentences; red is positive, blue negative.
        quantity: what the numbers of a map are, in which `{score}` stands for what is explained.
    """

    label: str
    module: str
    explains_class: str
    explains_neuron: str = ""
    needs_layer: bool = False
    construct: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""
    reading: str = ""
    quantity: str = ""

    def attribution_class(self, neuron: bool) -> Any:
        """The class to construct, for a neuron or for a class score."""
        return getattr(import_module(self.module), self.class_name(neuron))

    def class_name(self, neuron: bool) -> str:
        """The name of that class.

        Raises:
            OptionError: the method does not explain neurons.
        """
        if neuron and not self.explains_neuron:
            raise OptionError(f"{self.label} explains class scores only, not single neurons.")
        return self.explains_neuron if neuron else self.explains_class


_LRP_LABELS = {
    "lrp_0": "LRP-0",
    "epsilon": "LRP epsilon",
    "epsilon_plus": "LRP epsilon, z+",
    "epsilon_plus_flat": "LRP epsilon, z+, flat",
    "epsilon_gamma_box": "LRP epsilon, gamma, box",
    "epsilon_alpha2_beta1": "LRP epsilon, alpha 2 beta 1",
    "epsilon_alpha2_beta1_flat": "LRP epsilon, alpha 2 beta 1, flat",
    "excitation_backprop": "Excitation backprop",
    "attn_lrp": "AttnLRP",
    "cp_lrp": "CP-LRP",
}


def lrp_key(preset: str) -> str:
    """The key in `METHODS` of a preset of LRP."""
    return "lrp-" + preset.removeprefix("lrp_").replace("_", "-")


_GRADIENT = (
    "A slightly larger value of a red pixel raises the score, one of a blue pixel lowers it. It says nothing of larger "
    "changes, such as removing the pixel."
)
_DECONVNET = (
    "The map draws the pattern that is found by following positive signal down from the score. Its signs are those of "
    "the pattern, not votes for or against the class."
)
_GUIDED_BACKPROP = (
    "The map draws the pattern that excited the units that lead to the score. Its signs are those of the pattern, not "
    "votes for or against the class, and another class often has nearly the same map."
)
_GUIDED_GRAD_CAM = (
    "Guided backprop, kept where a layer's weighted channels support the class and zero elsewhere. Its signs are those "
    "of the pattern, not votes for or against the class."
)
_LRP = (
    "The score is divided among the pixels by the rules: red shares are positive, blue ones negative, and together "
    "with what biases and stabilisers absorb they add up to the score. A share is not the loss of score without "
    "the pixel."
)

METHODS: dict[str, Method] = {
    "gradient": Method(
        "Gradient",
        "plugin.attr",
        "ModifiedBackprop",
        "NeuronModifiedBackprop",
        construct={"rule": "gradient"},
        reading=_GRADIENT,
        quantity="change of the {score} per unit of the normalised input",
    ),
    "deconvnet": Method(
        "Deconvnet",
        "plugin.attr",
        "Deconvolution",
        "NeuronDeconvolution",
        reading=_DECONVNET,
        quantity="deconvnet signal of the {score}",
    ),
    "guided-backprop": Method(
        "Guided backprop",
        "plugin.attr",
        "GuidedBackprop",
        "NeuronGuidedBackprop",
        reading=_GUIDED_BACKPROP,
        quantity="guided gradient of the {score}",
    ),
    "guided-grad-cam": Method(
        "Guided Grad-CAM",
        "plugin.attr",
        "GuidedGradCam",
        needs_layer=True,
        reading=_GUIDED_GRAD_CAM,
        quantity="guided gradient of the {score} times its Grad-CAM",
    ),
} | {
    lrp_key(name): Method(
        _LRP_LABELS.get(name, f"LRP {name}"),
        "plugin.attr",
        "LRPTranspose",
        "NeuronLRPTranspose",
        preset=name,
        reading=_LRP,
        quantity="relevance, in units of the {score}",
    )
    for name in PRESETS
}
