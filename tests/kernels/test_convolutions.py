"""Convolutions and their transposes, in whatever way they are computed, against PyTorch's in float64."""

from itertools import product

import captum.attr
import pytest
import torch
from support.helpers import assert_close
from torch import nn

from plugin.attr import GuidedBackprop
from plugin.kernels.linear import Convolution

aten = torch.ops.aten


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 6])
def test_both_directions_equal_the_plain_operators(dimensions: int, channels: int) -> None:
    torch.manual_seed(0)
    seen = set()
    for kernel, stride, padding, dilation, groups, examples, size in product(
        (1, 2, 3), (1, 2, 3), (0, 1), (1, 2), (1, 2), (1, 3), (5, 9 if dimensions == 3 else 25)
    ):
        linear = Convolution(*((given,) * dimensions for given in (stride, padding, dilation)), groups)  # type: ignore[call-arg]
        rest = [[stride] * dimensions, [padding] * dimensions, [dilation] * dimensions, False, [0] * dimensions, groups]
        value = torch.randn(examples, channels, *(size,) * dimensions)
        weight = torch.randn(4, channels // groups, *(kernel,) * dimensions)
        bias = torch.randn(4)
        expected = torch.convolution(value.double(), weight.double(), bias.double(), *rest)
        assert_close(linear(value, weight, bias), expected)
        signal = torch.randn(expected.shape)
        gradient = aten.convolution_backward(
            signal.double(), value.double(), weight.double(), None, *rest, [True, False, False]
        )[0]
        assert_close(linear.transpose(signal, weight, value), gradient)
        seen.add(linear.is_product(signal, weight))
    assert seen == {True, False}


@pytest.mark.parametrize(
    "turn",
    [
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t[:1].expand_as(t),
        lambda t: t.flip(3).transpose(2, 3).contiguous().transpose(2, 3),
    ],
)
def test_the_order_in_memory_does_not_matter(turn) -> None:
    torch.manual_seed(0)
    linear, weight = Convolution((2, 2), (0, 0), (1, 1)), torch.randn(8, 6, 1, 1)
    value, signal = turn(torch.randn(2, 6, 25, 25)), turn(torch.randn(2, 8, 13, 13))
    assert_close(linear(value, weight), linear(value.contiguous(), weight))
    assert_close(linear.transpose(signal, weight, value), linear.transpose(signal.contiguous(), weight, value))


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # Captum announces its hooks
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False])
def test_guided_backprop_in_half_precision_equals_captum(dtype: torch.dtype, autocast: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 14 * 14, 3)
    network, images = nn.Sequential(*layers).to(dtype), torch.randn(2, 3, 16, 16, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = GuidedBackprop(network).attribute(images, 1)
        expected = captum.attr.GuidedBackprop(network).attribute(images, 1)
    assert found.dtype is dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
