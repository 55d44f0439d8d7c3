"""The same function has the same map, however it is written: activations, linear layers, batch norms, gates, norms.

A new spelling is one line in a table. Maps are compared in float64, to 1e-9 of the largest value, under guided
backprop, deconvnet, every preset of LRP, and the ledger. The references are checked against their definitions.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from support.helpers import Method, assert_same_maps, error_between
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint
from torchvision.ops import FrozenBatchNorm2d, deform_conv2d

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose
from plugin.errors import NoRuleError, UnseenOperationError
from plugin.rules import AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from plugin.rules.presets import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")
aten = torch.ops.aten

# -- comparison --------------------------------------------------------------------------------------------------------


def by_lrp(model: nn.Module, inputs: Any, rules: str | Composite) -> Tensor:
    return LRPTranspose(model, rules).attribute(inputs, 1)


def by_ledger(model: nn.Module, inputs: Any, rules: str | Composite) -> Tensor:
    ledger = LRPTranspose(model, rules).ledger(inputs, 1)
    return torch.tensor([ledger.input, ledger.absorbed], dtype=torch.float64)


RELU_METHODS: dict[str, Method] = {
    "guided": lambda model, inputs: GuidedBackprop(model).attribute(inputs, 1),
    "deconvnet": lambda model, inputs: Deconvolution(model).attribute(inputs, 1),
}
LRP_METHODS: dict[str, Method] = {name: partial(by_lrp, rules=name) for name in PRESETS}
LEDGERS = ("epsilon", "epsilon_alpha2_beta1_flat", "attn_lrp")
LRP_METHODS |= {f"ledger of {name}": partial(by_ledger, rules=name) for name in LEDGERS}
METHODS = RELU_METHODS | LRP_METHODS
# One of each kind, for checks that depend on the activation only.
FEW_METHODS = {name: METHODS[name] for name in ("guided", "deconvnet", "lrp_0", "epsilon_plus", "ledger of epsilon")}
OTHER_METHODS = [name for name in METHODS if name not in FEW_METHODS]
# Of a network without convolutions the presets are much the same: these rules go to its linear layers.
COMPOSITES = {
    "z+": Composite(default=ZPlus()),
    "z^B, gamma": Composite(first=ZBox(-3.0, 3.0), default=Gamma(0.25)),
    "w^2, alpha-beta": Composite(first=WSquare(), default=AlphaBeta(2, 1)),
    "flat, epsilon": Composite(first=Flat(), default=Epsilon(0.1)),
}
LINEAR_METHODS: dict[str, Method] = METHODS | {name: partial(by_lrp, rules=rules) for name, rules in COMPOSITES.items()}
LINEAR_METHODS |= {f"ledger of {name}": partial(by_ledger, rules=rules) for name, rules in COMPOSITES.items()}


def maps(methods: dict[str, Method], model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """The expected map: of a reference that is all zeros any spelling would be right."""
    found = {name: method(model, inputs) for name, method in methods.items()}
    assert found["lrp_0"].any()
    assert "deconvnet" not in found or found["deconvnet"].any()
    return found


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tolerance(*names: str) -> float:
    """PyTorch's derivative of hardsigmoid holds 1/6 in single precision, for double precision as well."""
    return 1e-6 if any("hardsigmoid" in name for name in names) else 1e-9


def identify(row: tuple[Any, ...]) -> str:
    return ": ".join(part for part in row if isinstance(part, str))


# -- activations -------------------------------------------------------------------------------------------------------

Pointwise = Callable[[Tensor], Tensor]
SLOPES = torch.tensor([0.25, -0.3, 0.1, 0.7], dtype=torch.float64).view(4, 1, 1)  # PReLU's, one per channel


def assign(v: Tensor, where: Tensor, value: Any) -> Tensor:
    """v[where] = value, in place."""
    v[where] = value
    return v


def then(_: Any, v: Tensor) -> Tensor:
    """The tensor changed in place, where the return value of the call is not used."""
    return v


def into(function: Callable[..., Any], v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """function(v, ..., out=result)."""
    result = torch.empty_like(v)
    function(v, *args, **kwargs, out=result)
    return result


def zero(v: Tensor) -> Tensor:
    return torch.zeros_like(v)


REFERENCES: dict[str, Pointwise] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.1),
    "prelu": lambda v: F.prelu(v, SLOPES.flatten()),
    "elu": F.elu,
    "elu(0.5)": partial(F.elu, alpha=0.5),
    "selu": F.selu,
    "celu": partial(F.celu, alpha=1.5),
    "gelu": F.gelu,
    "gelu tanh": partial(F.gelu, approximate="tanh"),
    "quickgelu": lambda v: v * torch.sigmoid(1.702 * v),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "softplus(2)": partial(F.softplus, beta=2.0),
    "softsign": F.softsign,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "hardtanh": F.hardtanh,
    "threshold": lambda v: F.threshold(v, 0.3, -0.2),
    "min(v, 0)": lambda v: v.clamp(max=0),
    "abs": torch.abs,
    "v - floor(v)": lambda v: v - v.floor(),
    "v - trunc(v)": lambda v: v - torch.trunc(v),
    "square": torch.square,
    "expm1": torch.expm1,
}


def in_memory(v: Tensor) -> Tensor:
    return v.as_strided((v.numel(),), (1,), v.storage_offset())


def shuffled(v: Tensor) -> Tensor:
    return v.unflatten(1, (2, -1)).transpose(1, 2).contiguous().view(len(v), -1)


def unshuffled(flat: Tensor, v: Tensor) -> Tensor:
    return flat.view(len(v), -1, 2, *v.shape[2:]).transpose(1, 2).reshape(v.shape)


def channels_last(v: Tensor) -> Tensor:
    return v.contiguous(memory_format=torch.channels_last)


