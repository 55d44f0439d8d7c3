"""Attribution classes with Captum's API."""

from ..errors import AttributionError
from .deconvnet import DeconvNet
from .deconvolution import Deconvolution, NeuronDeconvolution
from .guided import GuidedBackprop, NeuronGuidedBackprop
from .guided_grad_cam import GuidedGradCam
from .lrp import LayerLRPTranspose, LRPTranspose
from .modified import ModifiedBackprop, NeuronModifiedBackprop
from .neuron_lrp import NeuronLRPTranspose

__all__ = [
    "AttributionError",
    "DeconvNet",
    "Deconvolution",
    "NeuronDeconvolution",
    "GuidedBackprop",
    "NeuronGuidedBackprop",
    "GuidedGradCam",
    "ModifiedBackprop",
    "NeuronModifiedBackprop",
    "LRPTranspose",
    "LayerLRPTranspose",
    "NeuronLRPTranspose",
]
