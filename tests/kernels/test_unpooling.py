"""Max-pooling without switches, and the table of rules, against transposed convolutions, autograd and Captum."""

from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, ModifiedBackprop, NeuronDeconvolution, NeuronGuidedBackprop
from plugin.rules import SIGNAL_RULES, SWITCH_FREE

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLING = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
ADAPTIVE = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

GEOMETRIES = {
    "disjoint": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": 2},
    "gaps": {"kernel_size": 2, "stride": 3},
    "padded": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2},
    "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "ceil, padded": {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True},
}


class Sum(nn.Module):
    """`(weights * function(x)).sum()` per example: its signal at x is the adjoint of `function` at `weights`."""

    def __init__(self, function: Callable[[Tensor], Tensor], weights: Tensor) -> None:
        super().__init__()
        self.function, self.weights = function, weights

    def forward(self, value: Tensor) -> Tensor:
        return (self.function(value) * self.weights).flatten(1).sum(1)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def signal_through(pooling: Callable[[Tensor], Tensor], mode: str, value: Tensor, signal: Tensor) -> Tensor:
    """The values of `signal` that `pooling` hands down, by the public API (the linear adjoint: no ReLU is involved)."""
    rule = SIGNAL_RULES["linear adjoint"].with_unpooling(mode)
    return ModifiedBackprop(Sum(pooling, signal), rule).attribute(value)