ACTIVATIONS: list[tuple[str, str, Pointwise]] = [
    # As modules, methods, overloads, by keyword, in place.
    ("relu", "nn.ReLU()", nn.ReLU()),
    ("relu", "nn.ReLU(inplace=True)", nn.ReLU(inplace=True)),
    ("relu", "torch.relu_ as a statement", lambda v: then(torch.relu_(v), v)),
    ("relu", "F.relu(input=v)", lambda v: F.relu(input=v)),
    ("relu", "aten.relu.default", aten.relu.default),
    ("relu", "aten.relu_.default as a statement", lambda v: then(aten.relu_.default(v), v)),
    ("relu", "aten.clamp.default(v, 0)", lambda v: aten.clamp.default(v, 0)),
    ("relu", "aten.clamp_min.default(v, 0)", lambda v: aten.clamp_min.default(v, 0)),
    ("relu", "aten.threshold.default(v, 0, 0)", lambda v: aten.threshold.default(v, 0, 0)),
    ("relu", "aten.maximum.default(v, 0)", lambda v: aten.maximum.default(v, zero(v))),
    ("relu", "aten.where.self(v > 0, v, 0)", lambda v: aten.where.self(v > 0, v, zero(v))),
    ("relu", "torch.clamp(input=v, min=0)", lambda v: torch.clamp(input=v, min=0)),
    ("relu", "v.clip(min=0)", lambda v: v.clip(min=0)),
    ("relu", "v.clamp(0, inf)", lambda v: v.clamp(0, math.inf)),
    ("relu", "clamp(out=)", lambda v: into(torch.clamp, v, min=0)),
    ("relu", "maximum(out=)", lambda v: into(torch.maximum, v, zero(v))),
    ("relu", "F.hardtanh(v, 0, inf)", lambda v: F.hardtanh(v, 0.0, math.inf)),
    ("relu", "nn.Hardtanh(0, inf)", nn.Hardtanh(0.0, math.inf)),
    ("relu", "nn.Threshold(0, 0)", nn.Threshold(0.0, 0.0)),
    ("relu", "F.leaky_relu(v, 0)", lambda v: F.leaky_relu(v, 0.0)),
    ("relu", "F.elu(v, 0)", lambda v: F.elu(v, 0.0)),
    ("relu", "F.prelu(v, 0)", lambda v: F.prelu(v, v.new_zeros(1))),
    ("relu", "F.rrelu(v, 0, 0)", lambda v: F.rrelu(v, 0.0, 0.0)),
    ("relu", "F.relu(F.relu(v))", lambda v: F.relu(F.relu(v))),
    # By the larger and the smaller of two.
    ("relu", "torch.maximum(v, 0)", lambda v: torch.maximum(v, zero(v))),
    ("relu", "torch.maximum(v, 0 of float32)", lambda v: torch.maximum(v, torch.zeros(()))),
    ("relu", "torch.maximum(input=0, other=v)", lambda v: torch.maximum(input=zero(v), other=v)),
    ("relu", "torch.fmax(v, 0)", lambda v: torch.fmax(v, torch.zeros(()))),
    ("relu", "torch.max(v, 0)", lambda v: torch.max(v, zero(v))),
    ("relu", "v.max(other=0)", lambda v: v.max(other=zero(v))),
    ("relu", "v.fmax(0)", lambda v: v.fmax(zero(v))),
    ("relu", "-torch.minimum(-v, 0)", lambda v: -torch.minimum(-v, zero(v))),
    ("relu", "-torch.fmin(-v, 0)", lambda v: -torch.fmin(-v, zero(v))),
    ("relu", "-(-v).clamp(max=0)", lambda v: -(-v).clamp(max=0)),
    ("relu", "(-v).clamp_max(0).neg()", lambda v: (-v).clamp_max(0).neg()),
    ("relu", "torch.stack([v, 0]).amax(0)", lambda v: torch.stack([v, zero(v)]).amax(0)),
    ("relu", "torch.stack([v, 0], -1).max(-1)[0]", lambda v: torch.stack([v, zero(v)], -1).max(-1)[0]),
    ("relu", "torch.stack((0, v), dim=1).max(dim=1).values", lambda v: torch.stack((zero(v), v), 1).max(1).values),
    ("relu", "torch.cat([v[None], 0 * v[None]]).amax(0)", lambda v: torch.cat([v[None], 0 * v[None]]).amax(0)),
    ("relu", "torch.stack([v, 0 * v]).max(0, True)", lambda v: torch.stack([v, 0 * v]).max(0, True).values[0]),
    ("relu", "cat of channels, unflattened", lambda v: torch.cat([v, 0 * v], 1).unflatten(1, (2, -1)).amax(1)),
    ("relu", "torch.maximum(*torch.stack([v, 0 * v]))", lambda v: torch.maximum(*torch.stack([v, 0 * v]))),
    ("relu", "torch.maximum(*cat.chunk(2))", lambda v: torch.maximum(*torch.cat([v, 0 * v], 1).chunk(2, 1))),
    ("relu", "(v + torch.hypot(v, 0)) / 2", lambda v: (v + torch.hypot(v, 0 * v)) / 2),
    ("relu", "(v + torch.copysign(v, 1)) / 2", lambda v: (v + torch.copysign(v, torch.ones_like(v))) / 2),
    # With movements between the steps.
    ("relu", "flat v * flat mask", lambda v: (v.flatten(1) * (v > 0).flatten(1)).view_as(v)),
    (
        "relu",
        "torch.where(flat mask, flat v, 0)",
        lambda v: torch.where((v > 0).flatten(1), v.flatten(1), 0).view_as(v),
    ),
    ("relu", "v moved twice", lambda v: (v.mT.contiguous() * (v.mT > 0)).mT),
    ("relu", "v * mask by einsum", lambda v: torch.einsum("nchw,nchw->nchw", v, (v > 0).to(v))),
    ("relu", "v - torch.minimum(v, 0)", lambda v: v - torch.minimum(v, zero(v))),
    ("relu", "v - v.clamp(max=0)", lambda v: v - v.clamp(max=0)),
    # By a choice, and by a mask.
    ("relu", "torch.where(v > 0, v, 0.0)", lambda v: torch.where(v > 0, v, 0.0)),
    ("relu", "torch.where(v >= 0, v, 0)", lambda v: torch.where(v >= 0, v, zero(v))),
    ("relu", "torch.where(v <= 0, 0.0, v)", lambda v: torch.where(v <= 0, 0.0, v)),
    ("relu", "torch.where(v < 0, 0, v)", lambda v: torch.where(v.lt(0), zero(v), v)),
    ("relu", "torch.where(v > 0, input=v, other=0)", lambda v: torch.where(v > 0, input=v, other=zero(v))),
    ("relu", "v.where(v > 0, 0)", lambda v: v.where(v > 0, zero(v))),
    ("relu", "torch.where(~(v > 0), 0.0, v)", lambda v: torch.where(~(v > 0), 0.0, v)),
    ("relu", "v * (v > 0)", lambda v: v * (v > 0)),
    ("relu", "v * (v >= 0)", lambda v: v * (v >= 0)),
    ("relu", "(v > 0) * v", lambda v: (v > 0) * v),
    ("relu", "v.mul(v.gt(0))", lambda v: v.mul(v.gt(0))),
    ("relu", "v * (v > 0).to(v.dtype)", lambda v: v * (v > 0).to(v.dtype)),
    ("relu", "v * (v > 0).type_as(v)", lambda v: v * (v > 0).type_as(v)),
    ("relu", "torch.mul(input=v, other=(v > 0).float())", lambda v: torch.mul(input=v, other=(v > 0).float())),
    ("relu", "v.mul_(v > 0)", lambda v: v.mul_(v > 0)),
    ("relu", "v *= (v > 0) as a statement", lambda v: then(v.__imul__(v > 0), v)),
    ("relu", "mul(out=)", lambda v: into(torch.mul, v, (v > 0).to(v))),
    ("relu", "v * torch.heaviside(v, 0)", lambda v: v * torch.heaviside(v, zero(v))),
    ("relu", "v * v.sign().clamp(min=0)", lambda v: v * v.sign().clamp(min=0)),
    ("relu", "v * (v.sign() + 1) / 2", lambda v: v * (v.sign() + 1) / 2),
    ("relu", "torch.addcmul(0, v, v > 0)", lambda v: torch.addcmul(zero(v), v, (v > 0).to(v))),
    ("relu", "torch.lerp(0, v, v > 0)", lambda v: torch.lerp(zero(v), v, (v > 0).to(v))),
    ("relu", "v.masked_fill(v < 0, 0)", lambda v: v.masked_fill(v < 0, 0)),
    ("relu", "v.masked_fill(v <= 0, 0)", lambda v: v.masked_fill(v <= 0, 0)),
    ("relu", "torch.masked_fill(v, ~(v > 0), 0.0)", lambda v: torch.masked_fill(v, ~(v > 0), 0.0)),
    ("relu", "v.masked_fill_(v < 0, 0) as a statement", lambda v: then(v.masked_fill_(v < 0, 0), v)),
    ("relu", "v[v < 0] = 0", lambda v: assign(v, v < 0, 0)),
    ("relu", "v[v < 0] = 0 on a clone", lambda v: assign(v.clone(), v < 0, 0.0)),
    ("relu", "v.index_put((v < 0,), 0)", lambda v: v.index_put((v < 0,), v.new_zeros(()))),
    # By sums of absolute values, and scaled.
    ("relu", "(v + |v|) / 2", lambda v: (v + v.abs()) / 2),
    ("relu", "0.5 * (torch.abs(v) + v)", lambda v: 0.5 * (torch.abs(v) + v)),
    ("relu", "torch.add(v, v.abs()).div(2)", lambda v: torch.add(v, v.abs()).div(2)),
    ("relu", "v / 2 + abs(v) / 2", lambda v: v / 2 + abs(v) / 2),
    ("relu", "torch.add(v, |v|, alpha=1) * 0.5", lambda v: torch.add(input=v, other=v.abs(), alpha=1) * 0.5),
    ("relu", "(|v| - (-v)) / 2", lambda v: (v.abs() - (-v)) / 2),
    ("relu", "F.relu(2 * v) / 2", lambda v: F.relu(2 * v) / 2),
    # Beside operations that change no number.
    ("relu", "F.relu(nan_to_num(v))", lambda v: F.relu(torch.nan_to_num(v))),
    ("relu", "F.relu of v where it is a number", lambda v: F.relu(torch.where(torch.isnan(v), zero(v), v))),
    ("relu", "v[isnan(v)] = 0, then F.relu", lambda v: F.relu(assign(v, torch.isnan(v), 0.0))),
    ("relu", "F.relu of v within half precision", lambda v: F.relu(v.clamp(-65504.0, 65504.0))),
    ("relu", "F.relu(maximum(v, -1e9))", lambda v: F.relu(torch.maximum(v, torch.full_like(v, -1e9)))),
    # The others.
    ("relu6", "nn.ReLU6(inplace=True)", nn.ReLU6(inplace=True)),
    ("relu6", "v.clamp(0, 6)", lambda v: v.clamp(0, 6)),
    ("relu6", "torch.clip(v, min=0, max=6)", lambda v: torch.clip(v, min=0, max=6)),
    ("relu6", "F.hardtanh(v, 0, 6)", lambda v: F.hardtanh(v, 0.0, 6.0)),
    ("relu6", "v.clamp(min=0).clamp(max=6)", lambda v: v.clamp(min=0).clamp(max=6)),
    ("relu6", "torch.minimum(F.relu(v), 6)", lambda v: torch.minimum(F.relu(v), v.new_tensor(6.0))),
    ("relu6", "where", lambda v: torch.where(v > 6, 6.0, torch.where(v > 0, v, 0.0))),
    ("relu6", "6 * hardsigmoid(v - 3)", lambda v: 6 * F.hardsigmoid(v - 3)),
    ("relu6", "v.masked_fill(v < 0, 0).masked_fill(v > 6, 6)", lambda v: v.masked_fill(v < 0, 0).masked_fill(v > 6, 6)),
    ("leaky_relu", "nn.LeakyReLU(0.1, inplace=True)", nn.LeakyReLU(0.1, inplace=True)),
    ("leaky_relu", "F.leaky_relu_ as a statement", lambda v: then(F.leaky_relu_(v, 0.1), v)),
    ("leaky_relu", "aten.leaky_relu.default", lambda v: aten.leaky_relu.default(v, 0.1)),
    ("leaky_relu", "torch.where(v > 0, v, 0.1 * v)", lambda v: torch.where(v > 0, v, 0.1 * v)),
    ("leaky_relu", "torch.where(v < 0, v / 10, v)", lambda v: torch.where(v < 0, v / 10, v)),
    ("leaky_relu", "torch.maximum(v, v / 10)", lambda v: torch.maximum(v, v / 10)),
    ("leaky_relu", "torch.max(0.1 * v, v)", lambda v: torch.max(0.1 * v, v)),
    ("leaky_relu", "v * where(v > 0, 1, 0.1)", lambda v: v * torch.where(v > 0, v.new_tensor(1.0), 0.1)),
    ("leaky_relu", "v.clamp(min=0) + 0.1 * v.clamp(max=0)", lambda v: v.clamp(min=0) + 0.1 * v.clamp(max=0)),
    ("leaky_relu", "0.55 * v + 0.45 * |v|", lambda v: 0.55 * v + 0.45 * v.abs()),
    ("leaky_relu", "flat parts", lambda v: (v.relu().flatten(1) - 0.1 * (-v).relu().flatten(1)).view_as(v)),
    ("leaky_relu", "F.prelu(v, 0.1)", lambda v: F.prelu(v, v.new_tensor([0.1]))),
    ("prelu", "torch.where(v > 0, v, slope * v)", lambda v: torch.where(v > 0, v, SLOPES * v)),
    ("prelu", "v.clamp(min=0) + slope * v.clamp(max=0)", lambda v: v.clamp(min=0) + SLOPES * v.clamp(max=0)),
    ("prelu", "torch.maximum(v, 0) + slope * minimum", lambda v: v.maximum(zero(v)) + SLOPES * v.minimum(zero(v))),
    ("prelu", "v * where(v > 0, 1, slope)", lambda v: v * torch.where(v > 0, torch.ones(()), SLOPES)),
    ("prelu", "aten.prelu.default", lambda v: aten.prelu.default(v, SLOPES.flatten())),
    ("elu", "nn.ELU(inplace=True)", nn.ELU(inplace=True)),
    ("elu", "torch.where(v > 0, v, exp(v) - 1)", lambda v: torch.where(v > 0, v, torch.exp(v) - 1)),
    ("elu", "torch.where(v > 0, v, expm1(v))", lambda v: torch.where(v > 0, v, torch.expm1(v))),
    ("elu", "v.clamp(min=0) + expm1(v.clamp(max=0))", lambda v: v.clamp(min=0) + v.clamp(max=0).expm1()),
    ("elu", "F.celu(v, 1)", lambda v: F.celu(v, 1.0)),
    ("elu", "F.selu by its scales", lambda v: F.selu(v).div(1.0507009873554805).where(v > 0, torch.expm1(v))),
    ("elu(0.5)", "where", lambda v: torch.where(v > 0, v, 0.5 * (v.exp() - 1))),
    ("elu(0.5)", "max(0, v) + min(0, ...)", lambda v: v.clamp(min=0) + (0.5 * torch.expm1(v)).clamp(max=0)),
    ("selu", "scale * F.elu", lambda v: 1.0507009873554805 * F.elu(v, 1.6732632423543772)),
    ("selu", "where", lambda v: 1.0507009873554805 * torch.where(v > 0, v, 1.6732632423543772 * torch.expm1(v))),
    ("celu", "max(0, v) + min(0, ...)", lambda v: v.clamp(min=0) + (1.5 * (torch.exp(v / 1.5) - 1)).clamp(max=0)),
    ("celu", "where", lambda v: torch.where(v > 0, v, 1.5 * torch.expm1(v / 1.5))),
    ("gelu", "nn.GELU()", nn.GELU()),
    ("gelu", "0.5 v (1 + erf)", lambda v: 0.5 * v * (1 + torch.erf(v / math.sqrt(2)))),
    ("gelu", "v * 0.5 * (1.0 + erf)", lambda v: v * 0.5 * (1.0 + torch.special.erf(v * math.sqrt(0.5)))),
    ("gelu", "v * (0.5 + 0.5 erf)", lambda v: v.mul((v / math.sqrt(2)).erf().mul(0.5).add(0.5))),
    ("gelu", "v * torch.special.ndtr(v)", lambda v: v * torch.special.ndtr(v)),
    ("gelu", "v * erfc(-v / sqrt 2) / 2", lambda v: v * torch.erfc(-v / math.sqrt(2)) / 2),
    ("gelu", "v * Normal(0, 1).cdf(v)", lambda v: v * torch.distributions.Normal(0.0, 1.0).cdf(v)),
    ("gelu tanh", "nn.GELU('tanh')", nn.GELU("tanh")),
    (
        "gelu tanh",
        "GPT-2's, pow",
        lambda v: 0.5 * v * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * torch.pow(v, 3.0)))),
    ),
    ("gelu tanh", "v ** 3", lambda v: 0.5 * v * (1 + (math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)).tanh())),
    (
        "gelu tanh",
        "v * v * v",
        lambda v: v * 0.5 * (1 + torch.tanh(v * math.sqrt(2 / math.pi) * (1 + 0.044715 * v * v))),
    ),
    ("gelu tanh", "v * sigmoid", lambda v: v * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    ("quickgelu", "F.silu(1.702 v) / 1.702", lambda v: F.silu(1.702 * v) / 1.702),
    ("quickgelu", "v / (1 + exp(-1.702 v))", lambda v: v / (1 + torch.exp(-1.702 * v))),
    ("quickgelu", "v (1 + tanh(0.851 v)) / 2", lambda v: v * (1 + torch.tanh(0.851 * v)) / 2),
    ("silu", "nn.SiLU(inplace=True)", nn.SiLU(inplace=True)),
    ("silu", "aten.silu.default", aten.silu.default),
    ("silu", "v * v.sigmoid()", lambda v: v * v.sigmoid()),
    ("silu", "v * F.sigmoid(v)", lambda v: v * F.sigmoid(v)),
    ("silu", "torch.sigmoid(v) * v", lambda v: torch.sigmoid(v) * v),
    ("silu", "torch.mul(v, other=torch.sigmoid(input=v))", lambda v: torch.mul(v, other=torch.sigmoid(input=v))),
    ("silu", "v.mul_(v.sigmoid())", lambda v: v.mul_(v.sigmoid())),
    ("silu", "v * torch.special.expit(v)", lambda v: v * torch.special.expit(v)),
    ("silu", "v / (1 + exp(-v))", lambda v: v / (1 + torch.exp(-v))),
    ("silu", "v * (1 + exp(-v)).reciprocal()", lambda v: v * (1 + (-v).exp()).reciprocal()),
    ("silu", "v * exp(v) / (1 + exp(v))", lambda v: v * torch.exp(v) / (1 + torch.exp(v))),
    ("silu", "v (1 + tanh(v / 2)) / 2", lambda v: v * (1 + torch.tanh(v / 2)) / 2),
    ("silu", "torch.stack([v, sigmoid(v)]).prod(0)", lambda v: torch.stack([v, v.sigmoid()]).prod(0)),
    ("silu", "v[None] * v[None].sigmoid()", lambda v: (v[None] * v[None].sigmoid())[0]),
    ("silu", "flat v * flat sigmoid", lambda v: (v.flatten(1) * v.sigmoid().flatten(1)).view_as(v)),
    ("silu", "moved memory", lambda v: (in_memory(v) * in_memory(v.sigmoid())).view_as(v)),
    ("silu", "viewed after a shuffle", lambda v: unshuffled(shuffled(v) * shuffled(v.sigmoid()), v)),
    ("silu", "in another order of memory", lambda v: channels_last(v) * channels_last(v).sigmoid()),
    (
        "silu",
        "flat, in another order",
        lambda v: (channels_last(v).flatten(1) * channels_last(v).sigmoid().flatten(1)).view_as(v),
    ),
    ("silu", "v - v * sigmoid(-v)", lambda v: v - v * torch.sigmoid(-v)),
    ("silu", "v * exp(logsigmoid(v))", lambda v: v * F.logsigmoid(v).exp()),
    ("mish", "nn.Mish()", nn.Mish()),
    ("mish", "v * tanh(softplus(v))", lambda v: v * torch.tanh(F.softplus(v))),
    ("mish", "v * tanh(log1p(exp(v)))", lambda v: v * torch.tanh(torch.log1p(torch.exp(v)))),
    ("mish", "v * tanh(log(1 + exp(v)))", lambda v: v * (1 + v.exp()).log().tanh()),
    ("hardswish", "nn.Hardswish(inplace=True)", nn.Hardswish(inplace=True)),
    ("hardswish", "v * F.relu6(v + 3) / 6", lambda v: v * F.relu6(v + 3) / 6),
    ("hardswish", "v * (F.relu6(v + 3) * (1 / 6))", lambda v: v * (F.relu6(v + 3.0, inplace=True) * (1 / 6))),
    ("hardswish", "v * F.hardsigmoid(v)", lambda v: v * F.hardsigmoid(v)),
    ("hardswish", "v * clamp(v + 3, 0, 6) / 6", lambda v: v * torch.clamp(v + 3, 0, 6) / 6),
    ("hardswish", "v * F.hardtanh(v + 3, 0, 6) / 6", lambda v: v * F.hardtanh(v + 3, 0.0, 6.0) / 6),
    ("hardsigmoid", "nn.Hardsigmoid()", nn.Hardsigmoid()),
    ("hardsigmoid", "F.relu6(v + 3) / 6", lambda v: F.relu6(v + 3) / 6),
    ("hardsigmoid", "clamp(v / 6 + 0.5, 0, 1)", lambda v: (v / 6 + 0.5).clamp(0, 1)),
    ("hardsigmoid", "(F.hardtanh(v, -3, 3) + 3) / 6", lambda v: (F.hardtanh(v, -3.0, 3.0) + 3) / 6),
    ("softplus", "nn.Softplus()", nn.Softplus()),
    ("softplus", "log1p(exp(v))", lambda v: torch.log1p(torch.exp(v))),
    ("softplus", "log(1 + exp(v))", lambda v: torch.log(1 + v.exp())),
    ("softplus", "-logsigmoid(-v)", lambda v: -F.logsigmoid(-v)),
    ("softplus", "torch.logaddexp(v, 0)", lambda v: torch.logaddexp(v, zero(v))),
    ("softplus", "torch.stack([v, 0]).logsumexp(0)", lambda v: torch.stack([v, zero(v)]).logsumexp(0)),
    ("softplus", "torch.cat([v[None], 0]).logsumexp(0)", lambda v: torch.cat([v[None], zero(v)[None]]).logsumexp(0)),
    ("softplus", "max(v, 0) + log1p(exp(-|v|))", lambda v: v.clamp(min=0) + torch.log1p(torch.exp(-v.abs()))),
    ("softplus(2)", "log(1 + exp(2 v)) / 2", lambda v: torch.log(1 + torch.exp(2 * v)) / 2),
    ("softsign", "nn.Softsign()", nn.Softsign()),
    ("softsign", "v / (1 + |v|)", lambda v: v / (1 + v.abs())),
    ("softsign", "v.div(torch.abs(v).add(1))", lambda v: v.div(torch.abs(v).add(1))),
    ("softsign", "v * (1 + |v|).reciprocal()", lambda v: v * (1 + v.abs()).reciprocal()),
    ("expm1", "exp(v) - 1", lambda v: torch.exp(v) - 1),
    ("expm1", "-1 + e ** v", lambda v: -1 + math.e**v),
    ("expm1", "(exp(v / 2) + 1) * (exp(v / 2) - 1)", lambda v: (torch.exp(v / 2) + 1) * (torch.exp(v / 2) - 1)),
    ("tanh", "nn.Tanh()", nn.Tanh()),
    ("tanh", "v.tanh_()", lambda v: v.tanh_()),
    ("tanh", "aten.tanh.default", aten.tanh.default),
    ("tanh", "quotient", lambda v: (v.exp() - (-v).exp()) / (v.exp() + (-v).exp())),
    ("tanh", "2 sigmoid(2 v) - 1", lambda v: 2 * torch.sigmoid(2 * v) - 1),
    ("tanh", "1 - 2 / (exp(2 v) + 1)", lambda v: 1 - 2 / (torch.exp(2 * v) + 1)),
    ("tanh", "sinh(v) / cosh(v)", lambda v: torch.sinh(v) / torch.cosh(v)),
    ("sigmoid", "nn.Sigmoid()", nn.Sigmoid()),
    ("sigmoid", "aten.sigmoid.default", aten.sigmoid.default),
    ("sigmoid", "v.sigmoid_()", lambda v: v.sigmoid_()),
    ("sigmoid", "1 / (1 + exp(-v))", lambda v: 1 / (1 + torch.exp(-v))),
    ("sigmoid", "(1 + exp(-v)) ** -1", lambda v: (1 + torch.exp(-v)) ** -1),
    ("sigmoid", "torch.reciprocal(1 + exp(-v))", lambda v: torch.reciprocal(1 + (-v).exp())),
    ("sigmoid", "exp(v) / (1 + exp(v))", lambda v: v.exp() / (1 + v.exp())),
    ("sigmoid", "0.5 (1 + tanh(v / 2))", lambda v: 0.5 * (1 + torch.tanh(v / 2))),
    ("sigmoid", "exp(logsigmoid(v))", lambda v: F.logsigmoid(v).exp()),
    ("sigmoid", "1 - sigmoid(-v)", lambda v: 1 - torch.sigmoid(-v)),
    ("logsigmoid", "nn.LogSigmoid()", nn.LogSigmoid()),
    ("logsigmoid", "log(sigmoid(v))", lambda v: torch.log(torch.sigmoid(v))),
    ("logsigmoid", "-softplus(-v)", lambda v: -F.softplus(-v)),
    ("logsigmoid", "-log1p(exp(-v))", lambda v: -torch.log1p(torch.exp(-v))),
    ("logsigmoid", "v - softplus(v)", lambda v: v - F.softplus(v)),
    ("tanhshrink", "nn.Tanhshrink()", nn.Tanhshrink()),
    ("tanhshrink", "v - tanh(v)", lambda v: v - torch.tanh(v)),
    ("softshrink", "nn.Softshrink()", nn.Softshrink()),
    ("softshrink", "sign(v) * relu(|v| - 0.5)", lambda v: v.sign() * F.relu(v.abs() - 0.5)),
    ("softshrink", "v - v.clamp(-0.5, 0.5)", lambda v: v - v.clamp(-0.5, 0.5)),
    ("softshrink", "relu(v - 0.5) - relu(-v - 0.5)", lambda v: F.relu(v - 0.5) - F.relu(-v - 0.5)),
    (
        "softshrink",
        "where",
        lambda v: torch.where(v > 0.5, v - 0.5, torch.where(v < -0.5, v + 0.5, 0.0)),
    ),
    ("hardshrink", "nn.Hardshrink()", nn.Hardshrink()),
    ("hardshrink", "v * (|v| > 0.5)", lambda v: v * (v.abs() > 0.5)),
    ("hardshrink", "torch.where(|v| > 0.5, v, 0)", lambda v: torch.where(v.abs() > 0.5, v, 0.0)),
    ("hardshrink", "v.masked_fill(|v| <= 0.5, 0)", lambda v: v.masked_fill(v.abs() <= 0.5, 0)),
    ("hardtanh", "nn.Hardtanh(inplace=True)", nn.Hardtanh(inplace=True)),
    ("hardtanh", "v.clamp(-1, 1)", lambda v: v.clamp(-1, 1)),
    ("hardtanh", "v.clamp_(min=-1).clamp_(max=1)", lambda v: v.clamp_(min=-1).clamp_(max=1)),
    ("hardtanh", "clamp with tensors", lambda v: torch.clamp(v, v.new_tensor(-1.0), v.new_tensor(1.0))),
    ("hardtanh", "(|v + 1| - |v - 1|) / 2", lambda v: ((v + 1).abs() - (v - 1).abs()) / 2),
    ("hardtanh", "minimum of maximum", lambda v: torch.minimum(torch.maximum(v, -v.new_ones(())), v.new_ones(()))),
    ("threshold", "nn.Threshold(0.3, -0.2)", nn.Threshold(0.3, -0.2)),
    ("threshold", "torch.where(v > 0.3, v, -0.2)", lambda v: torch.where(v > 0.3, v, -0.2)),
    ("threshold", "v[v <= 0.3] = -0.2", lambda v: assign(v, v <= 0.3, -0.2)),
    ("min(v, 0)", "torch.minimum(v, 0)", lambda v: torch.minimum(v, zero(v))),
    ("min(v, 0)", "v * (v < 0)", lambda v: v * (v < 0)),
    ("min(v, 0)", "-F.relu(-v)", lambda v: -F.relu(-v)),
    ("min(v, 0)", "(v - |v|) / 2", lambda v: (v - v.abs()) / 2),
    ("abs", "torch.maximum(v, -v)", lambda v: torch.maximum(v, -v)),
    ("abs", "v * v.sign()", lambda v: v * v.sign()),
    ("abs", "torch.where(v < 0, -v, v)", lambda v: torch.where(v < 0, -v, v)),
    ("abs", "norm of one number", lambda v: torch.linalg.vector_norm(v[..., None], dim=-1)),
    ("abs", "root of one square", lambda v: v.unsqueeze(0).square().sum(0).sqrt()),
    ("abs", "torch.stack([v, 0]).norm(dim=0)", lambda v: torch.stack([v, zero(v)]).norm(dim=0)),
    ("abs", "(v ** 2) ** 0.5", lambda v: (v**2) ** 0.5),
    ("v - floor(v)", "v % 1", lambda v: v % 1),
    ("v - floor(v)", "torch.remainder(v, 1)", lambda v: torch.remainder(v, 1)),
    ("v - trunc(v)", "torch.fmod(v, 1)", lambda v: torch.fmod(v, 1)),
    ("v - trunc(v)", "torch.frac(v)", torch.frac),
    ("square", "v ** 2", lambda v: v**2),
    ("square", "v * v", lambda v: v * v),
    ("square", "torch.pow(v, 2)", lambda v: torch.pow(v, 2)),
    ("square", "v.abs().pow(2)", lambda v: v.abs().pow(2)),
]


