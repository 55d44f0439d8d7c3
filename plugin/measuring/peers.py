"""The same methods by Captum and by zennit, each as its users would write it, with all reusable work done once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[], Tensor]


def captum(method: str, model: nn.Module, images: Tensor, target: int) -> Call:
    """Captum's implementation; several targets take several calls, as it has no other way.

    Raises:
        ValueError: Captum has no such method.
    """
    from captum import attr

    classes = {"guided-backprop": attr.GuidedBackprop, "deconvnet": attr.Deconvolution, "lrp-epsilon": attr.LRP}
    if method == "ten-targets":
        lrp = attr.LRP(model)
        return lambda: torch.stack([lrp.attribute(images, target=index) for index in range(10)])
    if method not in classes:
        raise ValueError(f"Captum has no {method}")
    return partial(classes[method](model).attribute, images, target=target)


@contextmanager
def zennit(method: str, network: str, model: nn.Module, images: Tensor, target: int) -> Iterator[Call]:
    """zennit's implementation, with the canonizer that it provides for the network; its hooks stay on until the end.

    Raises:
        ModuleNotFoundError: it is not installed.
        ValueError: zennit has no such method.
    """
    from zennit.attribution import Gradient

    scaled = method.startswith("lrp")

    def seed(output: Tensor) -> Tensor:
        """The signal at the output: LRP starts with the output's value, the others with one."""
        signal = torch.zeros_like(output)
        signal[:, target] = output[:, target].detach() if scaled else 1.0
        return signal

    with Gradient(model=model, composite=_composite(method, network)) as attributor:
        yield lambda: attributor(images, seed)[1].detach()


def _composite(method: str, network: str) -> Any:
    from zennit import canonizers, composites, rules, torchvision, types

    provided = {"vgg16": torchvision.VGGCanonizer, "resnet50": torchvision.ResNetCanonizer}
    canonizer = [provided.get(network, canonizers.SequentialMergeBatchNorm)()]
    everywhere = [*composites.layer_map_base(), (types.Linear, rules.Epsilon(1e-6))]
    made: dict[str, Callable[[], Any]] = {
        "guided-backprop": composites.GuidedBackprop,
        "deconvnet": composites.DeconvNet,
        "lrp-epsilon": lambda: composites.LayerMapComposite(everywhere, canonizers=canonizer),
        "lrp-epsilon-plus-flat": lambda: composites.EpsilonPlusFlat(canonizers=canonizer),
        "lrp-epsilon-gamma-box": lambda: composites.EpsilonGammaBox(low=-2.2, high=2.7, canonizers=canonizer),
    }
    if method not in made:
        raise ValueError(f"zennit has no {method}")
    return made[method]()