def kernel_of(mode: str, size: int, dimensions: int) -> Tensor:
    """One channel's transposed convolution kernel, equal to the mode of interpolation."""
    line = torch.zeros(size, dtype=torch.float64)
    if mode in ("center", "corner"):
        line[{"center": -(-size // 2) - 1, "corner": 0}[mode]] = 1
    else:
        line += 1 / size if mode == "uniform" else 1
    kernel = line
    for _ in range(dimensions - 1):
        kernel = kernel.unsqueeze(-1) * line
    return kernel[None, None]


def by_transposed_convolution(
    mode: str,
    signal: Tensor,
    size: torch.Size,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The same on an input with room on all sides, of which the unpadded positions are cut out."""
    dimensions = len(size) - 2
    kernel = kernel_of(mode, kernel_size, dimensions)
    one_channel = signal.reshape(-1, 1, *signal.shape[2:])
    full = TRANSPOSED[dimensions](one_channel, kernel, stride=stride or kernel_size, dilation=dilation)
    for dimension, length in enumerate(size[2:], start=2):
        room = full.new_zeros(*full.shape[:dimension], padding + length, *full.shape[dimension + 1 :])
        full = torch.cat([full, room], dimension).narrow(dimension, padding, length)
    return full.reshape(size)


@pytest.mark.parametrize("mode", SWITCH_FREE)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_regular_windows_equal_a_transposed_convolution(dimensions: int, geometry: str, mode: str) -> None:
    pool = POOLING[dimensions](**GEOMETRIES[geometry])
    value = random(2, 3, *(11, 8, 9)[:dimensions])
    signal = random(*pool(value).shape, seed=1)
    expected = by_transposed_convolution(mode, signal, value.shape, **GEOMETRIES[geometry])
    torch.testing.assert_close(signal_through(pool, mode, value, signal), expected)


@pytest.mark.parametrize(
    ("pool", "average"),
    [
        (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)),
        (nn.MaxPool3d((1, 2, 3), (1, 2, 1)), nn.AvgPool3d((1, 2, 3), (1, 2, 1))),
        (nn.AdaptiveMaxPool1d(4), nn.AdaptiveAvgPool1d(4)),
        (nn.AdaptiveMaxPool2d((5, 3)), nn.AdaptiveAvgPool2d((5, 3))),
        (nn.AdaptiveMaxPool2d((None, 2)), nn.AdaptiveAvgPool2d((None, 2))),
        (nn.AdaptiveMaxPool3d(2), nn.AdaptiveAvgPool3d(2)),
    ],
    ids=repr,
)
def test_uniform_is_the_transpose_of_average_pooling(pool: nn.Module, average: nn.Module) -> None:
    dimensions = int(type(pool).__name__[-2])
    value = random(2, 3, *(7, 8, 6)[:dimensions])
    signal = random(*average(value).shape, seed=1)
    leaf = value.clone().requires_grad_()
    (expected,) = torch.autograd.grad(average(leaf), leaf, signal)
    torch.testing.assert_close(signal_through(pool, "uniform", value, signal), expected)


@pytest.mark.parametrize("mode", SWITCH_FREE)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_adaptive_windows_are_those_that_the_maximum_is_taken_of(dimensions: int, mode: str) -> None:
    """Window i of `count` over `size`, found by where a single peak is seen, then filled in by definition."""
    pool, value = ADAPTIVE[dimensions](3), random(1, 2, *(7, 5, 4)[:dimensions])
    signal = random(*pool(value).shape, seed=1)
    expected = signal
    for dimension, size in enumerate(value.shape[2:], start=2):
        peaks = torch.eye(size, dtype=torch.float64).unsqueeze(1)
        seen = F.adaptive_max_pool1d(peaks, 3).squeeze(1).T  # (windows, positions)
        matrix = torch.zeros_like(seen)
        for window, positions in enumerate(row.nonzero().flatten() for row in seen):
            k = len(positions)
            chosen = {"center": positions[(k + 1) // 2 - 1], "corner": positions[0]}.get(mode, positions)
            matrix[window, chosen] = 1 / k if mode == "uniform" else 1
        expected = torch.tensordot(expected, matrix, dims=([dimension], [0])).movedim(-1, dimension)
    torch.testing.assert_close(signal_through(pool, mode, value, signal), expected)


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "F.max_pool2d, all by keyword": lambda x: F.max_pool2d(input=x, kernel_size=(3, 3), stride=(2, 2), padding=1),
    "F.max_pool2d, empty stride": lambda x: F.max_pool2d(F.max_pool2d(x, 3, 2, 1), 1, []),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, [3], [2], [1]),
    "F.max_pool2d(return_indices)": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[0],
    "F.max_pool2d_with_indices": lambda x: F.max_pool2d_with_indices(x, 3, 2, 1)[0],
    "torch._C._nn.max_pool2d_with_indices": lambda x: torch._C._nn.max_pool2d_with_indices(x, 3, 2, 1)[0],
    "aten": lambda x: torch.ops.aten.max_pool2d(x, [3, 3], [2, 2], [1, 1]),
    "aten overload": lambda x: torch.ops.aten.max_pool2d_with_indices.default(x, [3, 3], [2, 2], [1, 1])[0],
    "nn.MaxPool2d(return_indices)": lambda x: nn.MaxPool2d(3, 2, 1, return_indices=True)(x)[0],
    "without a batch": lambda x: torch.stack([F.max_pool2d(image, 3, 2, 1) for image in x]),
    "1d twice": lambda x: by_rows_and_columns(x, lambda rows: F.max_pool1d(rows, 3, 2, 1)),
    "torch 1d twice": lambda x: by_rows_and_columns(x, lambda rows: torch.max_pool1d_with_indices(rows, 3, 2, 1)[0]),
    "3d": lambda x: F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
}


def by_rows_and_columns(images: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """Max-pooling of two dimensions is one of each in turn."""
    along_rows = pool(images.flatten(1, 2)).unflatten(1, images.shape[1:3])
    columns = along_rows.mT
    return pool(columns.flatten(1, 2)).unflatten(1, columns.shape[1:3]).mT


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_max_pooling_are_one_operation(spelling: str) -> None:
    value, module = random(2, 3, 7, 9), nn.MaxPool2d(3, 2, 1)
    signal = random(*module(value).shape, seed=1)
    for mode in SWITCH_FREE:
        expected = signal_through(module, mode, value, signal)
        torch.testing.assert_close(signal_through(SPELLINGS[spelling], mode, value, signal), expected)
    switches = signal_through(SPELLINGS[spelling], "switches", value, signal)
    torch.testing.assert_close(switches, signal_through(module, "switches", value, signal))


def test_indices_are_handed_to_a_model_that_asks_for_them() -> None:
    """The output of a network that unpools by its own indices stays the same under our methods."""
    value, seen = random(1, 2, 6, 6), []

    def encode_and_decode(images: Tensor) -> Tensor:
        pooled, winners = F.max_pool2d(images, 2, return_indices=True)
        restored = F.max_unpool2d(pooled, winners, 2)
        seen.append((winners, restored))
        return restored

    encode_and_decode(value)
    signal_through(encode_and_decode, "center", value, torch.ones_like(value))
    (winners, restored), (our_winners, our_restored) = seen
    assert torch.equal(winners, our_winners)
    assert torch.equal(restored, our_restored)


class PooledNet(nn.Module):
    """Convolution, ReLU, overlapping max-pooling, convolution, ReLU, linear; optionally the pools are left out."""

    def __init__(self, pooled: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.relu1 = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1) if pooled else nn.Identity()
        self.conv2, self.relu2 = nn.Conv2d(6, 8, 3, stride=2), nn.ReLU()
        self.head = nn.Linear(8, 5)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool(self.relu1(self.conv1(images)))
        return self.head(self.relu2(self.conv2(hidden)).mean(dim=(2, 3)))


def test_with_switches_it_equals_captum() -> None:
    net, images = PooledNet(), random(2, 3, 13, 15)
    expected = captum.attr.Deconvolution(net).attribute(images, target=3)
    torch.testing.assert_close(Deconvolution(net, unpooling="switches").attribute(images, target=3), expected)
    neuron = (2, 1, 1)
    expected = captum.attr.NeuronDeconvolution(net, net.conv2).attribute(images, neuron)
    torch.testing.assert_close(NeuronDeconvolution(net, net.conv2).attribute(images, neuron), expected)


@pytest.mark.parametrize("mode", SWITCH_FREE)
def test_without_switches_it_differs_only_in_the_pool_and_ignores_the_image(mode: str) -> None:
    net, images = PooledNet(), random(2, 3, 13, 15)
    result = Deconvolution(net, unpooling=mode).attribute(images, target=3)
    torch.testing.assert_close(result[0], result[1], rtol=0, atol=0)

    top = (net.head.weight[3].view(1, 8, 1, 1) / 9).expand(1, 8, 3, 3)  # the mean over 3 x 3 positions
    above_pool = F.conv_transpose2d(top.clamp(min=0), net.conv2.weight, stride=2, output_padding=(0, 1))
    below_pool = by_transposed_convolution(mode, above_pool, torch.Size([1, 6, 13, 15]), 3, 2, 1)
    expected = F.conv_transpose2d(below_pool.clamp(min=0), net.conv1.weight, padding=1)
    torch.testing.assert_close(result[:1], expected)
    switches = Deconvolution(net).attribute(images, target=3)
    assert not torch.allclose(result, switches)
    assert not torch.allclose(switches[0], switches[1])


@pytest.mark.parametrize("mode", SWITCH_FREE)
def test_without_pooling_the_mode_changes_nothing(mode: str) -> None:
    net, images = PooledNet(pooled=False), random(2, 3, 9, 9)
    expected = Deconvolution(net).attribute(images, target=1)
    torch.testing.assert_close(Deconvolution(net, unpooling=mode).attribute(images, target=1), expected, rtol=0, atol=0)


def test_neurons_take_the_mode_after_captums_arguments() -> None:
    net, images = PooledNet(), random(2, 3, 13, 15)
    result = NeuronDeconvolution(net, "conv2", None, "replicate").attribute(images, (2, 1, 1))
    torch.testing.assert_close(result[0], result[1], rtol=0, atol=0)
    assert not torch.allclose(result, NeuronDeconvolution(net, "conv2").attribute(images, (2, 1, 1)))


class Reusing(nn.Module):
    """A convolution and a ReLU that are used again, and a layer that returns a tuple; ends after some of the steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.again, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.pool, self.head, self.steps = nn.MaxPool2d(2, return_indices=True), nn.Conv2d(4, 2, 3), 3
        nn.init.constant_(self.again.bias, 1.0)  # so that the neurons fire
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.again(self.relu(self.first(images))))
        hidden = self.again(hidden)
        hidden = self.relu(hidden) if self.steps > 0 else hidden
        pooled = self.pool(hidden)[0] if self.steps > 1 else hidden
        return (self.head(pooled) if self.steps > 2 else pooled).flatten(1)


@pytest.mark.parametrize(
    ("neurons", "whole"), [(NeuronDeconvolution, Deconvolution), (NeuronGuidedBackprop, GuidedBackprop)]
)
@pytest.mark.parametrize(
    ("layer", "neuron", "steps"),
    [("again", (2, 3, 1), 0), ("relu", (2, 3, 1), 1), ("pool", lambda pair: pair[0][:, 2, 1, 0], 2)],
)
def test_neurons_of_layers_used_again_without_parameters_and_with_tuples(
    layer: str, neuron: Any, steps: int, neurons: Any, whole: Any
) -> None:
    """The last use counts; the same as a class of the network that ends there."""
    net, images = Reusing(), random(2, 3, 10, 9)
    result = neurons(net, layer).attribute(images, neuron)
    net.steps = steps
    height, width = (8, 7) if steps < 2 else (4, 3)
    row, column = (3, 1) if steps < 2 else (1, 0)
    expected = whole(net).attribute(images, target=(2 * height + row) * width + column)
    torch.testing.assert_close(result, expected)
    assert result.flatten(1).any(1).all()


def test_the_table_has_every_combination_once() -> None:
    rows = {(rule.forward_mask, rule.unpooling == "switches", rule.backward_relu) for rule in SIGNAL_RULES.values()}
    assert len(rows) == len(SIGNAL_RULES) == 8


@pytest.mark.parametrize("name", SIGNAL_RULES)
def test_each_row_of_the_table_equals_the_chain_by_hand(name: str) -> None:
    net, images, rule = PooledNet(), random(2, 3, 13, 15), SIGNAL_RULES[name]

    def through_relu(signal: Tensor, value: Tensor) -> Tensor:
        signal = signal.clamp(min=0) if rule.backward_relu else signal
        return signal * (value > 0) if rule.forward_mask else signal

    first = net.conv1(images)
    pooled, winners = F.max_pool2d(first.relu(), 3, 2, 1, return_indices=True)
    second = net.conv2(pooled)
    signal = through_relu((net.head.weight[3].view(1, 8, 1, 1) / 9).expand_as(second), second)
    signal = F.conv_transpose2d(signal, net.conv2.weight, stride=2, output_padding=(0, 1))
    if rule.unpooling == "switches":
        flat = torch.zeros_like(first).flatten(2).scatter_add(2, winners.flatten(2), signal.flatten(2))
        signal = flat.view_as(first)
    else:
        signal = by_transposed_convolution("center", signal, first.shape, 3, 2, 1)
    expected = F.conv_transpose2d(through_relu(signal, first), net.conv1.weight, padding=1)
    torch.testing.assert_close(ModifiedBackprop(net, name).attribute(images, target=3), expected)


def test_rows_with_a_class_of_their_own_equal_it() -> None:
    net, images = PooledNet(), random(2, 3, 13, 15)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[:, 2].sum(), leaf)
    for name, expected in {
        "gradient": gradient,
        "guided": GuidedBackprop(net).attribute(images, target=2),
        "deconvnet": Deconvolution(net).attribute(images, target=2),
        "deconvnet without switches": Deconvolution(net, unpooling="center").attribute(images, target=2),
    }.items():
        torch.testing.assert_close(ModifiedBackprop(net, name).attribute(images, target=2), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("mode", "step"), [("corner", 0), ("center", 1)])
def test_linear_adjoint_is_the_transpose_of_the_network_without_biases(dimensions: int, mode: str, step: int) -> None:
    """<Ax, y> = <x, A^T y>, with A the convolutions alone and every window replaced by one of its positions."""
    torch.manual_seed(0)
    convolution = CONVOLUTION[dimensions]
    first, second = convolution(4, 6, 3, padding=1, groups=2), convolution(6, 5, 3, stride=2, dilation=2, padding=2)
    pool, norm = POOLING[dimensions](3, 2), (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1](6)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(0.5, 2)
    net = nn.Sequential(first, norm, nn.ReLU(), pool, second, nn.ELU()).double().eval()

    x = random(1, 4, *(9, 11, 7)[:dimensions])
    hidden = first(x) - first(torch.zeros_like(x))
    hidden = hidden * (norm.weight / (norm.running_var + norm.eps).sqrt()).view(1, -1, *(1,) * dimensions)
    every = tuple(slice(step, step + size - 2, 2) for size in hidden.shape[2:])
    hidden = hidden[(slice(None), slice(None), *every)]
    forwards = second(hidden) - second(torch.zeros_like(hidden))
    y = random(*forwards.shape, seed=1)
    rule = SIGNAL_RULES["linear adjoint"].with_unpooling(mode)
    backwards = ModifiedBackprop(Sum(net, y).eval(), rule).attribute(random(*x.shape, seed=2))
    torch.testing.assert_close((forwards * y).sum(), (x * backwards).sum())


def test_unknown_names_are_refused_with_the_choices() -> None:
    net = PooledNet()
    with pytest.raises(ValueError, match="unknown unpooling 'centre': choose one of switches, center, corner, uniform"):
        Deconvolution(net, unpooling="centre")
    with pytest.raises(ValueError, match="unknown unpooling 'max'"):
        NeuronDeconvolution(net, net.conv2, unpooling="max")
    with pytest.raises(ValueError, match="unknown rule 'salinet': choose one of gradient, "):
        ModifiedBackprop(net, "salinet")