class ActivationNet(nn.Module):
    """Two convolutions with the activation behind each, and a linear layer.

    The first convolution's weights are eighths: of integer images its outputs are exact, and often exactly 0.
    """

    def __init__(self, activate: Pointwise) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(3)
        self.first, self.second, self.head = nn.Conv2d(2, 4, 2, bias=False), nn.Conv2d(4, 4, 2), nn.Linear(4, 3)
        self.activate = activate
        self.double()
        for parameter in (*self.second.parameters(), *self.head.parameters()):
            parameter.data = 0.7 * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        self.first.weight.data = torch.randint(-1, 2, self.first.weight.shape, generator=random).double() * 7 / 8

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.activate(self.second(self.activate(self.first(images))))
        return self.head(hidden.mean((2, 3)))


IMAGES = numbers(2, 2, 4, 4)
INTEGER_IMAGES = torch.randint(-1, 2, (3, 2, 4, 4), generator=torch.Generator().manual_seed(5)).double()


@cache
def expected_of_activation(reference: str, at_zero: bool) -> dict[str, Tensor]:
    images, methods = (INTEGER_IMAGES, FEW_METHODS) if at_zero else (IMAGES, METHODS)
    return maps(methods, ActivationNet(REFERENCES[reference]).eval(), images)


def slope_at_zero(function: Pointwise) -> Tensor:
    """PyTorch's own derivative at 0."""
    values = torch.zeros(1, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(function(values * 1.0).sum(), values)[0]


def settled_at_zero(row: tuple[str, str, Pointwise]) -> bool:
    """Every spelling of ReLU has the gradient of F.relu at 0; at others' kinks autograd decides, if it can."""
    return row[0] == "relu" or torch.equal(slope_at_zero(row[2]), slope_at_zero(REFERENCES[row[0]]))


@pytest.mark.parametrize("row", ACTIVATIONS, ids=identify)
def test_activations(row) -> None:
    reference, name, function = row
    torch.testing.assert_close(function(IMAGES.repeat(1, 2, 1, 1)), REFERENCES[reference](IMAGES.repeat(1, 2, 1, 1)))
    expected = expected_of_activation(reference, at_zero=False)
    # The others take turns: an activation is the same to each method of a kind.
    other = OTHER_METHODS[ACTIVATIONS.index(row) % len(OTHER_METHODS)]
    methods = FEW_METHODS | {other: METHODS[other]}
    assert_same_maps(methods, ActivationNet(function).eval(), IMAGES, expected, tolerance(reference, name))


@pytest.mark.parametrize("row", [row for row in ACTIVATIONS if settled_at_zero(row)], ids=identify)
def test_activations_at_exactly_zero(row) -> None:
    reference, name, function = row
    network = ActivationNet(function).eval()
    assert (network.first(INTEGER_IMAGES) == 0).double().mean() > 0.1
    expected = expected_of_activation(reference, at_zero=True)
    assert_same_maps(FEW_METHODS, network, INTEGER_IMAGES, expected, tolerance(reference, name))


class Readout(nn.Module):
    """An activation of a sum, read out by signed weights."""

    def __init__(self, activate: Pointwise, weights: Tensor) -> None:
        super().__init__()
        self.activate, self.weights = activate, weights

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.activate(first + second) * self.weights).sum((1, 2, 3))


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_references_follow_their_definition(reference) -> None:
    """guided: relu(m) relu(f'); deconvnet: relu(m); LRP: m f(x) / x, seen at the summands of x."""
    function, weights = REFERENCES[reference], numbers(1, 4, 3, 3, seed=1)
    inputs = (2 * numbers(1, 4, 3, 3), numbers(1, 4, 3, 3, seed=2))
    network, values = Readout(function, weights).eval(), sum(inputs).requires_grad_()
    slope = torch.autograd.grad(function(values).sum(), values)[0]
    values = values.detach()
    guided, signal = weights.clamp(min=0) * slope.clamp(min=0), weights.clamp(min=0)
    relevance = [part * weights * function(values) / values for part in inputs]
    torch.testing.assert_close(GuidedBackprop(network).attribute(inputs), (guided, guided))
    torch.testing.assert_close(Deconvolution(network).attribute(inputs), (signal, signal))
    torch.testing.assert_close(LRPTranspose(network, "lrp_0").attribute(inputs), tuple(relevance))


EXPONENTIALS: dict[str, Pointwise] = {
    "exp": torch.exp,
    "e ** v": lambda v: math.e**v,
    "pow(e, v)": lambda v: torch.pow(math.e, v),
    "exp2": lambda v: torch.exp2(v / math.log(2)),
    "expm1(v) + 1": lambda v: torch.expm1(v) + 1,
    "exp(v / 2) ** 2": lambda v: torch.exp(v / 2) ** 2,
}


@pytest.mark.parametrize("name", EXPONENTIALS)
def test_an_exponential_is_an_activation_for_the_deconvnet_family(name) -> None:
    """Where it is no factor; LRP refuses it."""
    weights, values = numbers(1, 4, 3, 3, seed=1), numbers(1, 4, 3, 3)
    network = Readout(EXPONENTIALS[name], weights).eval()
    inputs, signal = (values, zero(values)), weights.clamp(min=0)
    torch.testing.assert_close(GuidedBackprop(network).attribute(inputs), (signal * values.exp(),) * 2)
    torch.testing.assert_close(Deconvolution(network).attribute(inputs), (signal, signal))
    with pytest.raises(NoRuleError, match="before the exponential"):
        LRPTranspose(network).attribute(inputs)


class OfTwo(nn.Module):
    """A convolution, and a function of its output that is no activation of one tensor."""

    def __init__(self, combine: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head, self.combine = nn.Conv2d(2, 4, 2), nn.Linear(width, 3), combine
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.combine(self.first(images)).mean((2, 3)))


def halves(v: Tensor) -> tuple[Tensor, Tensor]:
    first, second = v.chunk(2, 1)
    return first, second


def gated(function: Callable[[Tensor, Tensor], Tensor]) -> Pointwise:
    return lambda v: function(*halves(v))


# Of a multiple of v: the factor before an activation is none of its own.
SCALED: list[tuple[str, str, Pointwise]] = [
    ("relu", "F.relu", F.relu),
    ("relu", "v * (v > 0)", lambda v: v * (v > 0)),
    ("relu", "torch.where", lambda v: torch.where(v > 0, v, 0 * v)),
    ("relu", "v.clamp(min=0)", lambda v: v.clamp(min=0)),
    ("relu", "torch.where, with a zero like v", lambda v: torch.where(v > 0, v, torch.zeros(()).to(v))),
    ("relu", "torch.maximum", lambda v: torch.maximum(v, zero(v))),
    ("relu", "(v + |v|) / 2", lambda v: (v + v.abs()) / 2),
    ("silu", "F.silu", F.silu),
    ("silu", "v * sigmoid(v)", lambda v: v * torch.sigmoid(v)),
    ("silu", "v / (1 + exp(-v))", lambda v: v / (1 + torch.exp(-v))),
    ("gelu", "F.gelu", F.gelu),
    ("gelu", "0.5 v (1 + erf)", lambda v: 0.5 * v * (1 + torch.erf(v / math.sqrt(2)))),
    ("elu", "F.elu", F.elu),
    ("elu", "where(v > 0, v, exp(v) - 1)", lambda v: torch.where(v > 0, v, torch.exp(v) - 1)),
]
doubled = partial(F.dropout, p=0.5, training=False)  # the same tensor
# Twice the same signal: an affine function is no activation, and beside an activation signal passes, too.
DOUBLED: dict[str, dict[str, Pointwise]] = {
    "v": {
        "2 v": lambda v: 2 * v,
        "v + v": lambda v: v + v,
        "v + F.dropout(v)": lambda v: v + doubled(v),
        "sum([v, v])": lambda v: sum([v, v]),  # type: ignore[dict-item, return-value]
        "stack([v, v]).sum(0)": lambda v: torch.stack([v, v]).sum(0),
        "cat, then sum": lambda v: torch.cat([v, v], 1).unflatten(1, (2, 4)).sum(1),
    },
    "elu": {
        "y + dropout(y)": lambda v: (lambda y: y + doubled(y))(F.elu(v)),
        "sum([y, y])": lambda v: sum([F.elu(v)] * 2),  # type: ignore[dict-item, return-value]
        "stack([y, y]).sum(0)": lambda v: torch.stack([F.elu(v)] * 2).sum(0),
    },
    "v + elu": {
        "v + elu(v)": lambda v: v + F.elu(v),
        "stack([v, elu(v)]).sum(0)": lambda v: torch.stack([v, F.elu(v)]).sum(0),
        "cat, then sum": lambda v: torch.cat([v, F.elu(v)], 1).unflatten(1, (2, 4)).sum(1),
    },
    "elu(v) + relu(elu(v))": {
        "y + relu(y)": lambda v: (lambda y: y + F.relu(y))(F.elu(v)),
        "stack([y, relu(y)]).sum(0)": lambda v: (lambda y: torch.stack([y, F.relu(y)]).sum(0))(F.elu(v)),
        "cat of moved, then sum": lambda v: (lambda y: torch.cat([y[None], F.relu(y)[None]]).sum(0))(F.elu(v)),
        "moved, then a sum": lambda v: (lambda y: (y.mT + F.relu(y).mT).mT)(F.elu(v)),
    },
    "v + elu, twice": {
        "2 (v + elu(v))": lambda v: 2 * (v + F.elu(v)),
        "y + y": lambda v: (lambda y: y + y)(v + F.elu(v)),
        "(v + elu(v)) + (v + elu(v))": lambda v: (v + F.elu(v)) + (v + F.elu(v)),
    },
}

# (name, spelling): the first of each name is the reference.
COMBINATIONS: list[tuple[str, str, Pointwise]] = [
    ("glu", "F.glu(v, 1)", lambda v: F.glu(v, 1)),
    ("glu", "nn.GLU(1)", nn.GLU(1)),
    ("glu", "aten.glu.default", lambda v: aten.glu.default(v, 1)),
    ("glu", "a * sigmoid(b)", gated(lambda a, b: a * torch.sigmoid(b))),
    ("glu", "sigmoid(b) * a", gated(lambda a, b: b.sigmoid().mul(a))),
    ("glu", "1 / (1 + exp(-b)) * a", gated(lambda a, b: 1 / (1 + torch.exp(-b)) * a)),
    ("swiglu", "F.silu(a) * b", gated(lambda a, b: F.silu(a) * b)),
    ("swiglu", "a * sigmoid(a) * b", gated(lambda a, b: a * torch.sigmoid(a) * b)),
    ("swiglu", "b * (a / (1 + exp(-a)))", gated(lambda a, b: b * (a / (1 + torch.exp(-a))))),
    ("swiglu", "b * a * sigmoid(a)", gated(lambda a, b: b * a * torch.sigmoid(a))),
    ("swiglu", "sigmoid(a) * b * a", gated(lambda a, b: torch.sigmoid(a) * b * a)),
    ("swiglu", "b * a / (1 + exp(-a))", gated(lambda a, b: b * a / (1 + torch.exp(-a)))),
    ("swiglu", "a.mul(b).mul_(a.sigmoid())", gated(lambda a, b: a.mul(b).mul_(a.sigmoid()))),
    ("geglu", "F.gelu(a) * b", gated(lambda a, b: F.gelu(a) * b)),
    ("geglu", "0.5 a (1 + erf) * b", gated(lambda a, b: 0.5 * a * (1 + torch.erf(a / math.sqrt(2))) * b)),
    ("geglu", "0.5 b a (1 + erf)", gated(lambda a, b: 0.5 * b * a * (1 + torch.erf(a / math.sqrt(2))))),
    ("geglu", "b a 0.5 (1 + erf)", gated(lambda a, b: b * a * 0.5 * (1 + torch.erf(a / math.sqrt(2))))),
    ("geglu", "(1 + erf) b a / 2", gated(lambda a, b: (1 + torch.erf(a / math.sqrt(2))) * b * a / 2)),
    ("geglu", "b * a * ndtr(a)", gated(lambda a, b: b * a * torch.special.ndtr(a))),
    ("reglu", "F.relu(a) * b", gated(lambda a, b: F.relu(a) * b)),
    ("reglu", "a * (a > 0) * b", gated(lambda a, b: a * (a > 0) * b)),
    ("reglu", "b * a * (a > 0)", gated(lambda a, b: b * a * (a > 0))),
    ("reglu", "b * (a > 0) * a", gated(lambda a, b: b * (a > 0) * a)),
    ("hardswish times b", "F.hardswish(a) * b", gated(lambda a, b: F.hardswish(a) * b)),
    ("hardswish times b", "b a relu6(a + 3) / 6", gated(lambda a, b: b * a * F.relu6(a + 3) / 6)),
    ("square times b", "a ** 2 * b", gated(lambda a, b: a**2 * b)),
    ("square times b", "a * b * a", gated(lambda a, b: a * b * a)),
    ("crelu", "cat(relu(v), relu(-v))", lambda v: torch.cat([F.relu(v), F.relu(-v)], 1)),
    ("crelu", "cat(clamp, clamp)", lambda v: torch.cat([v.clamp(min=0), (-v).clamp(min=0)], 1)),
    ("crelu", "relu of cat(v, -v)", lambda v: F.relu(torch.cat([v, -v], 1))),
    ("crelu", "cat(where, where)", lambda v: torch.cat([torch.where(v > 0, v, 0.0), torch.where(-v > 0, -v, 0.0)], 1)),
    ("gate", "a * sigmoid(b)", gated(lambda a, b: a * torch.sigmoid(b))),
    ("gate", "a / (1 + exp(-b))", gated(lambda a, b: a / (1 + torch.exp(-b)))),
    ("gate", "a.div(exp(-b).add(1))", gated(lambda a, b: a.div(torch.exp(-b).add(1)))),
    *((f"{name} of 2 v", spelling, (lambda f: lambda v: f(2 * v))(function)) for name, spelling, function in SCALED),
    *(
        (f"{name}, added to itself", spelling, function)
        for name, spellings in DOUBLED.items()
        for spelling, function in spellings.items()
    ),
    ("scale of channels", "v * s", lambda v: v * SLOPES),
    ("scale of channels", "einsum", lambda v: torch.einsum("nchw,c->nchw", v, SLOPES.flatten())),
    (
        "scale of channels",
        "einsum of a map",
        lambda v: torch.einsum("whc,nchw->nchw", SLOPES.expand(4, 3, 3).permute(2, 1, 0), v),
    ),
    ("maxout", "torch.maximum(a, b)", gated(torch.maximum)),
    ("maxout", "torch.where(a > b, a, b)", gated(lambda a, b: torch.where(a > b, a, b))),
    ("maxout", "torch.stack([a, b]).amax(0)", gated(lambda a, b: torch.stack([a, b]).amax(0))),
    ("maxout", "torch.stack([a, b]).max(0).values", gated(lambda a, b: torch.stack([a, b]).max(0).values)),
]
COMBINATION_REFERENCES = {name: function for name, _, function in reversed(COMBINATIONS)}


def width(name: str) -> int:
    """The number of channels of a combination."""
    return 8 if name == "crelu" else 4 if " of " in name or "itself" in name else 2


@cache
def expected_of_combination(name: str) -> dict[str, Tensor]:
    return maps(METHODS, OfTwo(COMBINATION_REFERENCES[name], width(name)).eval(), IMAGES)


