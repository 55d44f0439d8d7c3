"""The methods by name, one row each: the explorer and `python -m plugin attribute` offer every row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..errors import OptionError
from ..rules.presets import PRESETS
from .method_guides import GUIDES, Guide


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
        guide: how to read its map, and when to choose it.
    """

    label: str
    module: str
    explains_class: str
    explains_neuron: str = ""
    needs_layer: bool = False
    construct: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""
    guide: Guide = field(default_factory=Guide)

    @property
    def reading(self) -> str:
        """The meaning of a map's colours, in sentences; empty where it is not known."""
        return self.guide.reading

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


METHODS: dict[str, Method] = {
    "gradient": Method(
        "Gradient",
        "plugin.attr",
        "ModifiedBackprop",
        "NeuronModifiedBackprop",
        construct={"rule": "gradient"},
        guide=GUIDES["gradient"],
    ),
    "deconvnet": Method("Deconvnet", "plugin.attr", "Deconvolution", "NeuronDeconvolution", guide=GUIDES["deconvnet"]),
    "guided-backprop": Method(
        "Guided backprop", "plugin.attr", "GuidedBackprop", "NeuronGuidedBackprop", guide=GUIDES["guided-backprop"]
    ),
    "guided-grad-cam": Method(
        "Guided Grad-CAM", "plugin.attr", "GuidedGradCam", needs_layer=True, guide=GUIDES["guided-grad-cam"]
    ),
} | {
    lrp_key(name): Method(
        _LRP_LABELS.get(name, f"LRP {name}"),
        "plugin.attr",
        "LRPTranspose",
        "NeuronLRPTranspose",
        preset=name,
        guide=GUIDES.get(lrp_key(name), Guide()),
    )
    for name in PRESETS
}
