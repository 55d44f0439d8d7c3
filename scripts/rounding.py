"""The accuracy of compiled and exported maps on a CPU: `python scripts/rounding.py [--pages] [PART ...]` measures it.

* `compiled`: maps of recorded operations, generated code, programs and ONNX, beside the attribution's own;
* `decisions`: float32 maps beside those of a float64 network with the ReLUs, pools and quotients of float32;
* `bfloat16`: the length of the difference in bfloat16.

Without a PART all are measured (half an hour of one core), with `--pages` none. The results are stored in
`scripts/rounding.json`. The tables in docs/accelerate.md are written from it, and a test holds them to it. SqueezeNet's
weights are read from the folder `REAL_DATA`; without it, its rows are left out.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from page_tables import markdown, with_table

from plugin import accelerate, models
from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose
from plugin.files import write_text
from plugin.measuring import measured_networks
from plugin.measuring.stored_results import machine_facts

STORED, PAGE = ROOT / "scripts" / "rounding.json", ROOT / "docs" / "accelerate.md"
SQUEEZENET = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data")) / "imagenet"
PHOTOGRAPHS = ("cat", "coffee", "china")
DIFFERENT = 1e-3  # from here on a quotient counts as another one
NAMES = {"all-cnn-c": "All-CNN-C trained", "squeezenet1_0": "SqueezeNet trained"} | {
    name: f"{title} random" for name, title in measured_networks.NAMES.items()
}
# The rows of the first table: a network, a side of its images, methods.
COMPILED = (
    ("all-cnn-c", 32, ("guided", "deconvnet", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon")),
    ("squeezenet1_0", 224, ("epsilon",)),
    ("vgg16", 64, ("guided", "deconvnet", "epsilon_plus_flat", "epsilon")),
    ("resnet50", 64, ("guided", "deconvnet", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon")),
    ("vgg16", 224, ("guided", "epsilon_plus_flat", "epsilon")),
    ("resnet50", 224, ("guided", "epsilon_plus_flat", "epsilon")),
    ("vit_b_16", 224, ("attn_lrp", "epsilon")),
)
WAYS = {
    "float64": "its own rounding",
    "aten": "recorded operations",
    "inductor": "generated code",
    "channels last": "generated, channels last",
    "program": "`.pt2`",
    "onnx": "ONNX",
}
DECISIONS = (("all-cnn-c", 32), ("squeezenet1_0", 224), ("vgg16", 64), ("resnet50", 64))
EPSILONS = {"gradient": 0.0, "epsilon": 1e-6, "epsilon(1e-3)": 1e-3}
BFLOAT16 = (("all-cnn-c", 32), ("vgg16", 64))
METHODS_IN_BFLOAT16 = ("guided", "deconvnet", "epsilon", "epsilon_plus_flat", "epsilon_gamma_box")


@cache
def case(name: str, side: int) -> tuple[nn.Module, Tensor]:
    """A network in eval mode, and its images `(N, 3, side, side)`: photographs where it was trained, else random."""
    if name in measured_networks.NAMES:
        generator = torch.Generator().manual_seed(1)
        count = 2 if side < 224 else 1
        return measured_networks.build(name), torch.rand(count, 3, side, side, generator=generator) * 4.2 - 2.0
    checkpoint = {"squeezenet1_0": SQUEEZENET / "squeezenet1_0_imagenet.safetensors"}.get(name)
    model = models.load(name, checkpoint=checkpoint) if checkpoint else models.load(name)
    photographs = models.sample_images()
    return model.network.eval(), torch.cat([model.preprocess(photographs[each]) for each in PHOTOGRAPHS])


def is_here(name: str) -> bool:
    """Whether the weights of a network are on this machine."""
    return name != "squeezenet1_0" or SQUEEZENET.is_dir()


def attribution(method: str, network: nn.Module) -> Any:
    """An attribution by the name of a row."""
    makers = {"guided": GuidedBackprop, "deconvnet": Deconvolution}
    return makers[method](network) if method in makers else LRPTranspose(network, method)


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def compiled_row(name: str, side: int, method: str) -> dict[str, float]:
    """The differences of a map to the attribution's own in float32, for each of `WAYS` that is measured."""
    network, images = case(name, side)
    target = network(images).argmax(1)
    explained = attribution(method, network)
    own = explained.attribute(images, target=target)
    exact = attribution(method, copy.deepcopy(network).double()).attribute(images.double(), target=target)
    found = {"float64": difference(own, exact)}

    def compiled(mode: str, channels_last: bool = False) -> float:
        made = accelerate.compile(explained, images, target, mode=mode, channels_last=channels_last)
        return difference(made.attribute(images, target), own)

    found["aten"] = compiled("aten")
    if name == "vit_b_16":  # its recorded attention is another computation, whatever is made of it
        return found
    found["inductor"] = compiled("inductor")
    if side < 64:
        found["channels last"] = compiled("inductor", channels_last=True)
    if side < 224:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            accelerate.export(explained, images, Path(folder) / "map")
            (map_,) = torch.export.load(Path(folder) / "map.pt2").module()(images, target)
            found["program"] = difference(map_, own)
            session = onnxruntime.InferenceSession(str(Path(folder) / "map.onnx"))
            (array,) = session.run(None, {"inputs": images.numpy(), "target": target.numpy()})
            found["onnx"] = difference(torch.from_numpy(array), own)
    torch._dynamo.reset()
    return found


