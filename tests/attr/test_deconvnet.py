"""Deconvnet without an image: against transposed convolutions by hand, against images, and its refusals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from support.helpers import assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from plugin.attr import DeconvNet, Deconvolution, NeuronDeconvolution
from plugin.models import AllCNNC, ModelC
from plugin.rules import SWITCH_FREE


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(network: nn.Module) -> nn.Module:
    """The network in float64 and eval mode, with batch norm statistics as if it had been trained."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low in ((module.running_mean, -1), (module.running_var, 0.5), (module.weight, 0.5)):
                tensor.data.uniform_(low, 2, generator=generator)
    return network.double().eval()


class ConvolutionNet(nn.Module):
    """Two convolutions of any geometry, each followed by ReLU, and class maps."""

    def __init__(self, **geometry: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(4, 6, **geometry)
        self.second = nn.Conv2d(6, 8, **geometry)
        self.classes = nn.Linear(8, 5)
        seeded(self)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.second(F.relu(self.first(images))))
        return self.classes(hidden.mean(dim=(2, 3)))


GEOMETRIES: dict[str, dict[str, int]] = {
    "plain": {"kernel_size": 3},
    "stride": {"kernel_size": 3, "stride": 2},
    "stride 3, padding": {"kernel_size": 4, "stride": 3, "padding": 2},
    "dilation": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "all": {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "groups": 2},
}
SIZE = (23, 18)


def transposed(signal: Tensor, convolution: nn.Conv2d, size: torch.Size) -> Tensor:
    """W^T s, with the size that the stride made ambiguous."""
    options = {name: getattr(convolution, name) for name in ("stride", "padding", "dilation", "groups")}
    smallest = F.conv_transpose2d(signal, convolution.weight, **options)
    missing = tuple(wanted - got for wanted, got in zip(size[2:], smallest.shape[2:], strict=True))
    return F.conv_transpose2d(signal, convolution.weight, output_padding=missing, **options)