@pytest.mark.parametrize("row", COMBINATIONS, ids=identify)
def test_combinations(row) -> None:
    name, _, function = row
    network = OfTwo(function, width(name)).eval()
    assert_same_maps(METHODS, network, IMAGES, expected_of_combination(name))


REFUSED: dict[str, Pointwise] = {
    "sort": lambda v: torch.stack([v, 0 * v]).sort(0).values[1],
    "topk": lambda v: torch.stack([v, 0 * v]).topk(1, 0).values[0],
    "amax": lambda v: torch.stack([v, 0 * v]).mT.amax(0).mT,
    "quantile": lambda v: torch.stack([v, zero(v)]).quantile(1.0, 0),
    "gather": lambda v: torch.stack([zero(v), v]).gather(0, (v > 0).long()[None])[0],
    "max_pool3d": lambda v: F.max_pool3d(torch.stack([v, 0 * v], 2).flatten(0, 1)[:, None], (2, 1, 1)).view_as(v),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("method", RELU_METHODS)
def test_a_choice_between_functions_of_one_tensor_is_an_activation(method, name) -> None:
    """Right under LRP, which it gives the chosen value all relevance; refused where signals are rectified."""
    network = ActivationNet(REFUSED[name]).eval()
    assert_same_maps(LRP_METHODS, network, IMAGES, expected_of_activation("relu", at_zero=False))
    with pytest.raises(UnseenOperationError, match=rf"ActivationNet.*{name}.*torch\.maximum"):
        RELU_METHODS[method](network, IMAGES)


@pytest.mark.parametrize("attribution", [GuidedBackprop, LRPTranspose])
def test_a_recording_follows_stacked_and_moved_functions(attribution) -> None:
    """How they were put together is found from positions, which are no values of the network."""
    network = ActivationNet(
        lambda v: torch.maximum(*torch.cat([v, 0 * v], 1).chunk(2, 1)) + torch.stack([v, v.sigmoid()]).prod(0)
    ).eval()
    expected = attribution(network).attribute(IMAGES, 1)
    assert error_between(attribution(network).compile().attribute(IMAGES, 1), expected) < 1e-9


def test_relu_of_the_negative_has_the_rule_at_its_own_input() -> None:
    """CReLU: the lower half is a ReLU of -v, and no falling function of v, of which guided backprop would leave 0."""
    weights = numbers(1, 8, 3, 3, seed=1)

    class Concatenated(nn.Module):
        def forward(self, v: Tensor) -> Tensor:
            return (torch.cat([F.relu(v), F.relu(-v)], 1) * weights).sum((1, 2, 3))

    inputs = numbers(1, 4, 3, 3)
    upper, lower = weights.clamp(min=0).chunk(2, 1)
    expected = upper * (inputs > 0) - lower * (inputs < 0)
    torch.testing.assert_close(GuidedBackprop(Concatenated()).attribute(inputs), expected)
    torch.testing.assert_close(Deconvolution(Concatenated()).attribute(inputs), upper - lower)


# -- linear layers -----------------------------------------------------------------------------------------------------

Layer = Callable[[Tensor, nn.Linear], Tensor]

LINEAR_LAYERS: list[tuple[str, Layer]] = [
    ("F.linear", lambda v, m: F.linear(v, m.weight, m.bias)),
    ("F.linear by keyword", lambda v, m: F.linear(input=v, weight=m.weight, bias=m.bias)),
    ("F.linear, then + b", lambda v, m: F.linear(v, m.weight) + m.bias),
    ("aten.linear.default", lambda v, m: aten.linear.default(v, m.weight, m.bias)),
    ("addmm", lambda v, m: torch.addmm(m.bias, v, m.weight.T)),
    ("addmm by keyword", lambda v, m: torch.addmm(input=m.bias, mat1=v, mat2=m.weight.t())),
    ("Tensor.addmm", lambda v, m: m.bias.addmm(v, m.weight.T)),
    ("addmm, beta and alpha", lambda v, m: torch.addmm(2 * m.bias, v, m.weight.T / 4, beta=0.5, alpha=4)),
    ("aten.addmm.default", lambda v, m: aten.addmm.default(m.bias, v, aten.t.default(m.weight))),
    ("addmv, row by row", lambda v, m: torch.stack([torch.addmv(m.bias, m.weight, row) for row in v])),
    ("mv, row by row", lambda v, m: torch.stack([torch.mv(m.weight, row) + m.bias for row in v])),
    ("baddbmm", lambda v, m: torch.baddbmm(m.bias, v[:, None], m.weight.T.expand(len(v), -1, -1))[:, 0]),
    ("bmm", lambda v, m: torch.bmm(v[:, None], m.weight.T.expand(len(v), -1, -1))[:, 0] + m.bias),
    (
        "bmm, the other way round",
        lambda v, m: torch.bmm(m.weight.expand(len(v), -1, -1), v[..., None])[..., 0] + m.bias,
    ),
    ("v @ W.T + b", lambda v, m: v @ m.weight.T + m.bias),
    ("b + v @ W.T", lambda v, m: m.bias + v @ m.weight.T),
    ("v @ W.T + b.expand", lambda v, m: v @ m.weight.T + m.bias.expand(len(v), -1)),
    (
        "v @ W.T + b.unsqueeze(0).expand_as",
        lambda v, m: (lambda y: y + m.bias.unsqueeze(0).expand_as(y))(v @ m.weight.T),
    ),
    ("v @ W.T + b.repeat", lambda v, m: v @ m.weight.T + m.bias.repeat(len(v), 1)),
    ("v @ W.T + b * ones", lambda v, m: (lambda y: y + m.bias * torch.ones_like(y))(v @ m.weight.T)),
    (
        "baddbmm of an expanded b",
        lambda v, m: torch.baddbmm(m.bias.expand(1, len(v), -1), v[None], m.weight.T[None])[0],
    ),
    ("(v @ W.T).add_(b)", lambda v, m: (v @ m.weight.T).add_(m.bias)),
    ("torch.add(mm, b)", lambda v, m: torch.add(input=torch.mm(v, m.weight.T), other=m.bias)),
    ("v @ W.T - (-b)", lambda v, m: v @ m.weight.T - (-m.bias)),
    ("(W @ v.T).T + b", lambda v, m: (m.weight @ v.T).T + m.bias),
    ("W @ v[..., None] + b", lambda v, m: (m.weight @ v[..., None])[..., 0] + m.bias),
    ("W @ v[..., None] + b[:, None]", lambda v, m: (m.weight @ v[..., None] + m.bias[:, None]).squeeze(-1)),
    ("torch.matmul by keyword", lambda v, m: torch.matmul(input=v, other=m.weight.T) + m.bias),
    ("torch.matmul(W, v) by keyword", lambda v, m: torch.matmul(input=m.weight, other=v.mT).mT + m.bias),
    ("v[:, None] @ W.T + b", lambda v, m: (v[:, None] @ m.weight.T + m.bias).squeeze(1)),
    ("einsum", lambda v, m: torch.einsum("ni,oi->no", v, m.weight) + m.bias),
    ("einsum, the other order", lambda v, m: torch.einsum("oi,ni->no", m.weight, v) + m.bias),
    ("einsum, ellipsis", lambda v, m: torch.einsum("...i,oi->...o", v, m.weight) + m.bias),
    ("tensordot", lambda v, m: torch.tensordot(v, m.weight, dims=([1], [1])) + m.bias),
    ("tensordot, W first", lambda v, m: torch.tensordot(m.weight, v, dims=([1], [1])).T + m.bias),
    ("inner", lambda v, m: torch.inner(v, m.weight) + m.bias),
    ("multi_dot", lambda v, m: torch.linalg.multi_dot([v, m.weight.T]) + m.bias),
    ("chain_matmul", lambda v, m: aten.chain_matmul.default([v, m.weight.T]) + m.bias),
    ("vecdot", lambda v, m: torch.linalg.vecdot(v[:, None], m.weight) + m.bias),
    ("(v * W).sum(-1) + b", lambda v, m: (v[:, None] * m.weight).sum(-1) + m.bias),
    ("(W * v).sum(2) + b", lambda v, m: torch.mul(m.weight, v.unsqueeze(1)).sum(dim=2) + m.bias),
    (
        "(v * W).sum(-1, keepdim=True) + b",
        lambda v, m: ((v[:, None] * m.weight).sum(-1, True) + m.bias[:, None])[..., 0],
    ),
    ("(v * n W).mean(-1) + b", lambda v, m: (v[:, None] * (v.shape[1] * m.weight)).mean(-1) + m.bias),
    (
        "(v * W).flatten(2).sum(2) + b",
        lambda v, m: (v[:, None, :, None] * m.weight[..., None]).flatten(2).sum(2) + m.bias,
    ),
    ("F.bilinear, 1 on the right", lambda v, m: F.bilinear(v, v.new_ones(len(v), 1), m.weight[..., None], m.bias)),
    ("F.bilinear, 1 on the left", lambda v, m: F.bilinear(v.new_ones(len(v), 1), v, m.weight[:, None], m.bias)),
    ("F.conv1d of one position", lambda v, m: F.conv1d(v[..., None], m.weight[..., None], m.bias)[..., 0]),
    ("nn.Linear on (N, 1, F)", lambda v, m: m(v[:, None])[:, 0]),
]


class LinearNet(nn.Module):
    """Three linear layers; the first two are computed by `compute`."""

    def __init__(self, compute: Layer) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.head = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.compute = compute
        self.double()

    def forward(self, values: Tensor) -> Tensor:
        hidden = F.relu(self.compute(F.relu(self.compute(values, self.first)), self.second))
        return self.head(hidden)


VALUES = numbers(3, 5) * torch.tensor([1.0, 1.0, 0.0, 1.0, -1.0])


@cache
def expected_of_linear() -> dict[str, Tensor]:
    return maps(LINEAR_METHODS, LinearNet(lambda v, m: m(v)).eval(), VALUES)


def passages(model: nn.Module, inputs: Tensor, rules: str | Composite) -> dict[tuple[str, str], Tensor]:
    """The ledger's entries of each layer, by name and rule, over all its calls."""
    found: dict[tuple[str, str], Tensor] = {}
    for entry in LRPTranspose(model, rules).ledger(inputs, 1):
        amounts = torch.tensor([entry.entered, entry.left, entry.to_bias, entry.to_stabiliser], dtype=torch.float64)
        found[entry.layer, entry.rule] = found.get((entry.layer, entry.rule), 0.0) + amounts
    return found


def assert_same_passages(found: dict[tuple[str, str], Tensor], expected: dict[tuple[str, str], Tensor]) -> None:
    assert list(found) == list(expected)
    for layer, amounts in expected.items():
        torch.testing.assert_close(found[layer], amounts, rtol=1e-7, atol=1e-7 * float(amounts.abs().max()))


@pytest.mark.parametrize("row", LINEAR_LAYERS, ids=identify)
def test_linear_layers(row) -> None:
    network = LinearNet(row[1]).eval()
    assert_same_maps(LINEAR_METHODS, network, VALUES, expected_of_linear())


@pytest.mark.parametrize("row", LINEAR_LAYERS, ids=identify)
@pytest.mark.parametrize("rules", COMPOSITES)
def test_linear_layers_are_named_after_the_module_that_holds_the_weight(rules, row) -> None:
    composite = COMPOSITES[rules]
    expected = passages(LinearNet(lambda v, m: m(v)).eval(), VALUES, composite)
    assert [name for name, _ in expected] == ["head", "second", "first"]
    assert_same_passages(passages(LinearNet(row[1]).eval(), VALUES, composite), expected)


Convolved = Callable[[Tensor, nn.Conv2d], Tensor]

# Of a 3 x 3 convolution with padding 1, by the module that holds its kernel.
CONVOLUTIONS: list[tuple[str, Convolved]] = [
    ("F.conv2d", lambda v, m: F.conv2d(v, m.weight, m.bias, padding=1)),
    ("F.conv2d by keyword", lambda v, m: F.conv2d(input=v, weight=m.weight, bias=m.bias, padding=(1, 1), stride=1)),
    ("torch.conv2d", lambda v, m: torch.conv2d(v, m.weight, m.bias, 1, 1)),
    ("padding='same'", lambda v, m: F.conv2d(v, m.weight, m.bias, padding="same")),
    ("aten.conv2d.default", lambda v, m: aten.conv2d.default(v, m.weight, m.bias, [1, 1], [1, 1])),
    ("aten.convolution.default", lambda v, m: aten.convolution.default(v, m.weight, m.bias, *CONVOLUTION)),  # type: ignore[has-type]
    ("then + b", lambda v, m: F.conv2d(v, m.weight, padding=1) + m.bias[:, None, None]),
    ("of an einsum of one", lambda v, m: F.conv2d(torch.einsum("knchw->nchw", v[None]), m.weight, m.bias, padding=1)),
    ("then + b in place", lambda v, m: F.conv2d(v, m.weight, padding=1).add_(m.bias.view(1, -1, 1, 1))),
    ("one example at a time", lambda v, m: torch.stack([F.conv2d(one, m.weight, m.bias, padding=1) for one in v])),
    (
        "as a transposed convolution",
        lambda v, m: F.conv_transpose2d(v, m.weight.flip(2, 3).transpose(0, 1), m.bias, padding=1),
    ),
    ("as a conv3d", lambda v, m: F.conv3d(v[:, :, None], m.weight[:, :, None], m.bias, padding=(0, 1, 1))[:, :, 0]),
    ("F.pad before it", lambda v, m: F.conv2d(F.pad(v, (1, 1, 1, 1)), m.weight, m.bias)),
    ("nn.ZeroPad2d before it", lambda v, m: F.conv2d(nn.ZeroPad2d(1)(v), m.weight, m.bias)),
    ("F.pad before it, twice", lambda v, m: F.conv2d(F.pad(F.pad(v, (1, 0, 1, 1)), (0, 1)), m.weight, m.bias)),
    ("F.pad of one side", lambda v, m: F.conv2d(F.pad(v, (0, 0, 1, 1)), m.weight, m.bias, padding=(0, 1))),
    ("more of F.pad, cropped before it", lambda v, m: F.conv2d(F.pad(v, (2, 2, 1, 1))[..., 1:-1], m.weight, m.bias)),
    (
        "F.pad before a transposed one",
        lambda v, m: F.conv_transpose2d(F.pad(v, [1] * 4), m.weight.flip(2, 3).transpose(0, 1), m.bias, padding=2),
    ),
    ("more of F.pad at the end", lambda v, m: F.conv2d(F.pad(v, (1, 2, 1, 2)), m.weight, m.bias)[..., :-1, :-1]),
    ("deform_conv2d without offsets", lambda v, m: deform_conv2d(v, offsets(v), m.weight, m.bias, padding=1)),
]
# Of a module of one's own they are no convolutions, by whose type a composite might select them.
PRODUCTS_OF_WINDOWS: list[tuple[str, Convolved]] = [
    (
        "F.unfold, matmul",
        lambda v, m: (m.weight.flatten(1) @ F.unfold(v, 3, padding=1) + m.bias[:, None]).view(len(v), 4, *v.shape[2:]),
    ),
    (
        "F.unfold, F.linear",
        lambda v, m: F.linear(F.unfold(v, 3, 1, 1).mT, m.weight.flatten(1), m.bias).mT.unflatten(2, v.shape[2:]),
    ),
    ("windows, einsum", lambda v, m: torch.einsum("nchwij,ocij->nohw", windows(v), m.weight) + m.bias[:, None, None]),
    (
        "windows, tensordot",
        lambda v, m: (torch.tensordot(windows(v), m.weight, ([1, 4, 5], [1, 2, 3])) + m.bias).movedim(3, 1),
    ),
]
CONVOLUTION = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)


def windows(v: Tensor) -> Tensor:
    """Of a 3 x 3 kernel with padding 1 `(N, C, H, W, 3, 3)`."""
    return F.pad(v, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)


def offsets(v: Tensor) -> Tensor:
    """Of a 3 x 3 kernel that reads where a convolution does."""
    return v.new_zeros(len(v), 18, *v.shape[2:])


class ConvolutionNet(nn.Module):
    def __init__(self, compute: Convolved) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.compute = nn.Linear(4, 3), compute
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.compute(F.relu(self.compute(images, self.first)), self.second))
        return self.head(hidden.mean((2, 3)))


@cache
def expected_of_convolution() -> dict[str, Tensor]:
    return maps(LINEAR_METHODS, ConvolutionNet(lambda v, m: m(v)).eval(), IMAGES)


@pytest.mark.parametrize("row", [*CONVOLUTIONS, *PRODUCTS_OF_WINDOWS], ids=identify)
def test_convolutions(row) -> None:
    network = ConvolutionNet(row[1]).eval()
    assert_same_maps(LINEAR_METHODS, network, IMAGES, expected_of_convolution())