def compiled() -> dict[str, Any]:
    """The first table, a row by "network side method"."""
    rows = {}
    for name, side, methods in COMPILED:
        for method in methods if is_here(name) else ():
            rows[f"{name} {side} {method}"] = compiled_row(name, side, method)
            print(name, side, method, rows[f"{name} {side} {method}"], flush=True)
    return rows


class _Quotient(torch.autograd.Function):
    """The identity, whose backward signal is multiplied by a quotient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, quotient: Tensor) -> Tensor:
        ctx.save_for_backward(quotient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None]:
        return signals[0] * ctx.saved_tensors[0], None


class Decisions:
    """Gradient times input, or LRP-epsilon, of a network that calls each ReLU, pool and linear layer as a module.

    The decisions of a run (signs of ReLUs, winners of pools, quotients y / (y + epsilon)) are kept in the order of the
    calls, and another run can be given them. This is a second implementation, apart from the package's.
    """

    def __init__(self, network: nn.Module, epsilon: float) -> None:
        """
        Args:
            network: in eval mode; batch norm follows its convolution, and counts as a part of it.
            epsilon: of LRP; 0 is gradient times input.
        """
        self.network, self.epsilon = copy.deepcopy(network), epsilon
        self.signs: list[Tensor] = []
        self.winners: list[Tensor] = []
        self.quotients: list[Tensor] = []
        self._given: Decisions | None = None
        self._with_quotients = False
        has_norm = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        linear = (nn.BatchNorm2d, nn.Linear) if has_norm else (nn.Conv2d, nn.Linear)
        for module in self.network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
                module.register_forward_hook(self._relu)
            elif isinstance(module, nn.MaxPool2d):
                module.register_forward_hook(self._pool)
            elif epsilon and isinstance(module, linear):
                module.register_forward_hook(self._linear)

    def relevance(
        self, images: Tensor, target: Tensor, given: "Decisions | None" = None, with_quotients: bool = False
    ) -> Tensor:
        """The map `(N, 3, H, W)` in the precision of the images; with the decisions of another run, if `given`."""
        self.signs, self.winners, self.quotients = [], [], []
        self._given, self._with_quotients = given, with_quotients
        leaf = images.clone().requires_grad_()
        value = self.network.to(images.dtype)(leaf).gather(1, target[:, None]).sum()
        return images * torch.autograd.grad(value, leaf)[0]

    def _relu(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        self.signs.append(output.detach() > 0)
        sign = self._given.signs[len(self.signs) - 1] if self._given else self.signs[-1]
        return inputs[0] * sign.to(output.dtype)

    def _pool(self, pool: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        (value,) = inputs
        options: Any = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        self.winners.append(F.max_pool2d(value.detach(), *options, return_indices=True)[1])
        winner = self._given.winners[len(self.winners) - 1] if self._given else self.winners[-1]
        return value.flatten(2).gather(2, winner.flatten(2)).view_as(output)

    def _linear(self, _: nn.Module, __: tuple[Tensor], output: Tensor) -> Tensor:
        value = output.detach()
        self.quotients.append(value / (value + torch.where(value < 0, -self.epsilon, self.epsilon)))
        own = self.quotients[-1]
        others = self._given.quotients if self._given and self._with_quotients else None
        quotient = others[len(self.quotients) - 1].to(own.dtype) if others else own
        return _Quotient.apply(output, quotient)  # type: ignore[no-any-return, no-untyped-call]

    def differing(self, other: "Decisions") -> dict[str, int]:
        """The numbers of ReLUs, pools and quotients that differ, and of all units."""
        quotients = zip(self.quotients, other.quotients, strict=True)
        return {
            "ReLU": sum(int((a != b).sum()) for a, b in zip(self.signs, other.signs, strict=True)),
            "pool": sum(int((a != b).sum()) for a, b in zip(self.winners, other.winners, strict=True)),
            "quotient": sum(int(((a.double() - b).abs() > DIFFERENT).sum()) for a, b in quotients),
            "units": sum(each.numel() for each in (*self.signs, *self.winners, *self.quotients)),
        }


def decisions_of(network: nn.Module, images: Tensor, epsilon: float) -> dict[str, float]:
    """A float32 map beside a float64 one: as it is, with its decisions, and with its quotients too."""
    target = network(images).argmax(1)
    single, exact, given = (Decisions(network, epsilon) for _ in range(3))
    found = single.relevance(images, target)
    row: dict[str, float] = {"as it is": difference(found, exact.relevance(images.double(), target))}
    row["decisions"] = difference(found, given.relevance(images.double(), target, single))
    if epsilon:
        row["quotients"] = difference(found, given.relevance(images.double(), target, single, with_quotients=True))
    return row | single.differing(exact)


def decisions() -> dict[str, Any]:
    """The second table, a row by "network side method"."""
    rows = {}
    for name, side in DECISIONS:
        for method, epsilon in EPSILONS.items() if is_here(name) else ():
            network, images = case(name, side)
            rows[f"{name} {side} {method}"] = decisions_of(network, images, epsilon)
            print(name, side, method, rows[f"{name} {side} {method}"], flush=True)
    return rows


def bfloat16() -> dict[str, Any]:
    """The third table: the length of the difference over that of the map."""
    rows: dict[str, Any] = {}
    for name, side in BFLOAT16:
        network, images = case(name, side)
        target = network(images).argmax(1)
        rows[f"{name} {side}"] = {}
        for method in METHODS_IN_BFLOAT16:
            explained = attribution(method, network)
            made = accelerate.compile(explained, images, target, mode="aten", precision="bfloat16")
            own = explained.attribute(images, target=target)
            rows[f"{name} {side}"][method] = float((made.attribute(images, target) - own).norm() / own.norm())
        print(name, side, rows[f"{name} {side}"], flush=True)
    return rows


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"compiled": compiled, "decisions": decisions, "bfloat16": bfloat16}


def cell(number: float | None) -> str:
    """One digit, as 2e-7."""
    if number is None:
        return ""
    mantissa, _, exponent = f"{number:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if number else "0"


def percent(share: float) -> str:
    """Two digits below ten, as 0.4 %."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def label(row: str) -> str:
    """The first cells of a row."""
    name, side, *method = row.split()
    words = {"gradient": "gradient times input", "guided": "guided backprop", "deconvnet": "deconvnet"}
    return " | ".join([f"{NAMES[name]}, {side} pixels", *(words.get(each, f"`{each}`") for each in method)])


