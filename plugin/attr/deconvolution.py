"""Deconvnet (Zeiler and Fergus 2014): the positive signal is passed down, independent of the activations.

    backward signal of y = relu(x):   relu(m)

Max-pooling passes its signal to the position of the maximum, the "switch", or, with another `unpooling`, to positions
that a fixed rule gives (`plugin.kernels.unpooling`). With such a rule, or in a network without max-pooling, the
backward pass does not depend on the image; `DeconvNet` then needs none. The values at the pixels are not rectified.
"""

from torch import nn

from ..captum_api import check_device_ids
from ..rules import DECONVNET
from .modified import ModifiedBackprop, NeuronModifiedBackprop


class Deconvolution(ModifiedBackprop):
    """Deconvnet of an output; the API of `captum.attr.Deconvolution`, and the choice of `unpooling`.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import Deconvolution
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> Deconvolution(model).attribute(images, target=3).shape
    torch.Size([2, 3, 8, 8])
    >>> Deconvolution(model, unpooling="center").attribute(images, target=3).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(self, model: nn.Module, unpooling: str = "switches") -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            unpooling: where max-pooling passes its signal: "switches" (Zeiler and Fergus), "center", "corner",
                "uniform" or "replicate".

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
            OptionError: there is no such unpooling.
        """
        super().__init__(model, DECONVNET.with_unpooling(unpooling))


class NeuronDeconvolution(NeuronModifiedBackprop):
    """Deconvnet of one neuron; the API of `captum.attr.NeuronDeconvolution`, and the choice of `unpooling`.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import NeuronDeconvolution
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> NeuronDeconvolution(model, "0").attribute(images, (2, 4, 4)).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module | str,
        device_ids: list[int] | None = None,
        unpooling: str = "switches",
    ) -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            layer: one of its modules, or the name of one.
            device_ids: accepted for compatibility with Captum; not needed.
            unpooling: where max-pooling passes its signal, as in `Deconvolution`.

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
            LayerError: it has no such layer.
            OptionTypeError: another option was given in the place of `device_ids`.
            OptionError: there is no such unpooling.
        """
        check_device_ids(device_ids, "unpooling")
        super().__init__(model, layer, DECONVNET.with_unpooling(unpooling), device_ids)
