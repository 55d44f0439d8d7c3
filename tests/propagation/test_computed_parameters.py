"""Layers whose weight and bias are computed from the input: the product and the sum, written in one call."""

from collections.abc import Callable

import pytest
import torch
from support.helpers import assert_close
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose

# Of values (N, 4), weights (N, 4, 4), biases (N, 4) and a constant (4,).
Computed = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def each(function: Callable[..., Tensor]) -> Computed:
    """Example by example."""
    return lambda v, w, b, c: torch.stack([function(*parts, c) for parts in zip(v, w, b, strict=True)])


def in_groups(convolve: Callable[..., Tensor]) -> Computed:
    def compute(v: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return convolve(v.reshape(1, -1, 1), w.reshape(-1, 4, 1), b.reshape(-1), groups=len(v)).view(len(v), 4)

    return compute


def of_constant(compute: Computed) -> Computed:
    return lambda v, w, b, c: compute(v, w, c.expand(len(v), 4), c)


def multiplied(v: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.einsum("noi,ni->no", w, v) + b


def normalised(tokens: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Instance norm as a batch norm of one example with the channels of all."""
    mean, variance = torch.zeros_like(tokens[0, :, 0]), torch.ones_like(tokens[0, :, 0])
    return F.batch_norm(tokens, mean, variance, weight, bias, training=True)


def adapted(v: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return normalised(w.reshape(1, -1, 4), v.reshape(-1), b.reshape(-1)).view(-1, 4, 4).mean(2)


def adapted_by_hand(v: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    scaled = normalised(w.reshape(1, -1, 4)) * v.reshape(-1, 1) + b.reshape(-1, 1)
    return scaled.view(-1, 4, 4).mean(2)


# Each with the same in two steps.
COMPUTED: dict[str, tuple[Computed, Computed]] = {
    "linear": (each(lambda v, w, b, c: F.linear(v, w, b)), multiplied),
    "linear, constant bias": (each(lambda v, w, b, c: F.linear(v, w, c)), of_constant(multiplied)),
    "convolution": (in_groups(F.conv1d), multiplied),
    "convolution, constant bias": (of_constant(in_groups(F.conv1d)), of_constant(multiplied)),
    "transposed convolution": (
        in_groups(F.conv_transpose1d),
        lambda v, w, b, c: multiplied(v, w.transpose(1, 2), b, c),
    ),
    "bilinear": (
        lambda v, w, b, c: F.bilinear(v, b, c.repeat(4, 4, 1), c),
        lambda v, w, b, c: F.bilinear(v, b, c.repeat(4, 4, 1)) + c,
    ),
    "layer norm": (
        each(lambda v, w, b, c: F.layer_norm(v, (4,), w[0], b)),
        lambda v, w, b, c: F.layer_norm(v, (4,)) * w[:, 0] + b,
    ),
    "layer norm scaled by a gate": (
        each(lambda v, w, b, c: F.layer_norm(v, (4,), w[0].sigmoid(), c)),
        lambda v, w, b, c: F.layer_norm(v, (4,)) * w[:, 0].sigmoid() + c,
    ),
    "group norm": (
        each(lambda v, w, b, c: F.group_norm(v[None], 2, w[0], b)[0]),
        lambda v, w, b, c: F.group_norm(v, 2) * w[:, 0] + b,
    ),
    "group norm scaled by a gate": (
        each(lambda v, w, b, c: F.group_norm(v[None], 2, w[0].sigmoid())[0]),
        lambda v, w, b, c: F.group_norm(v, 2) * w[:, 0].sigmoid(),
    ),
    "adaptive instance norm": (adapted, adapted_by_hand),
}


def numbers() -> Tensor:
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Computing(nn.Module):
    def __init__(self, compute: Computed) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.value, self.weight, self.bias, self.head = (nn.Linear(i, o) for i, o in ((5, 4), (5, 16), (5, 4), (4, 3)))
        self.constant, self.compute = nn.Parameter(torch.randn(4)), compute
        self.double().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.weight(inputs).view(-1, 4, 4)
        return self.head(self.compute(self.value(inputs), weight, self.bias(inputs), self.constant))


@pytest.mark.parametrize("rules", ["lrp_0", "epsilon_plus_flat", "excitation_backprop", "cp_lrp"])
@pytest.mark.parametrize("name", COMPUTED)
def test_a_computed_weight_and_bias_are_a_product_and_a_sum(name, rules) -> None:
    found, expected = (Computing(compute) for compute in COMPUTED[name])
    inputs = numbers()
    torch.testing.assert_close(found(inputs), expected(inputs))
    attribution = LRPTranspose(found, rules)
    assert_close(attribution.attribute(inputs, 1), LRPTranspose(expected, rules).attribute(inputs, 1), 1e-9)
    ledger = attribution.ledger(inputs, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
@pytest.mark.parametrize("name", COMPUTED)
def test_a_computed_weight_and_bias_keep_their_gradient(name, method) -> None:
    found, expected = (Computing(compute) for compute in COMPUTED[name])
    inputs = numbers()
    assert_close(method(found).attribute(inputs, 1), method(expected).attribute(inputs, 1), 1e-9)
