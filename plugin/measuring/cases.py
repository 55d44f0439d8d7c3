"""The measurements: a row of the results is a network, a method, an implementation, a batch size and a device."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attr import LRPTranspose
from ..attr.methods import METHODS
from ..rules.presets import epsilon
from . import measured_networks, peers

TARGET, TEN_TARGETS = 3, "ten-targets"
SIGNAL_METHODS = ("guided-backprop", "deconvnet")
LRP_METHODS = ("lrp-epsilon", "lrp-epsilon-plus-flat", "lrp-epsilon-gamma-box")
LABELS = {name: METHODS[name].label for name in ("lrp-0", *SIGNAL_METHODS, *LRP_METHODS)} | {
    TEN_TARGETS: "LRP epsilon, ten targets"
}
IMPLEMENTATIONS = {
    "ours": "this package",
    "compiled": "this package, compiled",
    "captum": "Captum",
    "zennit": "zennit",
}
# Distinguishable with red-green colour blindness.
COLOURS = {"ours": "#2166ac", "compiled": "#5e3c99", "captum": "#e69f00", "zennit": "#7a7a7a"}
# The implementations of each method. zennit has no attribution of several targets either; Captum stands for both.
IMPLEMENTED = dict.fromkeys((*SIGNAL_METHODS, "lrp-epsilon"), ("ours", "captum", "zennit")) | {
    "lrp-epsilon-plus-flat": ("ours", "zennit"),
    "lrp-epsilon-gamma-box": ("ours", "zennit"),
    TEN_TARGETS: ("ours", "captum"),
}
# The relative difference, in the norm, that two implementations of one thing may have in float32.
_TOLERANCE = {"guided-backprop": 1e-5, "deconvnet": 1e-5}
_CAPTUMS_STABILISER = 1e-9
_COMPILED_TOLERANCE = 1e-3
# Sums near zero, which LRP-epsilon divides by, depend on a library's stabilisers and on its folding of batch norm.
_WIDE_TOLERANCE = 5e-2

_UNSUPPORTED = {
    ("captum", "mobilenet_v2"): "Captum's LRP has no rule for ReLU6 and refuses the network",
    ("captum", "vit_b_16"): "Captum's LRP has no rule for layer norm and refuses the network",
    ("zennit", "vit_b_16"): "zennit has no rule for attention and fails on the network",
}


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        network: a key of `measured_networks.NAMES`, or the name of another measured model.
        method: a key of `LABELS`, or the name of another measured call.
        implementation: a key of `IMPLEMENTATIONS`.
        batch: images per call.
        device: "cpu", "cuda", or another one by its name.
    """

    network: str
    method: str
    implementation: str = "ours"
    batch: int = 1
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.network} {self.method} {self.device} batch {self.batch} {self.implementation}"


@dataclass(frozen=True)
class Case:
    """The timed calls of a row: one that returns a map, and the floor it takes turns with."""

    call: Callable[[], Tensor]
    floor: Callable[[], Any]


def unsupported(row: Row) -> str:
    """The reason for which a peer does not support the row: one clause; empty if it does."""
    return _UNSUPPORTED.get((row.implementation, row.network), "") if row.method in (*LRP_METHODS, TEN_TARGETS) else ""


@contextmanager
def prepared(row: Row, small: bool = False, mode: str = "") -> Iterator[Case]:
    """Prepare a row's calls; all work that a user does once is done before this yields.

    Args:
        row: the row of an attribution.
        small: a stand-in for the network, see `measured_networks.build`, and modes of compiling that are quick to
            prepare.
        mode: of compiling, see `accelerate.compile`; by default the fastest of the device.

    Raises:
        Exception: any error of the implementation on its construction.
    """
    # zennit keeps its hooks on the network as long as it is in use: it gets one of its own.
    model = _network(row.network, row.device, small, row.implementation == "zennit")
    images = measured_networks.images(row.batch, small).to(row.device)
    count = 10 if row.method == TEN_TARGETS else 1
    with ExitStack() as stack:
        if row.implementation == "zennit":
            call = stack.enter_context(peers.zennit(row.method, row.network, model, images, TARGET))
        else:
            prepare: dict[str, Callable[[str, nn.Module, Tensor, int], Callable[[], Tensor]]] = {
                "ours": _ours,
                "compiled": partial(_compiled, mode=mode or ("aten" if small else "")),
                "captum": peers.captum,
            }
            call = prepare[row.implementation](row.method, model, images, TARGET)
        # The floor's network is made when the floor is first run: a measurement of memory never runs it.
        yield Case(call, lambda: floor(_network(row.network, row.device, small, False), images, count))


