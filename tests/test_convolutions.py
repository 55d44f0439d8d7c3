"""Convolutions and their transposes, in whatever way they are computed, against PyTorch's in float64."""

from itertools import product

import pytest
import torch
from torch import Tensor

from plugin.rules.linear import Convolution

aten = torch.ops.aten


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 6])
def test_both_directions_equal_the_plain_operators(dimensions: int, channels: int) -> None:
    torch.manual_seed(0)
    seen = set()
    for kernel, stride, padding, dilation, groups, examples, size in product(
        (1, 2, 3), (1, 2, 3), (0, 1), (1, 2), (1, 2), (1, 3), (5, 9 if dimensions == 3 else 25)
    ):
        linear = Convolution(*((given,) * dimensions for given in (stride, padding, dilation)), groups)
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