class OwnLayer(nn.Module):
    """A layer as users write them: parameters, and a call of the function in `forward`."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, values: Tensor) -> Tensor:
        return F.linear(values, self.weight, self.bias)


# By type, as the presets select.
BY_TYPE = Composite([(nn.Conv2d, AlphaBeta(2, 1)), (nn.Linear, Gamma(0.25))], default=Epsilon(0.0))


@pytest.mark.parametrize("row", CONVOLUTIONS, ids=identify)
def test_convolutions_whose_kernel_a_module_of_ones_own_holds(row) -> None:
    network = ConvolutionNet(row[1]).eval()
    for name in ("first", "second", "head"):
        setattr(network, name, OwnLayer(getattr(network, name)))
    assert_same_maps(LINEAR_METHODS, network, IMAGES, expected_of_convolution())


class Symmetric(nn.Module):
    """A parametrisation of one's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


PARAMETRISED: dict[str, Callable[[nn.Module], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "one's own": lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()),
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
}


@pytest.mark.parametrize("rules", [Composite([("second", AlphaBeta(2, 1))]), BY_TYPE, "epsilon_plus_flat"], ids=str)
@pytest.mark.parametrize("name", PARAMETRISED)
def test_a_layer_whose_weight_is_computed_has_its_own_name(name, rules) -> None:
    network, plain = (ConvolutionNet(lambda v, m: m(v)) for _ in range(2))
    for layer in ("first", "second"):
        PARAMETRISED[name](getattr(network, layer))
        network.eval()(IMAGES)
        getattr(plain, layer).weight.data = getattr(network, layer).weight.detach().clone()
    expected = passages(plain.eval(), IMAGES, rules)
    assert [layer for layer, _ in expected] == ["head", "second", "first"]
    assert_same_passages(passages(network, IMAGES, rules), expected)


@pytest.mark.parametrize("rules", [BY_TYPE, "epsilon_plus_flat", "epsilon_gamma_box"], ids=str)
def test_rules_by_type_reach_the_layers_of_an_exported_network(rules) -> None:
    network = ConvolutionNet(lambda v, m: m(v)).eval()
    exported = torch.export.export(network, (IMAGES,)).module()
    expected = by_lrp(network, IMAGES, rules)
    torch.testing.assert_close(by_lrp(exported, IMAGES, rules), expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(by_lrp(network, IMAGES, "epsilon"), expected, rtol=1e-3)


# -- batch norm --------------------------------------------------------------------------------------------------------

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Normalised = Callable[[Tensor, BatchNorm], Tensor]


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 2))


