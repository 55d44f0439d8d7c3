"""Methods by name: those of `plugin.attr.methods`, and deconvnets without switches or without a picture."""

from plugin.attr.methods import METHODS as _SHARED
from plugin.attr.methods import Method, lrp_key
from plugin.rules import SWITCH_FREE

__all__ = [
    "METHODS",
    "NO_IMAGE",
    "OF_DATA_SETS",
    "OF_PICTURES",
    "UNPOOLING_LABELS",
    "WITHOUT_SWITCHES",
    "Method",
    "lrp_key",
]

# Where max-pooling hands its signal when no switch tells.
UNPOOLING_LABELS = {name: {"center": "centre"}.get(name, name) for name in SWITCH_FREE}

WITHOUT_SWITCHES = {
    f"deconvnet-{unpooling}": Method(
        f"Deconvnet, {label}",
        "plugin.attr",
        "Deconvolution",
        "NeuronDeconvolution",
        construct={"unpooling": unpooling},
        reading=_SHARED["deconvnet"].reading,
    )
    for unpooling, label in UNPOOLING_LABELS.items()
}

# A unit without a picture: `DeconvNet(network, layer, input_shape, unpooling).reconstruct([neuron])`.
NO_IMAGE = "no-image"

METHODS: dict[str, Method] = (
    _SHARED
    | WITHOUT_SWITCHES
    | {NO_IMAGE: Method("Deconvnet, no picture", "plugin.attr", "", "DeconvNet", reading=_SHARED["deconvnet"].reading)}
)
OF_PICTURES = tuple(key for key in METHODS if key != NO_IMAGE)
# Those that `plugin.datasets` makes maps with.
OF_DATA_SETS = tuple(_SHARED)
