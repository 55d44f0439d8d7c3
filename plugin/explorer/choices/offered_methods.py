"""Methods by name: those of `plugin.attr.methods`, and deconvnets without switches or without a picture."""

from dataclasses import replace

from plugin.attr.methods import METHODS as _SHARED
from plugin.attr.methods import Method, lrp_key
from plugin.rules import SWITCH_FREE

__all__ = [
    "FIRST",
    "METHODS",
    "NO_IMAGE",
    "OF_DATA_SETS",
    "OF_PICTURES",
    "UNPOOLING_LABELS",
    "WITHOUT_SWITCHES",
    "Method",
    "lrp_key",
]

# The places to which max-pooling passes its signal without switches.
UNPOOLING_LABELS = {name: {"center": "centre"}.get(name, name) for name in SWITCH_FREE}

WITHOUT_SWITCHES = {
    f"deconvnet-{unpooling}": replace(
        _SHARED["deconvnet"], label=f"Deconvnet, {label}", construct={"unpooling": unpooling}
    )
    for unpooling, label in UNPOOLING_LABELS.items()
}

# A unit without a picture: `DeconvNet(network, layer, input_shape, unpooling).reconstruct([neuron])`.
NO_IMAGE = "no-image"

METHODS: dict[str, Method] = (
    _SHARED
    | WITHOUT_SWITCHES
    | {
        NO_IMAGE: replace(
            _SHARED["deconvnet"], label="Deconvnet, no picture", explains_class="", explains_neuron="DeconvNet"
        )
    }
)
# The first to try, one of each kind; lists begin with them.
FIRST = ("gradient", "guided-backprop", "guided-grad-cam", "deconvnet", "lrp-epsilon", "lrp-epsilon-plus-flat")
OF_PICTURES = (*FIRST, *(key for key in METHODS if key not in (*FIRST, NO_IMAGE)))
# The methods with which `plugin.datasets` computes maps.
OF_DATA_SETS = tuple(_SHARED)
