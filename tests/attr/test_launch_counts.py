"""How many operations an attribution launches on a device, in those of a gradient: one image on a GPU takes that long.

The tensors are on PyTorch's device "meta", which has shapes and no values: any operation is only counted.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from plugin.attr import GuidedBackprop, LRPTranspose
from plugin.measuring import cases, measured_networks

aten = torch.ops.aten
# They allocate, ask, or give another view of the same values; a number on the processor is an argument of the launch.
NO_LAUNCH = {
    aten.detach, aten.empty_like, aten.is_set_to, aten.new_empty, aten.promote_types, aten.scalar_tensor,
    aten._unsafe_view,
}  # fmt: skip
METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "guided": GuidedBackprop,
    "epsilon": lambda network: LRPTranspose(network, "epsilon"),
}
LIMITS = {"guided": 1.13, "epsilon": 1.29}
# Launches that no other form of the rule saves.
OWN_LIMITS = {
    # Each ReLU takes one more, max(signal, 0), and a call 3 to check its input and output. VGG-16 has 15 ReLUs, and 78
    # operations in all: its gradient has hardly anything to which they could be compared.
    ("vgg16", "guided"): 1.24,
    ("vgg16", "epsilon"): 1.3,
    # Queries, keys and values are projected and weighed one by one, and layer norms are written in differences from the
    # mean: PyTorch has each in one operation, which has no place for a rule.
    ("vit_b_16", "epsilon"): 1.59,
}


class Launches(TorchDispatchMode):
    """Counts the operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    @property
    def count(self) -> int:
        return sum(self.found.values())

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not operation.is_view and operation.overloadpacket not in NO_LAUNCH:
            self.found[str(operation)] += 1
        if operation is aten._local_scalar_dense.default:
            return 1.0  # the value that is read: that a sum is finite
        if operation is aten._to_copy.default and kwargs["device"].type == "cpu":
            return torch.zeros(args[0].shape)  # the explained values, which are read: that they are finite
        if operation is aten.is_set_to.default:
            one, other = args
            return one.untyped_storage()._cdata == other.untyped_storage()._cdata and one.shape == other.shape
        if "out" in kwargs:  # "meta" refuses a number on the processor beside it, which GPUs take
            return kwargs["out"]
        return operation(*args, **kwargs)


@lru_cache(maxsize=1)
def measured_network(name: str) -> tuple[nn.Module, Tensor]:
    with torch.device("meta"):
        network = measured_networks.build(name)
    return network, torch.empty(1, 3, measured_networks.SIDE, measured_networks.SIDE, device="meta")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", measured_networks.NAMES)
def test_launches_are_hardly_more_than_those_of_a_gradient(name: str, method: str) -> None:
    network, image = measured_network(name)
    with Launches() as floor:
        cases.floor(network, image)
    attribution = METHODS[method](network)
    with Launches() as first:
        attribution.attribute(image, target=cases.TARGET)
    with Launches() as call:
        attribution.attribute(image, target=cases.TARGET)
    assert floor.count > 70
    assert call.count <= first.count
    more = {name: count - floor.found[name] for name, count in call.found.items() if count > floor.found[name]}
    limit = OWN_LIMITS.get((name, method), LIMITS[method])
    assert call.count <= limit * floor.count, f"{call.count / floor.count:.3f} of a gradient's; more: {more}"