def parts(v: Tensor, n: BatchNorm) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, deviation, weight and bias, one entry per channel."""
    deviation = (n.running_var + n.eps).sqrt()
    return tuple(per_channel(part, v) for part in (n.running_mean, deviation, n.weight, n.bias))  # type: ignore[return-value]


def scale_and_shift(v: Tensor, n: BatchNorm) -> tuple[Tensor, Tensor]:
    scale = n.weight * torch.rsqrt(n.running_var + n.eps)
    return per_channel(scale, v), per_channel(n.bias - n.running_mean * scale, v)


def by_hand(v: Tensor, n: BatchNorm) -> Tensor:
    mean, deviation, weight, bias = parts(v, n)
    return (v - mean) / deviation * weight + bias


def by_rsqrt(v: Tensor, n: BatchNorm) -> Tensor:
    mean, _, weight, bias = parts(v, n)
    return weight * ((v - mean) * torch.rsqrt(per_channel(n.running_var, v) + n.eps)) + bias


def by_scale(v: Tensor, n: BatchNorm) -> Tensor:
    scale, shift = scale_and_shift(v, n)
    return v * scale + shift


def by_expanded_scale(v: Tensor, n: BatchNorm) -> Tensor:
    scale, shift = scale_and_shift(v, n)
    return v * scale.expand_as(v) + shift.repeat(len(v), *[1] * (v.ndim - 1)).expand_as(v)


def by_scale_in_place(v: Tensor, n: BatchNorm) -> Tensor:
    scale, shift = scale_and_shift(v, n)
    v *= scale
    v += shift
    return v


def by_addcmul(v: Tensor, n: BatchNorm) -> Tensor:
    scale, shift = scale_and_shift(v, n)
    return torch.addcmul(shift, v, scale)


def frozen(v: Tensor, n: BatchNorm) -> Tensor:
    module = FrozenBatchNorm2d(len(n.weight), n.eps).to(v)
    module.load_state_dict(n.state_dict(), strict=False)
    return module(v)


def functional(v: Tensor, n: BatchNorm) -> Tensor:
    return F.batch_norm(v, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps)


def by_keyword(v: Tensor, n: BatchNorm) -> Tensor:
    return F.batch_norm(
        input=v, running_mean=n.running_mean, running_var=n.running_var, weight=n.weight, bias=n.bias, eps=n.eps
    )


def of_torch(v: Tensor, n: BatchNorm) -> Tensor:
    return torch.batch_norm(v, n.weight, n.bias, n.running_mean, n.running_var, False, 0.1, n.eps, False)


def of_aten(v: Tensor, n: BatchNorm) -> Tensor:
    return aten.batch_norm.default(v, n.weight, n.bias, n.running_mean, n.running_var, False, 0.1, n.eps, False)


def exported(v: Tensor, n: BatchNorm) -> Tensor:
    arguments = (v, n.weight, n.bias, n.running_mean, n.running_var, 0.1, n.eps)
    return aten._native_batch_norm_legit_no_training.default(*arguments)[0]


BATCH_NORMS: list[tuple[str, Normalised]] = [
    ("F.batch_norm", functional),
    ("F.batch_norm by keyword", by_keyword),
    ("torch.batch_norm", of_torch),
    ("aten.batch_norm.default", of_aten),
    ("aten._native_batch_norm_legit_no_training", exported),
    ("FrozenBatchNorm2d", frozen),
    ("(v - mean) / std * w + b", by_hand),
    ("w * ((v - mean) * rsqrt) + b", by_rsqrt),
    ("v * scale + shift", by_scale),
    ("v * scale.expand_as(v) + shift.expand_as(v)", by_expanded_scale),
    ("v *= scale; v += shift", by_scale_in_place),
    ("addcmul(shift, v, scale)", by_addcmul),
    ("identity between", lambda v, n: n(nn.Identity()(v))),
    ("sum([v]) between", lambda v, n: n(sum([v]))),
    ("v * 1 - 0 between", lambda v, n: n(v * 1 - 0.0)),
    ("v ** 1 between", lambda v, n: n(v**1)),
    ("nan_to_num between", lambda v, n: n(torch.nan_to_num(v))),
    ("v.neg().neg() between", lambda v, n: n(v.neg().neg())),
    ("2 * v / 2 between", lambda v, n: n(2 * v / 2)),
    ("-3 * v / c by hand", lambda v, n: by_scale(-3 * v / torch.tensor(-3.0, dtype=v.dtype), n)),
    ("dropout in eval between", lambda v, n: n(F.dropout(v, 0.5, False))),
    ("clone between", lambda v, n: n(v.clone())),
    ("contiguous between", lambda v, n: n(v.contiguous())),
    ("view between", lambda v, n: n(v.view(v.shape))),
    ("reshape between", lambda v, n: n(v.reshape(v.shape))),
    ("to(dtype) between", lambda v, n: n(v.to(torch.float64))),
    ("v[...] between", lambda v, n: n(v[...])),
    ("clone between, then by hand", lambda v, n: by_scale(v.clone(), n)),
    ("view_as between, clone behind", lambda v, n: by_hand(v.view_as(v), n).clone()),
    ("checkpointed", lambda v, n: checkpoint(n, v, use_reentrant=False)),
]
# Of a linear layer with the features last, for values `(N, C, T)`: the batch norm's channels are moved to their place.
MOVED_BATCH_NORMS: list[tuple[str, Callable[[Tensor, nn.Linear, nn.BatchNorm1d], Tensor]]] = [
    ("transposed", lambda v, m, n: n(m(v.mT).mT)),
    ("one row for each position", lambda v, m, n: n(m(v.mT).flatten(0, 1)).unflatten(0, (len(v), -1)).mT),
    ("einsum", lambda v, m, n: n(torch.einsum("nct,oc->not", v, m.weight) + m.bias[:, None])),
    ("W @ x", lambda v, m, n: n(m.weight @ v + m.bias[:, None])),
    ("tensordot", lambda v, m, n: n((torch.tensordot(v, m.weight, ([1], [1])) + m.bias).permute(0, 2, 1))),
    ("transposed, by hand", lambda v, m, n: by_scale(m(v.mT).mT, n)),
    ("a multiple, transposed", lambda v, m, n: n((2 * m(v.mT) / 2).mT)),
    ("a negative one, transposed, by hand", lambda v, m, n: by_scale((-m(v.mT).clone() / -1).mT, n)),
    ("cropped", lambda v, m, n: n(F.conv1d(F.pad(v, (0, 2)), m.weight[..., None], m.bias)[..., :-2])),
    (
        "cropped, by hand",
        lambda v, m, n: by_scale(F.conv1d(F.pad(v, (0, 2)), m.weight[..., None], m.bias)[..., :-2], n),
    ),
    (
        "every second position",
        lambda v, m, n: n(F.conv1d(v.repeat_interleave(2, 2), m.weight[..., None], m.bias)[..., ::2]),
    ),
    ("cat of positions", lambda v, m, n: n(torch.cat([m(part.mT).mT for part in v.tensor_split(2, 2)], 2))),
    ("cat of channels", lambda v, m, n: n(torch.cat(convolved_in_parts(v, m), 1))),
    ("stack of channels", lambda v, m, n: n(torch.stack(convolved_in_parts(v, m), 1).flatten(1, 2))),
    ("stack of channels, by hand", lambda v, m, n: by_scale(torch.stack(convolved_in_parts(v, m), 1).flatten(1, 2), n)),
    ("stack of examples", lambda v, m, n: n(torch.stack([m(one.mT).mT for one in v]))),
    ("beside nothing", lambda v, m, n: torch.cat([n(m(v.mT).mT), n(m(v.mT).mT[..., 5:])], 2)),
    ("in chunks", lambda v, m, n: normalised_in_parts(m(v.mT).mT.chunk(2, 1), n)),
    ("in chunks of one channel", lambda v, m, n: normalised_in_parts(m(v.mT).mT.split(1, 1), n)),
]


def convolved_in_parts(v: Tensor, m: nn.Linear) -> list[Tensor]:
    """The outputs of two convolutions, each with half of the channels."""
    return [F.conv1d(v, w[..., None], b) for w, b in zip(m.weight.chunk(2), m.bias.chunk(2), strict=True)]


def normalised_in_parts(chunks: Sequence[Tensor], n: nn.BatchNorm1d) -> Tensor:
    """Batch norm of groups of channels, each by its part of the statistics."""
    statistics = (n.running_mean, n.running_var, n.weight, n.bias)
    parts = zip(*(statistic.chunk(len(chunks)) for statistic in statistics), strict=True)
    return torch.cat([F.batch_norm(chunk, *part) for chunk, part in zip(chunks, parts, strict=True)], 1)


CONVOLUTION_OF = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM_OF = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class BatchNormNet(nn.Module):
    """Convolution (linear layer for 0 dimensions), batch norm, ReLU, twice; and a linear layer."""

    def __init__(self, normalise: Normalised, dimensions: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        layers = [(2, 4), (4, 4)]
        of = CONVOLUTION_OF.get(dimensions)
        self.layers = nn.ModuleList([nn.Linear(*size) if of is None else of(*size, 2) for size in layers])
        self.norms = nn.ModuleList([BATCH_NORM_OF[dimensions](4) for _ in layers])
        self.head, self.normalise = nn.Linear(4, 3), normalise
        self.double()
        for norm in self.norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, values: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            values = F.relu(self.normalise(layer(values), norm))
        return self.head(values.flatten(2).mean(2) if values.ndim > 2 else values)


@cache
def expected_of_batch_norm(dimensions: int) -> dict[str, Tensor]:
    inputs = numbers(2, 2, *[4] * dimensions)
    return maps(LINEAR_METHODS, BatchNormNet(lambda v, n: n(v), dimensions).eval(), inputs)


@pytest.mark.parametrize("row", BATCH_NORMS, ids=identify)
@pytest.mark.parametrize("dimensions", [0, 1, 2, 3])
def test_batch_norms(dimensions, row) -> None:
    name, normalise = row
    if name == "FrozenBatchNorm2d" and dimensions != 2:
        pytest.skip("torchvision has it for images only")
    inputs = numbers(2, 2, *[4] * dimensions)
    network = BatchNormNet(normalise, dimensions).eval()
    assert_same_maps(LINEAR_METHODS, network, inputs, expected_of_batch_norm(dimensions))


# A linear layer of its own, also where one follows another.
BEHIND_AN_ACTIVATION = {
    "one": lambda v, n, normalise: v + normalise(F.elu(v), n),
    "two": lambda v, n, normalise: v + normalise(n(F.elu(v)), n),
}


def behind_an_activation(name: str, normalise: Callable[..., Tensor]) -> nn.Module:
    return BatchNormNet(lambda v, n: BEHIND_AN_ACTIVATION[name](v, n, normalise), 2).eval()


@cache
def expected_behind_an_activation(name: str) -> dict[str, Tensor]:
    return maps(LINEAR_METHODS, behind_an_activation(name, lambda v, n: n(v)), numbers(2, 2, 4, 4))


@pytest.mark.parametrize("row", BATCH_NORMS, ids=identify)
@pytest.mark.parametrize("name", BEHIND_AN_ACTIVATION)
def test_batch_norms_behind_an_activation(name, row) -> None:
    network = behind_an_activation(name, row[1])
    assert_same_maps(LINEAR_METHODS, network, numbers(2, 2, 4, 4), expected_behind_an_activation(name))


class MovedBatchNormNet(nn.Module):
    """Linear layer, batch norm, ReLU, twice, at each position; and a linear layer."""

    def __init__(self, normalised: Callable[[Tensor, nn.Linear, nn.BatchNorm1d], Tensor]) -> None:
        super().__init__()
        same = BatchNormNet(lambda v, n: n(v), 0)
        self.layers, self.norms, self.head, self.normalised = same.layers, same.norms, same.head, normalised

    def forward(self, values: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            values = F.relu(self.normalised(values, layer, norm))
        return self.head(values.mean(2))


@cache
def expected_of_moved_channels() -> dict[str, Tensor]:
    as_convolution = MovedBatchNormNet(lambda v, m, n: n(F.conv1d(v, m.weight[..., None], m.bias))).eval()
    return maps(LINEAR_METHODS, as_convolution, numbers(2, 2, 5))


@pytest.mark.parametrize("row", MOVED_BATCH_NORMS, ids=identify)
def test_batch_norms_of_moved_channels(row) -> None:
    network = MovedBatchNormNet(row[1]).eval()
    assert_same_maps(LINEAR_METHODS, network, numbers(2, 2, 5), expected_of_moved_channels())


Grouped = Callable[[Tensor, nn.Conv1d], Tensor]


def of_groups(v: Tensor, m: nn.Conv1d) -> Tensor:
    """A convolution in two groups without its bias, with a dimension for the groups `(N, G, O, T)`."""
    windows, weight = v.unflatten(1, (2, -1)).unfold(-1, 2, 1), m.weight.unflatten(0, (2, -1))
    return torch.einsum("ngctk,gock->ngot", windows, weight)


def each_group(v: Tensor, m: nn.Conv1d) -> list[Tensor]:
    parts = zip(v.chunk(2, 1), m.weight.chunk(2), m.bias.chunk(2), strict=True)
    return [F.conv1d(*part) for part in parts]


GROUPED: list[tuple[str, Grouped]] = [
    ("einsum", lambda v, m: of_groups(v, m).flatten(1, 2) + m.bias[:, None]),
    ("einsum, bias of two dimensions", lambda v, m: (of_groups(v, m) + m.bias.view(2, 2, 1)).flatten(1, 2)),
    ("einsum, groups last", lambda v, m: (of_groups(v, m).permute(0, 3, 1, 2) + m.bias.view(2, 2)).flatten(2).mT),
    ("cat", lambda v, m: torch.cat(each_group(v, m), 1)),
    ("stack", lambda v, m: torch.stack(each_group(v, m), 1).flatten(1, 2)),
    ("cat, then + b", lambda v, m: torch.cat([F.conv1d(part, w) for part, w in zip(
        v.chunk(2, 1), m.weight.chunk(2), strict=True)], 1) + m.bias[:, None]),
]  # fmt: skip


class GroupedNet(nn.Module):
    """Convolution in two groups, possibly batch norm, ReLU, twice; and a linear layer."""

    def __init__(self, compute: Grouped, normalised: bool) -> None:
        super().__init__()
        same = BatchNormNet(lambda v, n: n(v), 1)
        self.layers = nn.ModuleList([nn.Conv1d(size, 4, 2, groups=2, dtype=torch.float64) for size in (2, 4)])
        self.norms, self.head, self.compute, self.normalised = same.norms, same.head, compute, normalised

    def forward(self, values: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            values = self.compute(values, layer)
            values = F.relu(norm(values) if self.normalised else values)
        return self.head(values.mean(2))


@pytest.mark.parametrize("normalised", [False, True], ids=["alone", "batch norm"])
@pytest.mark.parametrize("row", GROUPED, ids=identify)
def test_convolutions_in_groups(row, normalised) -> None:
    values = numbers(2, 2, 5)
    expected = maps(LINEAR_METHODS, GroupedNet(lambda v, m: m(v), normalised).eval(), values)
    assert_same_maps(LINEAR_METHODS, GroupedNet(row[1], normalised).eval(), values, expected)


def test_batch_norms_of_repeated_values_are_layers_of_their_own() -> None:
    def network(repeat: Pointwise) -> nn.Module:
        return BatchNormNet(lambda v, n: n(repeat(v)), 2).eval()

    images = numbers(2, 2, 4, 4)
    expected = maps(LINEAR_METHODS, network(partial(F.interpolate, scale_factor=2)), images)
    repeated = network(lambda v: v.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert_same_maps(LINEAR_METHODS, repeated, images, expected)


@pytest.mark.parametrize("row", BATCH_NORMS, ids=identify)
def test_batch_norms_belong_to_the_layer_before_them(row) -> None:
    images = numbers(2, 2, 4, 4)
    expected = passages(BatchNormNet(lambda v, n: n(v), 2).eval(), images, "epsilon_plus")
    assert [name for name, _ in expected] == ["head", "layers.1", "layers.0"]
    assert_same_passages(passages(BatchNormNet(row[1], 2).eval(), images, "epsilon_plus"), expected)


# -- gates -------------------------------------------------------------------------------------------------------------

Gated = Callable[[Tensor, Tensor], Tensor]
pool = partial(torch.mean, dim=(2, 3), keepdim=True)
upsample = partial(F.interpolate, scale_factor=2)
sigmoid = torch.sigmoid


def stable_softmax(values: Tensor, dim: int) -> Tensor:
    exponentials = torch.exp(values - values.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


def detached_softmax(values: Tensor, dim: int) -> Tensor:
    exponentials = (values - values.max(dim, keepdim=True)[0].detach()).exp()
    return exponentials.div(exponentials.sum(dim=dim, keepdim=True))


def log_softmax_by_hand(values: Tensor) -> Tensor:
    shifted = values - values.amax(-1, keepdim=True)
    return shifted - (shifted.exp().sum(-1, keepdim=True) + 1e-14).log()


# How much of a signal `a` passes is said by a function of `z` (N, 4, 4, 4): all relevance goes to `a`.
GATES: list[tuple[str, Gated]] = [
    ("sigmoid", lambda a, z: a * sigmoid(z)),
    ("sigmoid, first", lambda a, z: sigmoid(z) * a),
    ("sigmoid in place", lambda a, z: a.mul_(z.sigmoid_())),
    ("aten.sigmoid.default", lambda a, z: aten.mul.Tensor(a, aten.sigmoid.default(z))),
    ("hardsigmoid", lambda a, z: a * F.hardsigmoid(z)),
    ("relu6(z + 3) / 6", lambda a, z: a * (F.relu6(z + 3) / 6)),
    ("clamp(z + 3, 0, 6) / 6", lambda a, z: a * ((z + 3).clamp(0, 6) / 6)),
    ("clamp(z / 6 + 0.5, 0, 1)", lambda a, z: a * (z / 6 + 0.5).clamp(0, 1)),
    ("1 / (1 + exp(-z))", lambda a, z: a * (1 / (1 + torch.exp(-z)))),
    ("a / (1 + exp(-z))", lambda a, z: a / (1 + torch.exp(-z))),
    ("0.5 (1 + tanh(z / 2))", lambda a, z: a * (0.5 * (1 + torch.tanh(z / 2)))),
    ("exp(logsigmoid(z))", lambda a, z: a * F.logsigmoid(z).exp()),
    ("1 - g", lambda a, z: a * (1 - sigmoid(z))),
    ("torch.rsub(g, 1)", lambda a, z: a * torch.rsub(sigmoid(z), 1)),
    ("1 + g", lambda a, z: a * (1 + sigmoid(z))),
    ("a + a * g", lambda a, z: a + a * sigmoid(z)),
    ("2 * g", lambda a, z: a * (2 * sigmoid(z))),
    ("a * 2 * g", lambda a, z: a * 2 * sigmoid(z)),
    ("g / 3 - 1", lambda a, z: a * (sigmoid(z) / 3 - 1)),
    ("a / (1 + g)", lambda a, z: a / (1 + sigmoid(z))),
    ("(1 - g) a + g b", lambda a, z: (1 - sigmoid(z)) * a + sigmoid(z) * a.roll(1, 1)),
    ("torch.lerp(a, b, g)", lambda a, z: torch.lerp(a, a.roll(1, 1), sigmoid(z))),
    ("a + g (b - a)", lambda a, z: a + sigmoid(z) * (a.roll(1, 1) - a)),
    ("torch.addcmul(a, g, b)", lambda a, z: torch.addcmul(a, sigmoid(z), a.roll(1, 1))),
    ("g1 * g2", lambda a, z: a * (sigmoid(z) * sigmoid(z.roll(1, 1)))),
    ("(a * g1) * g2", lambda a, z: a * sigmoid(z) * sigmoid(z.roll(1, 1))),
    ("g1 + g2", lambda a, z: a * (sigmoid(z) + sigmoid(z.roll(1, 1)))),
    ("g1 / (g1 + g2)", lambda a, z: a * (sigmoid(z) / (sigmoid(z) + sigmoid(z.roll(1, 1))))),
    ("g ** 2", lambda a, z: a * sigmoid(z) ** 2),
    ("sqrt(g)", lambda a, z: a * sigmoid(z).sqrt()),
    ("mean of g over channels", lambda a, z: a * sigmoid(z).mean(1, keepdim=True)),
    ("sigmoid of a mean", lambda a, z: a * sigmoid(pool(z))),
    ("largest g of the channels", lambda a, z: a * sigmoid(z).amax(1, keepdim=True)),
    ("one g of the channels", lambda a, z: a * sigmoid(z)[:, :1]),
    ("interpolate(g)", lambda a, z: a * upsample(sigmoid(z)[..., ::2, ::2])),
    ("bilinear interpolate(g)", lambda a, z: a * upsample(sigmoid(F.avg_pool2d(z, 2)), mode="bilinear")),
    ("average pooling of g", lambda a, z: a * upsample(F.avg_pool2d(sigmoid(z), 2))),
    ("cat of gates", lambda a, z: a * torch.cat([sigmoid(z[:, :2]), F.hardsigmoid(z[:, 2:])], 1)),
    ("stack of gates", lambda a, z: a * torch.stack([sigmoid(z[:, 0]), *sigmoid(z).unbind(1)[1:]], 1)),
    ("g of a chunk", lambda a, z: a * sigmoid(z).chunk(2, 1)[1].repeat(1, 2, 1, 1)),
    ("g, permuted and reshaped", lambda a, z: a * sigmoid(z.flatten(2)).mT.mT.view_as(a)),
    ("g in another dtype and back", lambda a, z: a * sigmoid(z).clone().to(a.dtype)),
    ("g, dropout in eval", lambda a, z: a * F.dropout(sigmoid(z), 0.5, False)),
    ("masked g", lambda a, z: a * sigmoid(z).masked_fill(torch.eye(4, dtype=torch.bool), 0)),
    ("softmax over channels", lambda a, z: a * z.softmax(1)),
    ("softmax over positions", lambda a, z: a * torch.softmax(z.flatten(2), -1).view_as(z)),
    ("exp / sum", lambda a, z: a * (z.exp() / z.exp().sum(1, keepdim=True))),
    ("a * exp / sum", lambda a, z: a * z.exp() / z.exp().sum(1, keepdim=True)),
    ("exp(z - max) / sum", lambda a, z: a * stable_softmax(z, 1)),
    ("exp(z - max.detach()) / sum", lambda a, z: a * detached_softmax(z, 1)),
    ("normalize(g, p=1)", lambda a, z: a * F.normalize(sigmoid(z), p=1.0)),
    ("layer_norm(g)", lambda a, z: a * F.layer_norm(sigmoid(z), (4,))),
    ("exp", lambda a, z: a * torch.exp(z)),
    ("exp(-z ** 2)", lambda a, z: a * torch.exp(-(z**2))),
    ("decay of a state of zeros", lambda a, z: torch.exp(z) * torch.zeros_like(a) + a * sigmoid(z)),
    ("decay of the number 0", lambda a, z: 0 * torch.exp(z) + a * sigmoid(z)),
    ("product of g over channels", lambda a, z: a * sigmoid(z).prod(1, keepdim=True)),
    ("std", lambda a, z: a * z.std((2, 3), keepdim=True)),
    ("var", lambda a, z: a * torch.var(z, (2, 3), keepdim=True)),
    ("norm", lambda a, z: a * z.norm(dim=1, keepdim=True)),
    ("a / norm", lambda a, z: a / torch.linalg.vector_norm(z, dim=1, keepdim=True)),
    ("a / total", lambda a, z: a / (F.softplus(z).sum(1, keepdim=True) + 1e-3).clamp(min=1e-4)),
    ("a * (1 / total)", lambda a, z: a * (1 / F.relu6(z + 3).mean((2, 3), keepdim=True))),
    ("a / total of products", lambda a, z: a / torch.einsum("nchw,nchw->nhw", F.softplus(z), F.elu(z) + 1)[:, None]),
    ("rsqrt of a mean square", lambda a, z: a * z.square().mean((2, 3), keepdim=True).rsqrt()),
]


class GateNet(nn.Module):
    """A signal and its gate, from the same images."""

    def __init__(self, combine: Gated, held: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.signal, self.gate, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1), nn.Linear(4, 3)
        self.combine, self.held = combine, held
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        gate = self.gate(images)
        mixed = self.combine(self.signal(images), gate.detach().clone() if self.held else gate)
        return self.head(F.relu(mixed).mean((2, 3)))


@pytest.mark.parametrize("row", GATES, ids=identify)
def test_gates_get_nothing(row) -> None:
    """As in the network whose gate is a constant."""
    _, combine = row
    expected = maps(LRP_METHODS, GateNet(combine, held=True).eval(), IMAGES)
    assert_same_maps(LRP_METHODS, GateNet(combine, held=False).eval(), IMAGES, expected)


# Quotients of two signals, for guided backprop and deconvnet.
QUOTIENTS: list[tuple[str, Gated]] = [
    ("a * (1 / d)", lambda a, d: a * (1 / d)),
    ("(1 / d) * a", lambda a, d: (1.0 / d).mul(a)),
    ("a * d.reciprocal()", lambda a, d: a * d.reciprocal()),
    ("a * d ** -1", lambda a, d: a * d**-1),
    ("torch.reciprocal, then einsum", lambda a, d: torch.einsum("nchw,nchw->nchw", a, torch.reciprocal(d))),
]


@pytest.mark.parametrize("row", QUOTIENTS, ids=identify)
def test_a_reciprocal_is_no_activation(row) -> None:
    def over(divide: Gated) -> nn.Module:
        return GateNet(lambda a, z: divide(F.relu(a), 1 + pool(F.relu(z)).expand_as(a)), held=False).eval()

    methods = {name: METHODS[name] for name in ("guided", "deconvnet")}
    expected = {name: method(over(torch.div), IMAGES) for name, method in methods.items()}
    assert_same_maps(methods, over(row[1]), IMAGES, expected)


# Functions of a signal that is no weight: their reciprocals are finite.
DIVISORS: dict[str, Pointwise] = {
    "1 + |z|": lambda z: 1 + z.abs(),
    "clamp": lambda z: z.clamp(min=0.1),
    "maximum": lambda z: torch.maximum(z.abs(), torch.ones_like(z)),
    "elu + 1": lambda z: F.elu(z) + 1.1,
    "sqrt(1 + z * z)": lambda z: (1 + z * z).sqrt(),
}


@pytest.mark.parametrize("row", [("a / d", torch.div), *QUOTIENTS], ids=identify)
@pytest.mark.parametrize("name", DIVISORS)
def test_a_quotient_by_an_activation_is_a_product_with_its_reciprocal(name, row) -> None:
    def over(divide: Gated) -> nn.Module:
        return GateNet(lambda a, z: divide(F.relu(a), DIVISORS[name](pool(z)).expand_as(a)), held=False).eval()

    expected = maps(FEW_METHODS, over(lambda a, d: a * (1 / d)), IMAGES)
    assert_same_maps(FEW_METHODS, over(row[1]), IMAGES, expected)


def halves_divided(a: Tensor, gate: Tensor, parts: Callable[[Tensor], Sequence[Tensor]]) -> Tensor:
    """Each of two channels of `a` (N, 2, L) divided by its own number."""
    return torch.stack([a[:, index] / part for index, part in enumerate(parts(gate))], 1)


# `a` (N, 2, L) divided by a function of `z` (N, 2), moved to its place.
MOVED_DIVISORS: dict[str, Callable[[Tensor, Tensor, Pointwise], Tensor]] = {
    "reciprocal, index": lambda a, z, f: a * (1 / f(z)[..., None]),
    "reciprocal of a copy": lambda a, z, f: a * f(z).clone().unsqueeze(2).reciprocal(),
    "index": lambda a, z, f: a / f(z)[..., None],
    "view": lambda a, z, f: a / f(z).view(-1, 2, 1),
    "view_as": lambda a, z, f: a / f(z).view_as(a[..., :1]),
    "transposed": lambda a, z, f: (a.mT / f(z).unsqueeze(1)).mT,
    "selected": lambda a, z, f: halves_divided(a, f(z), lambda g: [g[:, i, None] for i in range(2)]),
    "split": lambda a, z, f: halves_divided(a, f(z), lambda g: g.split(1, 1)),
}


class DividedNet(nn.Module):
    def __init__(self, divide: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.value, self.gate, self.head, self.divide = nn.Linear(4, 8), nn.Linear(4, 2), nn.Linear(8, 3), divide
        self.double().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.divide(self.value(inputs).view(-1, 2, 4), self.gate(inputs)).flatten(1))


@pytest.mark.parametrize("moved", MOVED_DIVISORS)
@pytest.mark.parametrize("name", [*DIVISORS, "relu + 0.1"])
def test_a_divisor_that_was_moved_is_the_same_function(name, moved) -> None:
    function = DIVISORS.get(name, lambda z: F.relu(z) + 0.1)
    inputs = numbers(3, 4)
    expected = maps(FEW_METHODS, DividedNet(lambda a, z: a * (1 / function(z[..., None]))), inputs)
    found = DividedNet(lambda a, z: MOVED_DIVISORS[moved](a, z, function))
    assert_same_maps(FEW_METHODS, found, inputs, expected)


def test_a_negative_power_is_a_reciprocal() -> None:
    def over(divide: Gated) -> nn.Module:
        return GateNet(lambda a, z: divide(a, z.sum(1, keepdim=True) + 0.1), held=False).eval()

    for divide in (torch.div, lambda a, d: a * d**-1, lambda a, d: a * d.pow(-2.0)):
        with pytest.raises(NoRuleError):
            LRPTranspose(over(divide)).attribute(IMAGES, 1)


def test_the_product_of_n_signals_is_shared_by_them() -> None:
    """R_i = R / n, also for factors of which none is a gate."""

    class Product(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return torch.prod(values, 1)

    values = numbers(2, 3, seed=8)
    expected = (values.prod(1, keepdim=True) / 3).expand(-1, 3)
    torch.testing.assert_close(LRPTranspose(Product(), "lrp_0").attribute(values), expected)


def share(values: Tensor, dim: int = 1) -> Tensor:
    return values / (values.sum(dim, keepdim=True) + 1e-14).clamp(min=1e-9)


def total(values: Tensor) -> Tensor:
    return (F.elu(values) + 1).sum(1, keepdim=True)


SAME_GATES: list[tuple[str, Gated, Gated]] = [
    ("1 / (1 + exp(-z))", lambda a, z: a * sigmoid(z), lambda a, z: a * (1 / (1 + torch.exp(-z)))),
    ("0.5 (1 + tanh(z / 2))", lambda a, z: a * sigmoid(z), lambda a, z: 0.5 * (1 + torch.tanh(z / 2)) * a),
    ("hardsigmoid, relu6(z + 3) / 6", lambda a, z: a * F.hardsigmoid(z), lambda a, z: a * (F.relu6(z + 3) / 6)),
    (
        "hardsigmoid, clamp(z + 3, 0, 6) / 6",
        lambda a, z: a * F.hardsigmoid(z),
        lambda a, z: a * ((z + 3).clamp(0, 6) / 6),
    ),
    ("exp / sum", lambda a, z: a * z.softmax(1), lambda a, z: a * (z.exp() / z.exp().sum(1, keepdim=True))),
    ("softplus / sum", lambda a, z: a * F.normalize(F.softplus(z), 1.0), lambda a, z: a * share(F.softplus(z))),
    ("pow(e, z)", lambda a, z: a * torch.exp(z), lambda a, z: a * torch.pow(math.e, z)),
    ("expm1(z) + 1", lambda a, z: a * torch.exp(z), lambda a, z: a * (torch.expm1(z) + 1)),
    ("odds of a sigmoid", lambda a, z: a * torch.exp(z), lambda a, z: a * (sigmoid(z) / (1 - sigmoid(z)))),
    ("1 / (total + tiny)", lambda a, z: a / (total(z) + 1e-6), lambda a, z: a * (1 / (total(z) + 1e-6))),
    ("exp + tiny", lambda a, z: a * torch.exp(z), lambda a, z: a * (torch.exp(z) + 1e-14)),
    ("1 - sigmoid(-z)", lambda a, z: a * sigmoid(z), lambda a, z: a * (1 - sigmoid(-z))),
    ("1 - sigmoid(z)", lambda a, z: a * sigmoid(-z), lambda a, z: a * (1 - sigmoid(z))),
]


@pytest.mark.parametrize("row", SAME_GATES, ids=identify)
def test_the_same_gate_has_the_same_map(row) -> None:
    name, reference, rewriting = row
    expected = maps(METHODS, GateNet(reference, held=False).eval(), IMAGES)
    assert_same_maps(METHODS, GateNet(rewriting, held=False).eval(), IMAGES, expected, tolerance(name))


MEMORY = numbers(16, 16, seed=4)
# Sums with weights, by a softmax and by exponentials.
WEIGHED: dict[str, tuple[Gated, Gated]] = {
    "sum of products": (
        lambda a, z: a * z.softmax(1),
        lambda a, z: (z.exp() * a) / z.exp().sum(1, keepdim=True),
    ),
    "mean with weights": (
        lambda a, z: (a * z.flatten(2).softmax(2).view_as(z)).sum((2, 3), keepdim=True),
        lambda a, z: (a * z.exp()).sum((2, 3), keepdim=True) / z.exp().sum((2, 3), keepdim=True),
    ),
    "einsum with weights": (
        lambda a, z: (a * z.flatten(2).softmax(2).view_as(z)).sum((2, 3), keepdim=True),
        lambda a, z: (torch.einsum("ncij,ncij->nc", a, z.exp()) / torch.einsum("ncij->nc", z.exp()))[..., None, None],
    ),
    "its length": (lambda a, z: a * z.softmax(1), lambda a, z: a * (z.exp() / z.exp().norm(1, 1, keepdim=True))),
}


@pytest.mark.parametrize("name", WEIGHED)
def test_an_exponential_that_is_a_factor_is_a_weight(name) -> None:
    reference, by_hand = WEIGHED[name]
    expected = maps(METHODS, GateNet(reference, held=False).eval(), IMAGES)
    assert_same_maps(METHODS, GateNet(by_hand, held=False).eval(), IMAGES, expected)


def test_an_exponential_that_weighs_constants_is_a_weight() -> None:
    """Other rules of LRP than LRP-0 depend on the product with constants, which comes before the division here."""
    methods = RELU_METHODS | {"lrp_0": LRP_METHODS["lrp_0"]}

    def by_softmax(a: Tensor, z: Tensor) -> Tensor:
        return a + (z.flatten(2).softmax(2) @ MEMORY).view_as(z)

    def by_hand(a: Tensor, z: Tensor) -> Tensor:
        weights = z.flatten(2).exp()
        return a + (weights @ MEMORY / weights.sum(2, keepdim=True)).view_as(z)

    expected = maps(methods, GateNet(by_softmax, held=False).eval(), IMAGES)
    assert_same_maps(methods, GateNet(by_hand, held=False).eval(), IMAGES, expected)


# A linear layer of an activation, in all spellings, makes no weight of it.
PROJECTED: dict[str, Gated] = {
    "matmul": lambda v, w: v @ w,
    "einsum": lambda v, w: torch.einsum("nchi,io->ncho", v, w),
    "(v * w).sum": lambda v, w: (v[..., None] * w).sum(-2),
}


@pytest.mark.parametrize("name", PROJECTED)
@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
def test_an_exponential_before_a_linear_layer_is_an_activation(method, name) -> None:
    matrix, weights, inputs = numbers(3, 3, seed=4), numbers(1, 4, 3, 3, seed=1), numbers(2, 4, 3, 3)

    def maps(project: Gated) -> Tensor:
        network = Readout(lambda v: F.relu(project(torch.exp(v), matrix) - 1), weights)
        first, _ = method(network).attribute((inputs, zero(inputs)))
        result: Tensor = first
        return result

    torch.testing.assert_close(maps(PROJECTED[name]), maps(lambda v, w: F.linear(v, w.mT)))


# -- products of two signals -------------------------------------------------------------------------------------------


def by_matrices(product: Gated) -> Gated:
    """A product of a matrix made of `a` with one made of `z`, as channels and positions."""
    return lambda a, z: product(a.reshape(8, 16), z[0].reshape(16, 4)).view(2, 4, 2, 2)


def by_kernels(product: Gated) -> Gated:
    """A convolution of `a` with a kernel `(2, 4, 2, 2)` made of `z`."""
    return lambda a, z: product(a, z[:, :, :2, :2]).repeat(1, 2, 1, 1)


of_matrices = by_matrices(lambda m, k: (m[:, :, None] * k).sum(1))
of_kernels = by_kernels(lambda a, k: (F.unfold(a, 2)[:, None] * k.flatten(1)[..., None]).sum(2).view(2, 2, 3, 3))
PRODUCTS: list[tuple[str, Gated, Gated]] = [
    ("@", of_matrices, by_matrices(lambda m, k: m @ k)),
    ("torch.mm", of_matrices, by_matrices(torch.mm)),
    ("F.linear", of_matrices, by_matrices(lambda m, k: F.linear(m, k.t()))),
    ("F.linear of tokens", of_matrices, by_matrices(lambda m, k: F.linear(m.view(2, 4, 16), k.t()))),
    ("einsum", of_matrices, by_matrices(lambda m, k: torch.einsum("ij,jk->ik", m, k))),
    (
        "einsum of three, one of them a gate",
        by_matrices(lambda m, k: (m[:, :, None] * k).sum(1) * m[:, :1].sigmoid()),
        by_matrices(lambda m, k: torch.einsum("ij,jk,i->ik", m, k, m[:, 0].sigmoid())),
    ),
    ("torch.addmm", of_matrices, by_matrices(lambda m, k: torch.addmm(m.new_zeros(8, 4), m, k))),
    ("F.conv1d", of_matrices, by_matrices(lambda m, k: F.conv1d(m[..., None], k.t()[..., None])[..., 0])),
    ("F.conv2d", of_kernels, by_kernels(F.conv2d)),
    ("F.conv_transpose2d", of_kernels, by_kernels(lambda a, k: F.conv_transpose2d(
        a, k.flip(2, 3).transpose(0, 1))[:, :, 1:-1, 1:-1])),
    ("aten.convolution.default", of_kernels, by_kernels(lambda a, k: aten.convolution.default(
        a, k, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1))),
    ("F.conv2d of a gate", lambda a, z: of_kernels(a, sigmoid(z)), lambda a, z: by_kernels(F.conv2d)(a, sigmoid(z))),
]  # fmt: skip


@pytest.mark.parametrize("row", PRODUCTS, ids=identify)
def test_products_of_two_signals(row) -> None:
    _, reference, rewriting = row
    expected = maps(METHODS, GateNet(reference, held=False).eval(), IMAGES)
    assert_same_maps(METHODS, GateNet(rewriting, held=False).eval(), IMAGES, expected)


# -- norms -------------------------------------------------------------------------------------------------------------


class NormNet(nn.Module):
    """A convolution, a norm beside a path that passes it by, and a linear layer: nothing but the norm is not linear."""

    def __init__(self, normalise: Callable[[Tensor, "NormNet"], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.head = nn.Conv2d(2, 4, 2), nn.Linear(36, 3)
        self.layer = nn.LayerNorm(3)
        self.group = nn.GroupNorm(2, 4)
        self.instance = nn.InstanceNorm2d(4, affine=True)
        self.rms = nn.RMSNorm(3, eps=1e-5)
        self.normalise = normalise
        self.double()
        for norm in (self.layer, self.group, self.instance, self.rms):
            for parameter in norm.parameters():
                nn.init.normal_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images)
        return self.head((self.normalise(hidden, self) + 0.5 * hidden).flatten(1))


def layer_norm_by_hand(v: Tensor, s: NormNet) -> Tensor:
    mean = v.mean(-1, keepdim=True)
    variance = v.var(-1, unbiased=False, keepdim=True)
    return (v - mean) / torch.sqrt(variance + s.layer.eps) * s.layer.weight + s.layer.bias


def layer_norm_by_var_mean(v: Tensor, s: NormNet) -> Tensor:
    variance, mean = torch.var_mean(v, dim=-1, keepdim=True, correction=0)
    return s.layer.weight * (v - mean) * torch.rsqrt(variance + s.layer.eps) + s.layer.bias


def layer_norm_by_squares(v: Tensor, s: NormNet) -> Tensor:
    centred = v - v.mean(-1, keepdim=True)
    return s.layer.bias + s.layer.weight * (centred / (centred.pow(2).mean(-1, keepdim=True) + s.layer.eps).sqrt())


def layer_norm_by_moments(v: Tensor, s: NormNet) -> Tensor:
    mean, square = v.mean(-1, keepdim=True), (v * v).mean(-1, keepdim=True)
    return (v - mean) / (square - mean**2 + s.layer.eps) ** 0.5 * s.layer.weight + s.layer.bias


def group_norm_by_hand(v: Tensor, s: NormNet) -> Tensor:
    grouped = v.view(len(v), 2, -1)
    variance, mean = torch.var_mean(grouped, -1, unbiased=False, keepdim=True)
    normal = ((grouped - mean) * torch.rsqrt(variance + s.group.eps)).view_as(v)
    return normal * s.group.weight[:, None, None] + s.group.bias[:, None, None]


def instance_norm_by_hand(v: Tensor, s: NormNet) -> Tensor:
    mean, variance = v.mean((2, 3), keepdim=True), v.var((2, 3), unbiased=False, keepdim=True)
    scale = s.instance.weight[:, None, None] / (variance + s.instance.eps).sqrt()
    return (v - mean) * scale + s.instance.bias[:, None, None]


def rms_norm_of_llama(v: Tensor, s: NormNet) -> Tensor:
    return s.rms.weight * (v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-5))


def rms_norm_by_division(v: Tensor, s: NormNet) -> Tensor:
    return v / torch.sqrt((v * v).mean(-1, keepdim=True) + 1e-5) * s.rms.weight


def rms_norm_by_square(v: Tensor, s: NormNet) -> Tensor:
    return v.mul((torch.square(v).sum(dim=-1, keepdim=True) / 3).add(1e-5).pow(-0.5)).mul(s.rms.weight)


def held(v: Tensor) -> Tensor:
    return v.detach().clone()


def response_norm(v: Tensor, statistics: Tensor) -> Tensor:
    """ConvNeXt V2's: how large a channel is among the others, `statistics` holding the values that say so."""
    norm = statistics.norm(dim=(2, 3), keepdim=True)
    return v + 0.7 * (v * (norm / (norm.mean(1, keepdim=True) + 1e-6))) + 0.2