def by_hand(net: ConvolutionNet, signal: Tensor) -> Tensor:
    """Down from the output of the second convolution."""
    between = net.first(torch.zeros(1, 4, *SIZE, dtype=torch.float64)).shape
    below = transposed(signal, net.second, between)
    return transposed(below.clamp(min=0), net.first, torch.Size([1, 4, *SIZE]))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_equals_the_chain_by_hand_and_the_deconvnet_of_any_image(geometry: str) -> None:
    net, images = ConvolutionNet(**GEOMETRIES[geometry]), random(2, 4, *SIZE)
    deconvnet = DeconvNet(net, "second", (4, *SIZE))
    signal = torch.zeros_like(net.second(net.first(images)))[:1]
    signal[:, 5] = 1
    expected = by_hand(net, signal)
    torch.testing.assert_close(deconvnet.reconstruct(5), expected)

    row, column = (size // 2 for size in signal.shape[2:])
    one = torch.zeros_like(signal)
    one[0, 5, row, column] = 1
    torch.testing.assert_close(deconvnet.reconstruct((5, row, column)), by_hand(net, one))
    conditioned = NeuronDeconvolution(net, net.second).attribute(images, (5, row, column))
    torch.testing.assert_close(conditioned[:1], by_hand(net, one))
    torch.testing.assert_close(conditioned[0], conditioned[1], rtol=0, atol=0)


def test_a_class_needs_no_image_either() -> None:
    net, images = ConvolutionNet(kernel_size=3, stride=2), random(2, 4, *SIZE)
    conditioned = Deconvolution(net).attribute(images, target=3)
    positions = net.second(net.first(images))[0, 0].numel()
    weights = (net.classes.weight[3] / positions).view(1, 8, 1, 1).clamp(min=0)
    expected = by_hand(net, weights.expand(1, 8, *net.second(net.first(images)).shape[2:]))
    torch.testing.assert_close(conditioned[0], conditioned[1], rtol=0, atol=0)
    torch.testing.assert_close(conditioned[:1], expected)
    torch.testing.assert_close(DeconvNet(net, net.classes, (4, *SIZE)).reconstruct(3), expected)


class EverythingLinear(nn.Module):
    """Batch norm, an addition, a concatenation, all kinds of average pooling, views and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.average = nn.AvgPool2d(3, 2, 1)
        self.merge = nn.Conv2d(12, 4, 3)
        self.pyramid = nn.AdaptiveAvgPool2d((2, 3))
        self.head = nn.Linear(24, 5)
        seeded(self)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.stem(images)).relu()
        hidden = hidden + self.again(self.again(hidden).relu())
        hidden = self.average(torch.cat([hidden, hidden.flip(-1)], dim=1).relu_())
        hidden = F.interpolate(F.pad(self.merge(hidden), (1, 0, 0, 2)), scale_factor=2)
        return self.head(self.pyramid(hidden).flatten(1))


def test_additions_copy_concatenations_split_and_averages_spread() -> None:
    """Written out downwards; the pools are transposed by autograd on them alone."""
    net, image = EverythingLinear(), random(1, 3, 9, 9)

    def adjoint(function: Callable[[Tensor], Tensor], like: Tensor, signal: Tensor) -> Tensor:
        leaf = torch.zeros_like(like, requires_grad=True)
        return torch.autograd.grad(function(leaf), leaf, signal)[0]

    merged = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    enlarged = torch.zeros(1, 4, 10, 8, dtype=torch.float64)
    signal = net.head.weight[2].view(1, 4, 2, 3)
    signal = adjoint(net.pyramid, enlarged, signal)
    signal = F.avg_pool2d(signal, 2) * 4
    signal = signal[:, :, :3, 1:]
    assert signal.shape == merged.shape
    signal = F.conv_transpose2d(signal, net.merge.weight)
    signal = adjoint(net.average, torch.zeros(1, 12, 9, 9, dtype=torch.float64), signal).clamp(min=0)
    signal = signal[:, :6] + signal[:, 6:].flip(-1)
    branch = F.conv_transpose2d(signal, net.again.weight, padding=1).clamp(min=0)
    signal = signal + F.conv_transpose2d(branch, net.again.weight, padding=1)
    scale = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    expected = F.conv_transpose2d(signal.clamp(min=0) * scale.view(1, -1, 1, 1), net.stem.weight, padding=1)

    result = DeconvNet(net, "head", (3, 9, 9)).reconstruct(2)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(Deconvolution(net).attribute(image, target=2), expected)


def test_of_a_layer_that_is_used_twice_the_last_use_counts() -> None:
    net = EverythingLinear()
    result = DeconvNet(net, net.again, (3, 9, 9)).reconstruct((1, 4, 4))
    conditioned = NeuronDeconvolution(net, net.again).attribute(random(1, 3, 9, 9), (1, 4, 4))
    torch.testing.assert_close(result, conditioned)
    assert int((result != 0).any(1).sum()) == 7 * 7  # three convolutions of 3 x 3; the first use alone would see 5 x 5


def test_moving_the_unit_moves_the_picture() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 5, padding=2)).double()
    deconvnet = DeconvNet(net, "2", (3, 20, 21))
    here, there = deconvnet.reconstruct([(1, 8, 9), (1, 11, 7)])
    torch.testing.assert_close(here.roll((3, -2), (1, 2)), there)
    assert here.any()


def test_it_is_positively_homogeneous_in_the_seed() -> None:
    deconvnet = DeconvNet(ConvolutionNet(kernel_size=3), "second", (4, *SIZE))
    torch.testing.assert_close(deconvnet.reconstruct(2, seed_value=3.5), 3.5 * deconvnet.reconstruct(2))
    assert not torch.allclose(deconvnet.reconstruct(2, seed_value=-1.0), -deconvnet.reconstruct(2))  # but not linear


def test_ways_to_name_units() -> None:
    deconvnet = DeconvNet(ConvolutionNet(kernel_size=3), "second", (4, *SIZE))
    every = torch.cat([deconvnet.reconstruct(channel) for channel in range(8)])
    assert every.shape == (8, 4, *SIZE)
    assert not every.requires_grad
    close = torch.testing.assert_close
    for several, expected in [
        (slice(None), every),
        (slice(1, 8, 3), every[1::3]),
        (range(2, 5), every[2:5]),
        ([3, 3, -1], every[[3, 3, 7]]),
        (torch.tensor([4, 0]), every[[4, 0]]),
        ((slice(6, 7),), every[6:7]),
    ]:
        close(deconvnet.reconstruct(several), expected)
    at = deconvnet.reconstruct([1, 6], position=(2, 5))
    close(at, deconvnet.reconstruct([(1, 2, 5), (6, 2, 5)]))
    row = deconvnet.reconstruct((1, 2))
    close(row, deconvnet.reconstruct((1, 2, slice(None))))
    assert not torch.allclose(row, every[1:2])


def test_many_units_are_what_each_is_by_itself() -> None:
    net = AllCNNC().eval()
    deconvnet = DeconvNet(net, "features.conv3", (3, 12, 12))
    for position in (None, (3, 4)):
        together = deconvnet.reconstruct(range(18), position=position)
        alone = torch.cat([deconvnet.reconstruct(channel, position=position) for channel in range(18)])
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(("layer", "position"), [("conv1", None), ("conv3", None), ("conv4", None), ("conv6", (4, 4))])
def test_many_units_are_far_less_arithmetic_than_many_calls(layer: str, position: tuple[int, int] | None) -> None:
    """Counted, as times on a busy machine say little: one forward pass for all, no zeros, nothing computed twice."""
    deconvnet = DeconvNet(AllCNNC().eval(), f"features.{layer}", (3, 32, 32))

    def operations(neurons: int | range) -> int:
        with FlopCounterMode(display=False) as counter:
            deconvnet.reconstruct(neurons, position=position)
        return counter.get_total_flops()

    assert 64 * operations(5) > 8 * operations(range(64))


EXTENTS = [
    (5,),
    (5, 2, 1),
    (2, slice(1, 3)),
    (0, slice(None), 1),
    (7, slice(0, None, 2), slice(1, 4)),
    (slice(2, 5), 0),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_units_of_any_extent_in_one_batch_equal_the_chain_by_hand(geometry: str) -> None:
    net = ConvolutionNet(**GEOMETRIES[geometry])
    shape = net.second(net.first(torch.zeros(1, 4, *SIZE, dtype=torch.float64))).shape
    expected = []
    for unit in EXTENTS:
        signal = torch.zeros(shape, dtype=torch.float64)
        signal[0][unit] = 0.5
        expected.append(by_hand(net, signal))
    together = DeconvNet(net, "second", (4, *SIZE)).reconstruct(EXTENTS, seed_value=0.5)
    torch.testing.assert_close(together, torch.cat(expected))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_random_geometries_of_one_two_and_three_dimensions(dimensions: int) -> None:
    """Strides and padding beyond the kernel, and units at both ends, against a transposed convolution that is cut."""
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dimensions - 1]
    generator = torch.Generator().manual_seed(dimensions)
    for _ in range((15, 12, 5)[dimensions - 1]):
        kernel, stride, dilation = (int(torch.randint(1, 4, (), generator=generator)) for _ in range(3))
        padding = int(torch.randint(0, 5, (), generator=generator))
        size = tuple(torch.randint(7, 15, (dimensions,), generator=generator).tolist())
        layer = convolution(2, 3, kernel, stride, padding, dilation).double()
        shape = layer(torch.zeros(1, 2, *size, dtype=torch.float64)).shape[1:]
        corner = tuple(side - 1 for side in shape[1:])
        units = [(0,), (1, *corner), (2, *(slice(0, 2) for _ in corner)), (1, *(0 for _ in corner))]
        seeds = torch.zeros(len(units), *shape, dtype=torch.float64)
        for seed, unit in zip(seeds, units, strict=True):
            seed[unit] = 1
        room = tuple(s + padding + stride for s in size)
        full = transpose(seeds, layer.weight, stride=stride, dilation=dilation)
        expected = full.new_zeros(len(units), 2, *(max(a, b) for a, b in zip(full.shape[2:], room, strict=True)))
        expected[(..., *(slice(side) for side in full.shape[2:]))] = full
        expected = expected[(..., *(slice(padding, padding + side) for side in size))]
        torch.testing.assert_close(DeconvNet(nn.Sequential(layer), "0", (2, *size)).reconstruct(units), expected)


class Uncommon(nn.Module):
    """Operations applied to one signal in turn: padding by name, transposed convolutions, frames as examples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frames, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.pool, self.named = nn.MaxPool2d(2), nn.Conv2d(4, 5, (2, 3), padding="same")
        self.up, self.scale = nn.ConvTranspose2d(5, 4, 3, 2), nn.Parameter(torch.randn(4, 1, 1))
        self.down, self.head = nn.Conv2d(8, 6, 3, 2), nn.Linear(6, 7)
        seeded(self)

    def forward(self, images: Tensor) -> Tensor:
        frames = self.pool(self.norm(self.frames(images.unflatten(1, (2, 2)).flatten(0, 1))).relu())
        single = F.max_pool2d(frames[0], 3, 1, 1).unsqueeze(0) + frames[1:].flip(-1)
        wide = self.up(self.named(single).relu()).relu() * self.scale
        maps = self.down(torch.cat([wide.mT, -wide.mT], dim=1)).relu()
        return self.head(maps.permute(0, 2, 3, 1))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_operations_that_nobody_thought_of_go_one_unit_after_the_other() -> None:
    net, image = Uncommon(), random(1, 4, 12, 13)
    units = [(0, 1, 2), (3, slice(None), 6), (2, 2, slice(1, 4))]
    result = DeconvNet(net, "head", (4, 12, 13), unpooling="uniform").reconstruct(units)
    conditioned = NeuronDeconvolution(net, "head", unpooling="uniform")
    torch.testing.assert_close(result, torch.cat([conditioned.attribute(image, unit) for unit in units]))
    assert result.flatten(1).any(1).all()


@pytest.mark.parametrize("mode", SWITCH_FREE)
def test_max_pooling_with_a_mode_is_the_conditioned_deconvnet_with_it(mode: str) -> None:
    torch.manual_seed(0)
    net = ModelC().eval()
    units = [(3, 4, 6), (5, slice(None), slice(None)), (0, slice(2, 4), 9)]
    result = DeconvNet(net, "features.conv4", (3, 20, 20), unpooling=mode).reconstruct(units)
    for seed in (0, 1):
        image = random(1, 3, 20, 20, seed=seed).float()
        conditioned = NeuronDeconvolution(net, "features.conv4", unpooling=mode)
        torch.testing.assert_close(result, torch.cat([conditioned.attribute(image, unit) for unit in units]))


@pytest.mark.parametrize(("name", "layer"), [("squeezenet1_0", "features.7.expand3x3"), ("resnet18", "layer2.1.bn1")])
def test_torchvision_networks_with_in_place_activations(name: str, layer: str) -> None:
    torch.manual_seed(0)
    net = seeded(torchvision.models.get_model(name))
    result = DeconvNet(net, layer, (3, 64, 64), unpooling="uniform").reconstruct(range(5), position=(2, 1))
    for channel in (0, 4):
        neuron = (channel, 2, 1)
        conditioned = NeuronDeconvolution(net, layer, unpooling="uniform").attribute(random(1, 3, 64, 64), neuron)
        torch.testing.assert_close(result[channel : channel + 1], conditioned)


def test_the_model_is_left_as_it_is() -> None:
    net = EverythingLinear()
    before, random_state = snapshot(net), torch.get_rng_state()
    with torch.no_grad():
        DeconvNet(net, "merge", (3, 9, 9)).reconstruct(range(3))
    assert_unchanged(before, net)
    assert torch.equal(random_state, torch.get_rng_state())


def test_what_comes_after_the_layer_need_not_work() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(10, 2))
    result = DeconvNet(net, "0", (3, 8, 8)).reconstruct((1, 2, 3))
    torch.testing.assert_close(result[0, :, 2:5, 3:6], net[0].weight[1])


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Linear(4, 4)

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.squeeze(maps.mean(dim=(2, 3))).sigmoid()[:, :, None, None]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).mT
        return self.attend(tokens, tokens, tokens)[0]