def floor(model: nn.Module, images: Tensor, targets: int = 1) -> Tensor:
    """One forward pass and a gradient at the input for each target; returns the last gradient `(N, C, H, W)`."""
    leaf = images.clone().requires_grad_()
    output = model(leaf)
    for index in range(targets):
        target = TARGET if targets == 1 else index
        (gradient,) = torch.autograd.grad(output[:, target].sum(), leaf, retain_graph=index + 1 < targets)
    return gradient


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn off TF32, to which PyTorch rounds factors of convolutions on a GPU: for comparisons; timed calls use it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@lru_cache(maxsize=2)
def reference(row: Row, small: bool = False, stabiliser: float | None = None) -> Tensor:
    """This package's own map, uncompiled and in full precision; for LRP-epsilon with a given stabiliser."""
    model = _network(row.network, row.device, small, False)
    images = measured_networks.images(row.batch, small).to(row.device)
    with full_precision():
        if stabiliser is None:
            return _ours(row.method, model, images, TARGET)()
        result: Tensor = LRPTranspose(model, epsilon(stabiliser)).attribute(images, target=TARGET)
        return result


def difference(row: Row, result: Tensor, small: bool = False) -> float:
    """The distance of a map from this package's map, in units of the latter's norm; infinite where it is not finite."""
    captums = (row.implementation, row.method) == ("captum", "lrp-epsilon")
    expected = reference(replace(row, implementation="ours"), small, _CAPTUMS_STABILISER if captums else None).double()
    # In float64, as the square of a value may be beyond float32: maps of random networks reach 1e33, or 1e-25 at most.
    distance = float((result.detach() - expected).norm() / expected.norm())
    return distance if distance == distance else float("inf")


def tolerance(row: Row, small: bool = False) -> float | None:
    """The difference up to which two implementations agree; None where the peer computes another map.

    Captum and zennit take the plain gradient at the ReLU6 of MobileNets and at additions outside of modules, and
    Captum's LRP grows beyond all measure on ResNets. A compiled attribution has its precision compiled in: it may be
    twice as far from full precision as the uncompiled map is.
    """
    if row.implementation == "compiled":
        with prepared(replace(row, implementation="ours"), small) as case:
            return _COMPILED_TOLERANCE + 2 * difference(row, case.call(), small)
    same = row.network == "vgg16" or (
        row.network == "resnet50" and (row.implementation == "zennit" or row.method in SIGNAL_METHODS)
    )
    if not same:
        return None
    return _TOLERANCE.get(row.method, _WIDE_TOLERANCE)


@lru_cache(maxsize=2)
def _network(name: str, device: str, small: bool, own: bool) -> nn.Module:
    return measured_networks.build(name, small).to(device)


def _attribution(method: str, model: nn.Module) -> Any:
    found = METHODS[method]
    rules = {"rules": found.preset} if found.preset else {}
    return found.attribution_class(neuron=False)(model, **found.construct, **rules)


def _ours(method: str, model: nn.Module, images: Tensor, target: int) -> Callable[[], Tensor]:
    if method == TEN_TARGETS:
        attribution = _attribution("lrp-epsilon", model)
        return lambda: attribution.attribute_targets(images, list(range(10)))
    attribution = _attribution(method, model)
    return lambda: attribution.attribute(images, target=target)


def _compiled(method: str, model: nn.Module, images: Tensor, target: int, mode: str) -> Callable[[], Tensor]:
    from .. import accelerate

    # A GPU's convolutions use channels last anyway, and rearrange tensors in another layout.
    mode = mode or ("cudagraph" if images.is_cuda else "inductor")
    compiled = accelerate.compile(_attribution(method, model), images, target, mode, channels_last=images.is_cuda)
    return lambda: compiled.attribute(images, target=target)