def channels_last_norm(v: Tensor, s: NormNet) -> Tensor:
    """ConvNeXt's LayerNorm of channels, by PyTorch's of the last dimension."""
    return F.layer_norm(v.movedim(1, -1), (4,), s.group.weight, s.group.bias).movedim(-1, 1)


def channels_first_norm(v: Tensor, s: NormNet) -> Tensor:
    mean = v.mean(1, keepdim=True)
    variance = (v - mean).pow(2).mean(1, keepdim=True)
    return s.group.weight[:, None, None] * ((v - mean) / torch.sqrt(variance + 1e-5)) + s.group.bias[:, None, None]


def local_norm(v: Tensor, statistics: Tensor) -> Tensor:
    squares = F.pad((statistics * statistics).unsqueeze(1), (0, 0, 0, 0, 1, 1))
    return v / F.avg_pool3d(squares, (3, 1, 1), stride=1).squeeze(1).mul(0.1).add(1.0).pow(0.75)


def pairs(v: Tensor, length: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The vectors that the first and the last channels make up, over their length."""
    return v / length(*halves(v)).repeat(1, 2, 1, 1)


Norm = Callable[[Tensor, NormNet], Tensor]


def by_pixel(
    v: Tensor, length: Callable[[Tensor], Tensor], then_of_all: Callable[[Tensor], Tensor] = lambda lengths: lengths
) -> Tensor:
    """Each pixel's channels by their length, computed one by one."""
    pixels = v.permute(0, 2, 3, 1).reshape(-1, v.shape[1])
    lengths = then_of_all(torch.stack([length(pixel) for pixel in pixels]))
    return v / lengths.view(len(v), 1, *v.shape[2:])


def by_rows(v: Tensor, squared: Callable[[Tensor], Tensor]) -> Tensor:
    """Each pixel's channels by their length: `squared` computes its square (n, 1) for rows (n, channels)."""
    rows = v.permute(0, 2, 3, 1).flatten(0, 2)
    return (rows / squared(rows).sqrt()).unflatten(0, (len(v), *v.shape[2:])).permute(0, 3, 1, 2)


NORM_REFERENCES: dict[str, Norm] = {
    "layer norm": lambda v, s: s.layer(v),
    "group norm": lambda v, s: s.group(v),
    "instance norm": lambda v, s: s.instance(v),
    "RMS norm": lambda v, s: s.rms(v),
    "layer norm of RMS norm": lambda v, s: s.layer(s.rms(v)),
    "layer norm of channels": channels_last_norm,
    "global response norm": lambda v, s: response_norm(v, held(v)),
    "local response norm": lambda v, s: local_norm(v, held(v)),
    "F.normalize": lambda v, s: F.normalize(v, dim=1),
    "F.normalize(p=1)": lambda v, s: F.normalize(v, p=1.0, dim=1),
    "unit pairs": lambda v, s: F.normalize(v.unflatten(1, (2, 2)), dim=1).flatten(1, 2),
    "softmax": lambda v, s: v.softmax(1),
}

NORMS: list[tuple[str, str, Norm]] = [
    ("layer norm", "F.layer_norm", lambda v, s: F.layer_norm(v, (3,), s.layer.weight, s.layer.bias, s.layer.eps)),
    ("layer norm", "torch.layer_norm", lambda v, s: torch.layer_norm(v, [3], s.layer.weight, s.layer.bias)),
    ("layer norm", "aten", lambda v, s: aten.layer_norm.default(v, [3], s.layer.weight, s.layer.bias)),
    ("layer norm", "F.layer_norm, affine by hand", lambda v, s: F.layer_norm(v, (3,)) * s.layer.weight + s.layer.bias),
    ("layer norm", "mean, var", layer_norm_by_hand),
    ("layer norm", "var_mean", layer_norm_by_var_mean),
    ("layer norm", "mean of squares", layer_norm_by_squares),
    ("layer norm", "mean square less squared mean", layer_norm_by_moments),
    ("group norm", "F.group_norm", lambda v, s: F.group_norm(v, 2, s.group.weight, s.group.bias, s.group.eps)),
    ("group norm", "view, var_mean", group_norm_by_hand),
    (
        "instance norm",
        "F.instance_norm",
        lambda v, s: F.instance_norm(v, weight=s.instance.weight, bias=s.instance.bias),
    ),
    ("instance norm", "mean, var", instance_norm_by_hand),
    ("instance norm", "group norm", lambda v, s: F.group_norm(v, 4, s.instance.weight, s.instance.bias)),
    ("RMS norm", "F.rms_norm", lambda v, s: F.rms_norm(v, (3,), s.rms.weight, 1e-5)),
    ("RMS norm", "Llama's", rms_norm_of_llama),
    ("RMS norm", "division by sqrt", rms_norm_by_division),
    ("RMS norm", "pow(-0.5) of a sum", rms_norm_by_square),
    ("layer norm of RMS norm", "by hand", lambda v, s: layer_norm_by_hand(rms_norm_of_llama(v, s), s)),
    ("layer norm of RMS norm", "by squares", lambda v, s: layer_norm_by_squares(rms_norm_of_llama(v, s), s)),
    ("layer norm of channels", "permute", lambda v, s: channels_last_norm(v.clone(), s)),
    ("layer norm of channels", "by hand", channels_first_norm),
    ("global response norm", "by hand", lambda v, s: response_norm(v, v)),
    ("local response norm", "F.local_response_norm", lambda v, s: F.local_response_norm(v, 3, alpha=0.1)),
    ("local response norm", "by hand", lambda v, s: local_norm(v, v)),
    ("F.normalize", "v / norm", lambda v, s: v / v.norm(dim=1, keepdim=True)),
    ("F.normalize", "v / norm.clamp_min", lambda v, s: v / v.norm(2, 1, True).clamp_min(1e-12).expand_as(v)),
    ("F.normalize", "v / vector_norm", lambda v, s: v / torch.linalg.vector_norm(v, dim=1, keepdim=True)),
    ("F.normalize", "v / sqrt(sum of squares)", lambda v, s: v / v.pow(2).sum(1, keepdim=True).sqrt()),
    ("F.normalize", "v * rsqrt(sum of v * v)", lambda v, s: v * torch.rsqrt((v * v).sum(1, keepdim=True))),
    ("F.normalize", "stack of dot(pixel, pixel)", lambda v, s: by_pixel(v, lambda x: torch.dot(x, x).sqrt())),
    ("F.normalize", "stack of inner(pixel, pixel)", lambda v, s: by_pixel(v, lambda x: torch.inner(x, x).sqrt())),
    ("F.normalize", "stack of norm(pixel)", lambda v, s: by_pixel(v, torch.norm)),
    ("F.normalize", "roots of a stack", lambda v, s: by_pixel(v, lambda x: (x**2).sum(), torch.sqrt)),
    ("F.normalize", "roots of a stack of dot", lambda v, s: by_pixel(v, lambda x: torch.dot(x, x), torch.sqrt)),
    (
        "F.normalize",
        "cat of norms",
        lambda v, s: v / torch.cat([some.norm(dim=1, keepdim=True) for some in v.split(1)]),
    ),
    ("F.normalize", "bmm of rows and columns", lambda v, s: by_rows(v, lambda x: x[:, None].bmm(x[:, :, None])[:, 0])),
    ("F.normalize", "rows @ columns", lambda v, s: by_rows(v, lambda x: (x.unsqueeze(1) @ x.unsqueeze(2)).squeeze(1))),
    ("F.normalize", "vecdot", lambda v, s: by_rows(v, lambda x: torch.linalg.vecdot(x, x)[:, None])),
    ("F.normalize", "einsum", lambda v, s: v / torch.einsum("nchw,nchw->nhw", v, v).sqrt()[:, None]),
    ("F.normalize(p=1)", "v / sum of |v|", lambda v, s: v / v.abs().sum(1, keepdim=True)),
    ("unit pairs", "sqrt(a * a + b * b)", lambda v, s: pairs(v, lambda a, b: (a * a + b**2).sqrt())),
    ("unit pairs", "torch.hypot", lambda v, s: pairs(v, torch.hypot)),
    ("softmax", "F.softmax", lambda v, s: F.softmax(v, dim=1)),
    ("softmax", "aten.softmax.int", lambda v, s: aten.softmax.int(v, 1)),
    ("softmax", "nn.Softmax2d", lambda v, s: nn.Softmax2d()(v)),
    ("softmax", "exp / sum", lambda v, s: v.exp() / v.exp().sum(1, keepdim=True)),
    ("softmax", "exp * sum.reciprocal()", lambda v, s: v.exp() * torch.exp(v).sum(1, keepdim=True).reciprocal()),
    ("softmax", "exp(v - max) / sum", lambda v, s: stable_softmax(v, 1)),
    ("softmax", "exp(v - max.detach()) / sum", lambda v, s: detached_softmax(v, 1)),
    ("softmax", "exp(v - logsumexp)", lambda v, s: (v - v.logsumexp(1, keepdim=True)).exp()),
    ("softmax", "exp(log_softmax)", lambda v, s: F.log_softmax(v, 1).exp()),
]


GRAMS: dict[str, Pointwise] = {
    "bmm": lambda v: torch.bmm(v.flatten(2), v.flatten(2).transpose(1, 2)),
    "matmul": lambda v: v.flatten(2) @ v.flatten(2).mT,
    "einsum": lambda v: torch.einsum("nip,njp->nij", v.flatten(2), v.flatten(2)),
    "einsum of one": lambda v: (lambda flat: torch.einsum("nip,njp->nij", flat, flat))(v.flatten(2)),
    "tensordot": lambda v: torch.stack([torch.tensordot(one, one, ([1, 2], [1, 2])) for one in v]),
}


class BilinearNet(nn.Module):
    """Products of channels with one another, and their signed roots: a Gram matrix holds no squares alone."""

    def __init__(self, gram: Pointwise) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.head, self.gram = nn.Conv2d(2, 4, 2), nn.Linear(16, 3), gram
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        products = self.gram(self.first(images)).flatten(1)
        return self.head(products.sign() * (products.abs() + 1e-3).sqrt())


@pytest.mark.parametrize("gram", GRAMS)
def test_gram_matrices(gram) -> None:
    expected = maps(METHODS, BilinearNet(GRAMS["bmm"]).eval(), IMAGES)
    assert_same_maps(METHODS, BilinearNet(GRAMS[gram]).eval(), IMAGES, expected)


@pytest.mark.parametrize("method", RELU_METHODS)
def test_a_learned_scale_is_no_part_of_the_activation(method) -> None:
    """Behind a ReLU, a negative scale turns the signal round before it reaches the ReLU, whatever its shape."""

    class Scaled(ActivationNet):
        def __init__(self, shape: tuple[int, ...]) -> None:
            super().__init__(lambda v: v + self.scale * F.relu(v))
            self.scale = nn.Parameter(torch.full(shape, -0.7, dtype=torch.float64))

    expected = RELU_METHODS[method](Scaled((1, 1, 1)).eval(), IMAGES)
    assert expected.any()
    assert error_between(RELU_METHODS[method](Scaled(()).eval(), IMAGES), expected) < 1e-9


@pytest.mark.parametrize("activate", [F.relu, partial(F.leaky_relu, negative_slope=0.2)])
@pytest.mark.parametrize("method", RELU_METHODS)
def test_a_gain_behind_a_relu_is_a_scale(method, activate) -> None:
    """A positive number, as networks without normalisation have it: of equal effect before the ReLU and behind it."""
    expected = RELU_METHODS[method](ActivationNet(lambda v: v + activate(1.7 * v)).eval(), IMAGES)
    for gained in (lambda v: v + 1.7 * activate(v), lambda v: v + activate(v) / (1 / 1.7)):
        found = RELU_METHODS[method](ActivationNet(gained).eval(), IMAGES)
        assert error_between(found, expected) < 1e-9


@cache
def expected_of_norm(name: str) -> dict[str, Tensor]:
    return maps(LRP_METHODS, NormNet(NORM_REFERENCES[name]).eval(), IMAGES)


@pytest.mark.parametrize("row", NORMS, ids=identify)
def test_norms(row) -> None:
    """LRP as for the reference; guided backprop and deconvnet, for which a norm is no activation, the gradient."""
    name, _, normalise = row
    network = NormNet(normalise).eval()
    leaf = IMAGES.clone().requires_grad_()
    gradient = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)[0]
    expected = expected_of_norm(name) | dict.fromkeys(RELU_METHODS, gradient)
    assert_same_maps(METHODS, network, IMAGES, expected)