def units(row: dict[str, float]) -> str:
    """The number of units that differ, of all."""
    counts = [f"{row[kind]:.0f} {kind}{'s' * (row[kind] != 1)}" for kind in ("ReLU", "pool", "quotient") if row[kind]]
    return f"{', '.join(counts) or 'none'} of {row['units'] / 1e6:.1f} million"


def tables(stored: dict[str, Any]) -> dict[str, str]:
    """The tables by the names of their marks."""
    rows = [[label(name), *(cell(row.get(way)) for way in WAYS)] for name, row in stored["compiled"].items()]
    found = {"compiled": markdown(["network", "method", *WAYS.values()], rows)}
    keys = ("as it is", "decisions", "quotients")
    rows = [
        [label(name), *(cell(row.get(key)) for key in keys), units(row)] for name, row in stored["decisions"].items()
    ]
    head = ["network", "method", "as it is", "the same decisions", "and quotients", "units that differ"]
    found["decisions"] = markdown(head, rows)
    rows = [[label(name), *map(percent, row.values())] for name, row in stored["bfloat16"].items()]
    head = ["network", *METHODS_IN_BFLOAT16[:2], *(f"`{each}`" for each in METHODS_IN_BFLOAT16[2:])]
    found["bfloat16"] = markdown(head, rows)
    return {f"rounding {name}": table for name, table in found.items()}


def rewritten(text: str, stored: dict[str, Any]) -> str:
    """The page with the stored results in its tables."""
    for mark, table in tables(stored).items():
        text = with_table(text, mark, table)
    return text


def main() -> None:
    """Measure, store, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--pages", action="store_true", help="measure nothing, write the page from the stored results")
    options = parser.parse_args()
    if unknown := {*options.parts} - {*PARTS}:
        parser.error(f"no part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    warnings.simplefilter("ignore")
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    for part in () if options.pages else options.parts or PARTS:
        facts = machine_facts("cpu")
        stored |= {part: PARTS[part](), "machine": f"{facts['cpu']}, PyTorch {facts['versions']['torch']}"}
        write_text(STORED, json.dumps(stored, indent=2) + "\n")
    write_text(PAGE, rewritten(PAGE.read_text(encoding="utf-8"), stored))


if __name__ == "__main__":
    main()