class Mask(nn.Module):
    """No gradient tells that this depends on the data."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps * (maps.roll(1, 1) > 0)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(4, 5, batch_first=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.cells(maps.flatten(2).mT)[0]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "gate": (Gate, "1", r"'1' \(Gate\)"),
    "attention": (Attention, "1", r"'1\.attend' \(MultiheadAttention\)"),
    "recurrent": (Recurrent, "1", r"'1\.cells' \(LSTM\)"),
    "layer norm": (lambda: nn.LayerNorm((4, 6, 6)), "1", r"'1' \(LayerNorm\)"),
    "instance norm": (lambda: nn.InstanceNorm2d(4), "1", r"'1' \(InstanceNorm2d\)"),
    "softmax": (lambda: nn.Softmax(dim=1), "1", r"'1' \(Softmax\)"),
    "mask": (Mask, "1", r"'1' \(Mask\)"),
    "fractional pooling": (lambda: nn.FractionalMaxPool2d(2, output_size=3), "1", r"'1' \(FractionalMaxPool2d\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_the_data_is_refused_by_name(name: str) -> None:
    torch.manual_seed(0)
    make, layer, culprit = REFUSED[name]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), make(), nn.Identity()).eval()
    with pytest.raises(
        ValueError, match=rf"that {culprit} passes down depends on the data .* choose a layer before it"
    ):
        DeconvNet(net, layer, (3, 8, 8))
    assert DeconvNet(net, "0", (3, 8, 8)).reconstruct(1).any()  # before it all is well


def test_train_mode_is_refused_with_the_remedy() -> None:
    for module in (nn.BatchNorm2d(4), nn.Dropout(0.5)):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), module)
        with pytest.warns(UserWarning, match="train mode"), pytest.raises(ValueError, match=r"call model\.eval\(\)"):
            DeconvNet(net, "1", (3, 8, 8))
        DeconvNet(net.eval(), "1", (3, 8, 8))


class SideBranch(nn.Module):
    """Max-pooling that the convolution does not lie behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool, self.side = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.stem(images)
        return self.pool(hidden), self.side(hidden)