NORMS_OF_ACTIVATIONS: dict[str, tuple[Pointwise, Pointwise]] = {
    "|v| / norm": (torch.abs, lambda a: a / a.norm(p=1, dim=1, keepdim=True)),
    "|v| / sum": (torch.abs, lambda a: a / a.sum(1, keepdim=True)),
    "|v| * 1 / norm": (torch.abs, lambda a: a * (1 / a.norm(p=1, dim=1, keepdim=True))),
    "v**2 / norm": (torch.square, lambda a: a / torch.linalg.vector_norm(a, 1, 1, True)),
    "v * v / sum": (lambda v: v * v, lambda a: a / a.sum(1, keepdim=True)),
    "v**2 / mean": (lambda v: v**2, lambda a: a / a.mean(1, keepdim=True) / 4),
}


@pytest.mark.parametrize("name", NORMS_OF_ACTIVATIONS)
def test_norms_of_activations(name) -> None:
    activation, normalise = NORMS_OF_ACTIVATIONS[name]
    network = NormNet(lambda v, s: F.normalize(activation(v), p=1.0, dim=1)).eval()
    expected = maps(METHODS, network, IMAGES)
    assert_same_maps(METHODS, NormNet(lambda v, s: normalise(activation(v))).eval(), IMAGES, expected)


def test_the_root_of_squares_that_are_all_0_passes_no_signal() -> None:
    """As in F.normalize; its own slope is infinite, and the map was NaN."""

    class Normalised(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            values = F.relu(values)
            return values / (values.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)

    values = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    for method in (Deconvolution, GuidedBackprop):
        assert method(Normalised()).attribute(values, 1).isfinite().all()


# -- attention ---------------------------------------------------------------------------------------------------------


def attend(weights: Callable[[Tensor], Tensor], product: Gated = torch.matmul) -> Callable[..., Tensor]:
    """Attention by hand, with a softmax of one's own over the last dimension."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return product(weights(query @ key.mT / query.shape[-1] ** 0.5), value)

    return attention


def divided(combine: Gated) -> Callable[..., Tensor]:
    """Attention by hand whose division comes last, of exponentials over their largest."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.mT / query.shape[-1] ** 0.5
        return combine((scores - scores.amax(-1, keepdim=True)).exp(), value)

    return attention


ATTENTIONS: list[tuple[str, Callable[..., Tensor]]] = [
    ("softmax, matmul", attend(partial(torch.softmax, dim=-1))),
    ("einsum", attend(partial(torch.softmax, dim=-1), lambda w, v: torch.einsum("nij,njd->nid", w, v))),
    ("bmm", attend(partial(torch.softmax, dim=-1), torch.bmm)),
    ("exp / sum", attend(lambda s: s.exp() / s.exp().sum(-1, keepdim=True))),
    ("exp(s - max) / sum", attend(partial(stable_softmax, dim=-1))),
    ("exp(s - max.detach()) / sum", attend(partial(detached_softmax, dim=-1))),
    ("exp(s - logsumexp)", attend(lambda s: (s - s.logsumexp(-1, keepdim=True)).exp())),
    ("exp of log_softmax", attend(lambda s: F.log_softmax(s, -1).exp())),
    ("exp of a moved log_softmax", attend(lambda s: F.log_softmax(s, -1).mT.to(s).contiguous().exp().mT)),
    ("exp(-logsumexp + s)", attend(lambda s: (-s.logsumexp(-1).unsqueeze(-1) + s).exp())),
    ("exp of log_softmax by hand", attend(lambda s: log_softmax_by_hand(s).exp())),
    ("pow(e, s) / sum", attend(lambda s: F.normalize(torch.pow(math.e, s), p=1.0, dim=-1))),
    ("(expm1(s) + 1) / sum", attend(lambda s: F.normalize(torch.expm1(s) + 1, p=1.0, dim=-1))),
    ("odds of a sigmoid / sum", attend(lambda s: share(torch.sigmoid(s) / torch.sigmoid(-s), -1))),
    ("exp / exp(logsumexp)", attend(lambda s: s.exp() / s.logsumexp(-1, keepdim=True).exp())),
    ("exp * exp(-logsumexp)", attend(lambda s: s.exp() * (-s.logsumexp(-1, keepdim=True)).exp())),
    ("exp / (exp @ ones)", attend(lambda s: s.exp() / (s.exp() @ torch.ones(5, 1, dtype=s.dtype)))),
    ("exp / its length", attend(lambda s: F.normalize(s.exp(), p=1.0, dim=-1))),
    ("exp / sum, cast to their own type", attend(lambda s: s.exp().to(s) / s.exp().sum(-1, keepdim=True).to(s))),
    ("exp of log_softmax by hand, twice", attend(lambda s: log_softmax_by_hand(log_softmax_by_hand(s)).exp())),
    ("exp of log_softmax, twice", attend(lambda s: F.log_softmax(F.log_softmax(s, -1), -1).exp())),
    ("exp @ v / sum", divided(lambda e, v: (e @ v) / e.sum(-1, keepdim=True))),
    ("exp @ v * (1 / sum)", divided(lambda e, v: (e @ v) * e.sum(-1, keepdim=True).reciprocal())),
    ("einsum of exp / sum", divided(lambda e, v: torch.einsum("nij,njd->nid", e, v) / e.sum(-1)[..., None])),
    ("v @ exp / sum, transposed", divided(lambda e, v: ((v.mT @ e.mT) / e.sum(-1)[:, None]).mT)),
    ("bmm(exp, v).div_(sum)", divided(lambda e, v: torch.bmm(e, v).div_(e.sum(-1, keepdim=True)))),
]


class AttentionNet(nn.Module):
    def __init__(self, attention: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.project, self.head, self.attention = nn.Linear(4, 12), nn.Linear(4, 3), attention
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head((self.attention(*self.project(tokens).chunk(3, -1)) + tokens).mean(1))


@cache
def expected_of_attention() -> dict[str, Tensor]:
    return maps(METHODS, AttentionNet(F.scaled_dot_product_attention).eval(), numbers(2, 5, 4))


@pytest.mark.parametrize("row", ATTENTIONS, ids=identify)
def test_attention(row) -> None:
    assert_same_maps(METHODS, AttentionNet(row[1]).eval(), numbers(2, 5, 4), expected_of_attention())


class ViewingHeads(nn.Module):
    """Joins the heads by a view, which the order in memory of PyTorch's own result allows, or by a copy."""

    def __init__(self, join: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.project, self.head, self.join = nn.Linear(4, 12), nn.Linear(4, 3), join
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.project(tokens).view(2, 5, 3, 2, 2).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*heads.unbind(0))
        return self.head(self.join(attended.transpose(1, 2)).mean(1))


def test_a_view_of_a_value_whose_order_in_memory_is_ours() -> None:
    expected = maps(METHODS, ViewingHeads(lambda heads: heads.reshape(2, 5, 4)).eval(), numbers(2, 5, 4))
    for join in (lambda heads: heads.view(2, 5, 4), lambda heads: torch.ops.aten.view.default(heads, [2, 5, 4])):
        assert_same_maps(METHODS, ViewingHeads(join).eval(), numbers(2, 5, 4), expected)


# -- computed kernels --------------------------------------------------------------------------------------------------

MIXTURES: dict[str, Gated] = {
    "a sum of experts": lambda g, k: sum(g[:, i].view(-1, *(1,) * 4) * k[i] for i in range(len(k))),
    "a sum of a stack": lambda g, k: torch.stack([g[:, i].view(-1, *(1,) * 4) * k[i] for i in range(len(k))]).sum(0),
    "matmul": lambda g, k: (g @ k.flatten(1)).view(-1, *k.shape[1:]),
    "einsum": lambda g, k: torch.einsum("nk,koihw->noihw", g, k),
    "tensordot": lambda g, k: torch.tensordot(g, k, 1),
    "F.linear": lambda g, k: F.linear(g, k.flatten(1).T).view(-1, *k.shape[1:]),
    "(g * k).sum": lambda g, k: (g.view(*g.shape, *(1,) * 4) * k).sum(1),
}


class MixedKernels(nn.Module):
    """Kernels that gates mix from several, for each example its own (Yang et al. 2019, CondConv)."""

    def __init__(self, mix: Gated, gate: Pointwise) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.route, self.head, self.mix, self.gate = nn.Linear(2, 3), nn.Linear(16, 3), mix, gate
        self.kernels = nn.Parameter(torch.randn(3, 4, 2, 2, 2))
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        kernels = self.mix(self.gate(self.route(images.mean((2, 3)))), self.kernels).flatten(0, 1)
        maps = F.conv2d(images.reshape(1, -1, *images.shape[2:]), kernels, groups=len(images))
        return self.head(maps.view(len(images), -1)[:, :16])


@pytest.mark.parametrize("gate", [torch.sigmoid, partial(torch.softmax, dim=1)])
@pytest.mark.parametrize("mix", MIXTURES)
def test_kernels_that_gates_mix_are_weights(mix, gate) -> None:
    expected = maps(METHODS, MixedKernels(MIXTURES["a sum of experts"], gate).eval(), IMAGES)
    assert_same_maps(METHODS, MixedKernels(MIXTURES[mix], gate).eval(), IMAGES, expected)


# -- exported programs -------------------------------------------------------------------------------------------------


class ModernNet(nn.Module):
    """One of each: norms, activations, attention and a perceptron, as in networks of today."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.patches, self.batch, self.slope = nn.Conv2d(2, 8, 2, 2), nn.BatchNorm2d(8), nn.PReLU(8)
        self.group, self.layer = nn.GroupNorm(2, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.group(F.hardswish(self.slope(self.batch(self.patches(images)))))
        tokens = maps.flatten(2).transpose(1, 2)
        normal = self.layer(tokens)
        tokens = tokens + self.attention(normal, normal, normal, need_weights=False)[0]
        logits: Tensor = self.head((tokens + self.perceptron(self.layer(tokens))).mean(1))
        return logits


class MovingNet(nn.Module):
    """Slices, indices, paddings, resizing, an instance norm and distances."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        options: dict[str, Any] = {"padding": 1, "dtype": torch.float64}
        self.first = nn.Conv2d(2, 4, 3, padding_mode="reflect", **options)
        self.second = nn.Conv2d(4, 4, 3, padding_mode="circular", **options)
        self.third = nn.Conv2d(8, 4, 3, padding_mode="replicate", **options)
        self.norm, self.head = nn.InstanceNorm2d(4, affine=True), nn.Linear(5, 3)
        self.prototypes = nn.Parameter(torch.randn(5, 4))
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.norm(self.first(images)))
        maps = torch.cat([self.second(maps)[:, 1:], maps[:, [0, 2, 1, 3]], maps[:, -1:]], 1)
        maps = F.interpolate(F.adaptive_avg_pool2d(F.relu(self.third(maps)), (2, 1)), size=(3, 3))
        logits: Tensor = self.head(torch.cdist(maps[..., ::2, :].mean((2, 3)), self.prototypes))
        return logits


@pytest.mark.parametrize("decomposed", [False, True], ids=["as exported", "in core operators"])
@pytest.mark.parametrize("build", [ModernNet, MovingNet])
def test_exported_programs(build, decomposed) -> None:
    network = build().eval()
    program = torch.export.export(network, (IMAGES,))
    exported = (program.run_decompositions() if decomposed else program).module()
    assert_same_maps(METHODS, exported, IMAGES, maps(METHODS, network, IMAGES))