def test_max_pooling_matters_only_on_the_way_to_the_layer() -> None:
    net = SideBranch().eval()
    assert DeconvNet(net, "side", (3, 8, 8)).reconstruct(1).any()
    with pytest.raises(ValueError, match=r"'pool' \(MaxPool2d\) .* unpooling= one of center, corner, uniform, repl"):
        DeconvNet(net, "pool", (3, 8, 8))
    assert not DeconvNet(net, "side", (3, 8, 8)).pooled
    assert not DeconvNet(net, "side", (3, 8, 8), "corner").pooled
    assert DeconvNet(net, "pool", (3, 8, 8), "corner").pooled


ERRORS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "unknown mode": (lambda net: DeconvNet(net, "stem", (3, 8, 8), "centre"), "'centre' .* choose one of center, cor"),
    "switches": (lambda net: DeconvNet(net, "stem", (3, 8, 8), "switches"), "explain an image with NeuronDeconvolutio"),
    "no such layer": (lambda net: DeconvNet(net, "sde", (3, 8, 8)), "has no layer 'sde'; near are: side"),
    "another model's": (lambda net: DeconvNet(net, nn.ReLU(), (3, 8, 8)), "is not a module of the SideBranch"),
    "not reached": (lambda net: DeconvNet(net, "unused", (3, 8, 8)), "'unused' .* was not reached .* choose a layer"),
    "several outputs": (lambda net: DeconvNet(net, net, (3, 8, 8)), "returns 2 tensors .* choose a layer that"),
    "channels": (lambda net: DeconvNet(net, "side", (1, 8, 8)), r"cannot process .* \(1, 8, 8\) .* input_shape is the"),
    "too small": (lambda net: DeconvNet(net, "side", (3, 2, 2)), r"cannot process .* \(3, 2, 2\)"),
    "with a batch": (lambda net: DeconvNet(net, "side", (1, 3, 8, 8)), r"cannot process .* \(1, 3, 8, 8\)"),
    "no size": (lambda net: DeconvNet(net, "side", (3, 0, 8)), r"input_shape \(3, 0, 8\)"),
    "channel": (
        lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct(2),
        r"no unit \(2,\): .* are 0 to 1 and positions go up to \(3, 3\)",
    ),
    "position": (lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct((1, 4, 0)), r"no unit \(1, 4, 0\)"),
    "too long": (lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct((1, 0, 0, 0)), "no unit"),
    "nothing": (lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct([]), "no unit was asked for"),
    "empty slice": (lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct((1, slice(5, 9))), "no unit"),
    "half a position": (
        lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct(1, position=(2,)),
        r"position \(2,\) does not go with unit 1: give a channel and 2 numbers",
    ),
    "two positions": (
        lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct((1, 2, 3), position=(2, 3)),
        "does not go with unit",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name: str) -> None:
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message) as error:
        call(SideBranch().eval())
    assert "\n" not in str(error.value)


NOT_A_UNIT: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "number": (lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct(1.5), "1.5"),
    "name": (
        lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct("ab"),
        r"unit \('a',\) is no index: a unit is an",
    ),
    "ellipsis": (lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct((1, ...)), "a tuple of ints and slices"),
    "position": (lambda net: DeconvNet(net, "side", (3, 8, 8)).reconstruct(1, position=3), r"position 3 .* \(row, col"),
    "shape": (lambda net: DeconvNet(net, "side", 8), r"input_shape 8 is no tuple of ints: .* such as \(3, 32, 32\)"),
}


@pytest.mark.parametrize("name", NOT_A_UNIT)
def test_what_is_no_index_is_refused_with_what_would_be(name: str) -> None:
    call, message = NOT_A_UNIT[name]
    with pytest.raises(TypeError, match=message):
        call(SideBranch().eval())
