"""Networks that people bring, from public reports: the map that each must give, through the public classes."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from support.helpers import assert_close, assert_unchanged, snapshot
from support.recurrent import CELLS, RECURRENT, Activate, Recurrent, gru_cell, lstm_cell, rnn_cell
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from plugin.attr import Deconvolution, GuidedBackprop, LayerLRPTranspose, LRPTranspose
from plugin.rules import Composite, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus
from plugin.rules.presets import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    leaf = inputs.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


class Passing(torch.autograd.Function):
    """y = f(x), and relevance passes unchanged: the multiplier is m f(x) / x."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        result = function(values)
        ctx.save_for_backward(values, result)
        return result

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        values, result = ctx.saved_tensors
        return signal * result / values, None


class Guided(torch.autograd.Function):
    """y = f(x), and below it relu(m) relu(f')."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            ctx.save_for_backward(gradient(function, values))
        return function(values)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return signal.clamp(min=0) * slope.clamp(min=0), None


class Passed(torch.autograd.Function):
    """y = f(x), and below it relu(m)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(values)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        return signal.clamp(min=0), None


def closed_ledger(attribution: LRPTranspose, inputs: Tensor) -> Any:
    """The ledger, in which input and absorbed relevance are the output."""
    ledger = attribution.ledger(inputs, 1)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-6, abs=1e-9)
    return ledger


# -- time series -------------------------------------------------------------------------------------------------------


class Renormed(nn.Conv2d):
    """A convolution that bounds the norm of its weight whenever it runs, as EEGNet's."""

    def forward(self, signals: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 1.0)
        return super().forward(signals)


class EEGNet(nn.Module):
    """Convolutions in time with an even reach, across electrodes and by channel; batch norms, ELUs, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {"padding": "same", "bias": False}
        self.time = nn.Sequential(nn.Conv2d(1, 4, (1, 8), **options), nn.BatchNorm2d(4))
        self.space = nn.Sequential(Renormed(4, 8, (5, 1), groups=4, bias=False), nn.BatchNorm2d(8))
        self.mix = nn.Sequential(nn.Conv2d(8, 8, (1, 4), groups=8, **options), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8 * 4, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
                module.running_mean.normal_(0, 0.2)
        self.double().eval()

    def forward(self, signals: Tensor, elu: Callable[[Tensor], Tensor] = F.elu) -> Tensor:
        hidden = F.avg_pool2d(elu(self.space(self.time(signals))), (1, 2))
        return self.head(F.avg_pool2d(elu(self.mix(hidden)), (1, 4)).flatten(1))


def test_a_network_of_time_series() -> None:
    network, signals = EEGNet(), numbers(2, 1, 5, 32)
    expected = signals * gradient(lambda v: network(v, lambda x: Passing.apply(x, F.elu))[:, 1], signals)
    assert_close(LRPTranspose(network, "lrp_0").attribute(signals, 1), expected, 1e-9)
    for name in PRESETS:
        ledger = closed_ledger(LRPTranspose(network, name), signals)
        relevance = LRPTranspose(network, name).attribute(signals, 1)
        assert ledger.input == pytest.approx(relevance.sum().item(), rel=1e-9)


SHARES: list[tuple[Rule, Callable[[Tensor, Tensor, Tensor], Tensor]]] = [
    (ZPlus(bias=False), lambda x, w, real: (x * w).clamp(min=0)),
    (Flat(), lambda x, w, real: real),
    (WSquare(), lambda x, w, real: w**2),
    (ZBox(-4.0, 5.0), lambda x, w, real: x * w + 4 * w.clamp(min=0) - 5 * w.clamp(max=0)),
]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize(("of", "shape"), [(nn.Conv1d, (2, 2, 9)), (nn.Conv2d, (2, 2, 5, 6))])
@pytest.mark.parametrize(("rule", "share"), SHARES, ids=[type(rule).__name__ for rule, _ in SHARES])
def test_padding_same_spreads_over_real_inputs(rule, share, of, shape, kernel, dilation) -> None:
    """R_i = sum_j p_ij / sum_i p_ij R_j over the inputs i that are no padding, by the layer's matrix."""
    torch.manual_seed(0)
    layer = of(2, 3, kernel, padding="same", dilation=dilation, bias=False).double()
    head = nn.Linear(3 * math.prod(shape[2:]), 2).double()
    inputs = numbers(*shape)
    composite = Composite(first=rule, default=Epsilon(0.0))
    found = LRPTranspose(nn.Sequential(layer, nn.Flatten(), head), composite).attribute(inputs, 1)
    for one, relevance in zip(inputs, found, strict=True):
        matrix = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0].flatten(), one).flatten(1)
        parts = share(one.flatten(), matrix, (matrix != 0).to(matrix))
        entered = (matrix @ one.flatten()) * head.weight.detach()[1]
        expected = (parts / (parts.sum(1, keepdim=True) + rule.epsilon) * entered[:, None]).sum(0)
        assert_close(relevance.flatten(), expected, 1e-9)


# -- before the first layer --------------------------------------------------------------------------------------------


class Before(nn.Module):
    """Something before a small convolutional network, whose inputs range from `low` to `high`."""

    def __init__(self, before: Callable[[Tensor], Tensor], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 4, 4, **options), nn.Conv2d(4, 4, 2), nn.Linear(4, 2)
        self.before = before
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.before(images))

    def body(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(images)))).mean((2, 3)))


class Body(nn.Module):
    """The same network without the part before it."""

    def __init__(self, network: Before) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.body(images)


def nothing(images: Tensor) -> Tensor:
    return images


PADDINGS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any]]] = {
    "none": (nothing, {}),
    "F.pad": (lambda v: F.pad(v, (1, 2, 1, 2)), {}),
    "F.pad with a value": (lambda v: F.pad(v, (1, 2, 1, 2), value=0.5), {}),
    "nn.ZeroPad2d": (nn.ZeroPad2d(1), {}),
    "nn.ReflectionPad2d": (nn.ReflectionPad2d(1), {}),
    "nn.ReplicationPad2d": (nn.ReplicationPad2d(1), {}),
    "padding": (nothing, {"padding": 1}),
    "circular": (nothing, {"padding": 1, "padding_mode": "circular"}),
    "same": (nothing, {"padding": "same"}),
}
FIRST_RULES = [Flat(), WSquare(), ZBox(-5.0, 5.0)]


@pytest.mark.parametrize("rule", FIRST_RULES, ids=str)
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_ledger_closes_where_the_input_is_padded(padding, rule) -> None:
    before, options = PADDINGS[padding]
    attribution = LRPTranspose(Before(before, **options), Composite(first=rule, default=Epsilon()))
    images = numbers(2, 3, 7, 7)
    ledger = closed_ledger(attribution, images)
    assert ledger.input == pytest.approx(attribution.attribute(images, 1).sum().item(), rel=1e-9)


MEAN, DEVIATION = (torch.tensor(c).double().view(1, 3, 1, 1) for c in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def channel_by_channel(images: Tensor) -> Tensor:
    """As torchvision's GoogLeNet with `transform_input`."""
    parts = [images[:, i : i + 1] * (DEVIATION[0, i] / 0.5) + (MEAN[0, i] - 0.5) / 0.5 for i in range(3)]
    return torch.cat(parts, 1)


AFFINE: dict[str, Callable[[Tensor], Tensor]] = {
    "(x - mean) / std": lambda v: (v - MEAN) / DEVIATION,
    "x.sub(mean).div(std)": lambda v: v.sub(MEAN).div(DEVIATION),
    "(x - mean) * (1 / std)": lambda v: (v - MEAN) * DEVIATION.reciprocal(),
    "x / 255": lambda v: v / 255,
    "2 x - 1": lambda v: 2 * v - 1,
    "channel by channel": channel_by_channel,
    "batch norm": nn.BatchNorm2d(3).double().eval(),
    "frozen batch norm": FrozenBatchNorm2d(3).double().eval(),
    "two batch norms": nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).double().eval(),
    "batch norm, frozen one": nn.Sequential(nn.BatchNorm2d(3), FrozenBatchNorm2d(3)).double().eval(),
    "clone": lambda v: v.clone(),
    "instance norm": lambda v: F.instance_norm(v, eps=0.1),
    "centred": lambda v: v - v.mean((2, 3))[..., None, None],
    "standardised": lambda v: (v - v.mean((1, 2, 3), keepdim=True)) / (v.std((1, 2, 3), keepdim=True) + 1e-3),
    "var_mean": lambda v: (lambda s, m: (v - m) * torch.rsqrt(s + 0.1))(*torch.var_mean(v, (2, 3), keepdim=True)),
    "divided by its length": lambda v: v / v.norm(dim=1, keepdim=True),
    "divided by its maximum": lambda v: v / v.detach().amax((1, 2, 3), keepdim=True),
    "scaled by a gate, einsum": lambda v: torch.einsum("nchw,nc->nchw", v, torch.sigmoid(v.mean((2, 3)))),
    "cubed": lambda v: v * v * v,
    "scaled by its sigmoid": lambda v: v * torch.sigmoid(v),
}


def reflected_back(relevance: Tensor) -> Tensor:
    """The sum at each pixel over all places that it was reflected to."""
    size = [side - 2 for side in relevance.shape[2:]]
    return gradient(
        lambda v: F.pad(v, (1, 1, 1, 1), "reflect") * relevance, relevance.new_zeros(*relevance.shape[:2], *size)
    )


PAIR = torch.tensor([0.5, 2.0], dtype=torch.float64)


def pairs_summed(relevance: Tensor) -> Tensor:
    return relevance.unflatten(3, (-1, 2)).sum(4)


MOVED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "channel swap": (lambda v: v[:, [2, 1, 0]], lambda r: r[:, [2, 1, 0]]),
    "flip": (lambda v: v.flip(3), lambda r: r.flip(3)),
    "crop": (lambda v: v[..., 1:, 1:], lambda r: F.pad(r, (1, 0, 1, 0))),
    "reflection": (lambda v: F.pad(v, (1, 1, 1, 1), "reflect"), reflected_back),
    "nearest neighbours": (lambda v: F.interpolate(v, scale_factor=2), lambda r: 4 * F.avg_pool2d(r, 2)),
    "larger of two halves": (lambda v: torch.maximum(*v.flip(1).repeat(1, 1, 2, 1).chunk(2, 2)), lambda r: r.flip(1)),
    "largest of one": (lambda v: v.flip(3)[:, None].max(1).values, lambda r: r.flip(3)),
    "normalised, then flipped": (lambda v: ((v - MEAN) / DEVIATION).flip(3), lambda r: r.flip(3)),
    "each pixel twice, viewed": (lambda v: (v[..., None] * PAIR).view(*v.shape[:3], -1), pairs_summed),
    "each pixel twice, as_strided": (
        lambda v: (v[..., None].expand(*v.shape, 2) * PAIR).as_strided((2, 3, 7, 14), (294, 98, 14, 1)),
        pairs_summed,
    ),
}


@pytest.mark.parametrize("rule", FIRST_RULES, ids=str)
@pytest.mark.parametrize("name", [*AFFINE, *MOVED])
def test_the_first_layer_is_the_first_linear_one(name, rule) -> None:
    """Relevance passes unchanged through an affine step, constants take none; and moves as the pixels do."""
    before, back = MOVED.get(name) or (AFFINE[name], nothing)
    network, images = Before(before), numbers(2, 3, 7, 7)
    composite = Composite(first=rule, default=Epsilon())
    expected = back(LRPTranspose(Body(network), composite).attribute(before(images), 1))
    assert_close(LRPTranspose(network, composite).attribute(images, 1), expected, 1e-9)
    ledger = closed_ledger(LRPTranspose(network, composite), images)
    assert {entry.layer: entry.rule for entry in ledger}["first"] == str(rule)


LARGEST: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda v: v.unflatten(3, (7, 4)).amax(4),
    "max": lambda v: v.unflatten(3, (7, 4)).max(4).values,
    "topk": lambda v: v.unflatten(3, (7, 4)).topk(1)[0][..., 0],
    "max_pool2d": lambda v: F.max_pool2d(v, (1, 4)),
}


def read_at_the_largest(values: Tensor) -> Tensor:
    windows = values.unflatten(3, (7, 4))
    return windows.gather(4, windows.argmax(4, keepdim=True))[..., 0]


@pytest.mark.parametrize("rule", FIRST_RULES, ids=str)
@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_of_an_image_and_a_layer_takes_its_relevance(name, rule) -> None:
    """The image's share and the layer's are those of the chosen values, as if these were read by their places."""
    layer = nn.Conv2d(3, 3, 3, padding=1).double()
    layer.weight.data, layer.bias.data = numbers(3, 3, 3, 3, seed=1), numbers(3, seed=2)

    def found(choose: Callable[[Tensor], Tensor]) -> Tensor:
        network = Before(lambda v: choose(v + F.pad(layer(v)[..., 1:], (1, 0))))
        network.layer = layer
        composite = Composite(first=rule, default=Epsilon())
        return LRPTranspose(network, composite).attribute(numbers(2, 3, 7, 28), 1)

    assert_close(found(LARGEST[name]), found(read_at_the_largest), 1e-9)


@pytest.mark.parametrize("rule", FIRST_RULES, ids=str)
def test_zeros_in_place_of_pixels_are_padding(rule) -> None:
    """Cropped and padded, an image has its size again; the zeros count as padding, and the lost pixels get nothing."""
    network, images = Before(lambda v: F.pad(F.pad(v, [-1] * 4), [1] * 4)), numbers(2, 3, 7, 7)
    composite = Composite(first=rule, default=Epsilon())
    found = LRPTranspose(network, composite).attribute(images, 1)
    padded = Before(nothing, padding=1)
    inside = LRPTranspose(padded, composite).attribute(images[..., 1:-1, 1:-1], 1)
    assert_close(found, F.pad(inside, [1] * 4), 1e-9)


@pytest.mark.parametrize("kind", ["resize", "average pooling", "with padding", "padding before it", "windows"])
def test_relevance_passes_through_resizing_in_proportion_to_its_weights(kind) -> None:
    resize = {
        "resize": lambda v: F.interpolate(v, (8, 9), mode="bilinear", align_corners=False),
        "average pooling": lambda v: F.avg_pool2d(v, 2),
        "with padding": lambda v: F.avg_pool2d(v, 3, 2, 1),
        "padding before it": lambda v: F.avg_pool2d(F.pad(v, [1] * 4), 3, 2),
        "windows": lambda v: F.pad(v, [1] * 4).unfold(2, 3, 2).unfold(3, 3, 2).mean((4, 5)),
    }[kind]
    network, images = Before(resize), numbers(2, 3, 12, 12).abs()
    composite = Composite(first=Flat(), default=Epsilon())
    at_layer = LRPTranspose(Body(network), composite).attribute(resize(images), 1)
    # Each resized pixel hands its relevance to those that it was made of, by the weights that made it; none to padding.
    weight = resize(torch.ones_like(images))
    expected = gradient(lambda v: resize(v) / weight * at_layer, images)
    assert_close(LRPTranspose(network, composite).attribute(images, 1), expected, 1e-9)


def rules_used(network: nn.Module, images: Tensor, preset: str, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The output of `verbose`: the layer and its rule."""
    LRPTranspose(network, preset).attribute(images, 1, verbose=True)
    return [line.split(": ", 1) for line in capsys.readouterr().out.splitlines()]


def test_explain_says_what_happens(capsys) -> None:
    """On torchvision's GoogLeNet as its pretrained weights configure it, and on a model that normalises its input."""
    googlenet = models.googlenet(weights=None, init_weights=False, transform_input=True).eval()
    normalising = Before(AFFINE["(x - mean) / std"])
    composite = PRESETS["epsilon_plus_flat"]()
    for network, images in ((googlenet, torch.rand(1, 3, 64, 64)), (normalising, numbers(2, 3, 7, 7))):
        used = rules_used(network, images, "epsilon_plus_flat", capsys)
        table = str(composite.explain(network))
        assert str(Flat()) in table
        for layer, rule in used:
            assert any(line.split()[0] == layer and rule in line for line in table.splitlines()[2:]), layer
        assert [rule for _, rule in used].count(str(Flat())) == 1


class ByCells(nn.Module):
    """A network with a recurrent layer, of which each cell is written out."""

    def __init__(self, network: Recurrent) -> None:
        super().__init__()
        self.network = network

    def forward(self, sequences: Tensor) -> Tensor:
        return self.network.by_cells(sequences, torch.sigmoid, torch.tanh)


@pytest.mark.parametrize("of", CELLS)
@pytest.mark.parametrize("options", RECURRENT)
@pytest.mark.parametrize("rule", FIRST_RULES, ids=str)
def test_the_first_layers_of_a_recurrent_network_read_its_input(rule, options, of) -> None:
    """Not the state, which begins with zeros: else examples would also get relevance of each other."""
    network, sequences = Recurrent(of, **RECURRENT[options]), numbers(3, 6, 3)
    composite = Composite(first=rule, default=Epsilon())
    found = LRPTranspose(network, composite).attribute(sequences, 1)
    assert_close(found, LRPTranspose(ByCells(network), composite).attribute(sequences, 1), 1e-9)


def test_an_input_times_zero_gets_no_relevance() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.shift = nn.Linear(4, 3).double(), nn.Parameter(numbers(4))

        def forward(self, values: Tensor) -> Tensor:
            return self.layer(values) + self.layer(self.shift + 0 * values.sum())

    network, values = Shifted(), numbers(2, 4)
    constant = network.layer(network.shift).detach()
    composite = Composite(first=Flat(), default=Epsilon())
    found = LRPTranspose(network, composite).attribute(values, 1)
    expected = LRPTranspose(network.layer, composite).attribute(values, lambda output: (output + 0 * constant)[:, 1])
    assert_close(found, expected, 1e-9)


def test_a_first_rule_that_reaches_no_layer_warns() -> None:
    network = nn.Sequential(nn.AvgPool2d(2), nn.Flatten()).eval()
    with pytest.warns(UserWarning, match="first"):
        LRPTranspose(network, Composite(first=Flat())).attribute(torch.rand(2, 1, 4, 4), 1)


# -- two inputs --------------------------------------------------------------------------------------------------------


class Twins(nn.Module):
    """A number that says how alike two images are, or how far apart."""

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8)]
        self.embed, self.compare = nn.Sequential(*layers), compare
        self.double().eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.compare(self.embed(first), self.embed(second))


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return (F.normalize(first) * F.normalize(second)).sum(1)


def squared_distance(first: Tensor, second: Tensor) -> Tensor:
    return ((first - second) ** 2).sum(1)


def absolute_distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs().sum(1)


COMPARISONS: list[tuple[str, Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = [
    ("dot product", lambda a, b: (a * b).sum(1), torch.linalg.vecdot),
    ("dot product, einsum", lambda a, b: (a * b).sum(1), lambda a, b: torch.einsum("nd,nd->n", a, b)),
    ("cosine", cosine, F.cosine_similarity),
    ("cosine, nn.CosineSimilarity", cosine, nn.CosineSimilarity()),
    ("squared distance, d * d", squared_distance, lambda a, b: ((a - b) * (a - b)).sum(1)),
    ("squared distance, square", squared_distance, lambda a, b: (a - b).square().sum(1)),
    ("absolute distance", absolute_distance, lambda a, b: torch.abs(b - a).sum(1)),
    ("squared distance, mse_loss", squared_distance, lambda a, b: F.mse_loss(a, b, reduction="none").sum(1)),
    ("absolute distance, l1_loss", absolute_distance, lambda a, b: F.l1_loss(a, b, reduction="none").sum(1)),
    (
        "distance, cdist",
        lambda a, b: (a - b).square().sum(1) / (a - b).norm(dim=1).detach(),
        lambda a, b: torch.cdist(a[:, None], b[:, None])[:, 0, 0],
    ),
    (
        "pairwise distance",
        F.pairwise_distance,
        lambda a, b: (a - b + 1e-6).norm(dim=1),
    ),
]


@pytest.mark.parametrize("row", COMPARISONS, ids=lambda row: row[0])
def test_similarity_and_distance_of_two_embeddings(row) -> None:
    _, reference, compare = row
    images = numbers(2, 3, 9, 9), numbers(2, 3, 9, 9, seed=1)
    expected = LRPTranspose(Twins(reference), "lrp_0").attribute(images)
    found = LRPTranspose(Twins(compare), "lrp_0").attribute(images)
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        assert_close(one, other, 1e-8)
    assert all(part.any() for part in GuidedBackprop(Twins(compare)).attribute(images))


# -- models that others have touched -----------------------------------------------------------------------------------


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3), nn.ReLU(True), nn.Conv2d(6, 6, 3), nn.ReLU(True)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


FOREIGN_HOOKS: dict[str, Callable[[nn.Sequential], Any]] = {
    "forward": lambda m: m[2].register_forward_hook(lambda module, args, output: None),
    "forward, gives a copy": lambda m: m[2].register_forward_hook(lambda module, args, output: output.clone()),
    "forward pre": lambda m: m[2].register_forward_pre_hook(lambda module, args: None),
    "tensor": lambda m: m[2].register_forward_hook(lambda module, args, output: then(output.register_hook(keep))),
    "retain_grad": lambda m: m[2].register_forward_hook(lambda module, args, output: then(output.retain_grad())),
    "full backward, before a ReLU in place": lambda m: m[2].register_full_backward_hook(lambda module, down, up: None),
    "full backward, on the ReLU in place": lambda m: m[3].register_full_backward_hook(lambda module, down, up: None),
    "full backward pre": lambda m: m[2].register_full_backward_pre_hook(lambda module, up: None),
}


def keep(signal: Tensor) -> None:
    """A hook that looks only."""


def then(_: Any) -> None:
    """A hook that returns nothing."""


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution, LRPTranspose])
@pytest.mark.parametrize("hook", FOREIGN_HOOKS)
def test_hooks_of_others_beside_relus_in_place(hook, method) -> None:
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    expected = method(convolutions()).attribute(images, 1)
    hooked = convolutions()
    handle = FOREIGN_HOOKS[hook](hooked)
    before = snapshot(hooked)
    assert_close(method(hooked).attribute(images, 1), expected, 1e-6)
    assert_unchanged(before, hooked)
    handle.remove()


def exported(network: nn.Module, images: Tensor) -> nn.Module:
    return torch.export.export(network, (images,)).module()


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution, LRPTranspose])
@pytest.mark.parametrize("how", ["fx", "export"])
@pytest.mark.filterwarnings("ignore")  # torch.export deprecates its own helpers
def test_traced_and_exported_networks(how, method) -> None:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.InstanceNorm2d(6), nn.ReLU()]
    network = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).double().eval()
    network[1].running_var.uniform_(0.5, 2)
    images = numbers(2, 3, 12, 12)
    traced = torch.fx.symbolic_trace(network) if how == "fx" else exported(network, images)
    assert_close(method(traced).attribute(images, 1), method(network).attribute(images, 1), 1e-9)


@torch.library.custom_op("tests_of_cases::relu", mutates_args=())
def relu_of_a_library(values: Tensor) -> Tensor:
    return values.clamp(min=0)


relu_of_a_library.register_autograd(
    lambda ctx, signal: signal * (ctx.saved_tensors[0] > 0),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


class With(nn.Module):
    """Two convolutions with a function behind each."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.function = function
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.function(self.second(self.function(self.first(images))))
        return self.head(hidden.mean((2, 3)))


@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
def test_an_activation_in_an_operation_of_a_library_is_no_silent_gradient(method) -> None:
    """It is refused, or warned of: its computation cannot be seen."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            method(With(relu_of_a_library)).attribute(torch.randn(2, 3, 9, 9), 1)
        except (NotImplementedError, ValueError) as refusal:
            said.append(str(refusal))
    said += [str(warning.message) for warning in caught]
    assert any("relu" in message for message in said), said


def test_lrp_names_the_operation_of_a_library_that_it_does_not_know() -> None:
    with pytest.raises(NotImplementedError, match="relu"):
        LRPTranspose(With(relu_of_a_library)).attribute(torch.randn(2, 3, 9, 9), 1)


# -- the last operation ------------------------------------------------------------------------------------------------


def scorer(scale: float) -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    body[3].weight.data *= scale
    return body


LOG_SOFTMAXES: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.LogSoftmax": nn.LogSoftmax(1),
    "F.log_softmax": lambda v: F.log_softmax(v, -1),
    "Tensor.log_softmax": lambda v: v.log_softmax(dim=1),
    "moved": lambda v: F.log_softmax(v, 1).mT.contiguous().mT,
    "by hand": lambda v: v - v.amax(1, True) - (v - v.amax(1, True)).exp().sum(1, True).log(),
}


@pytest.mark.parametrize("last", LOG_SOFTMAXES)
def test_log_softmax_is_explained_below_it_with_a_note(last) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = scorer(1.0)

        def forward(self, values: Tensor) -> Tensor:
            return LOG_SOFTMAXES[last](self.body(values))

    values = numbers(3, 16)
    expected = LRPTranspose(scorer(1.0)).attribute(values, [0, 1, 2])
    with pytest.warns(UserWarning, match="logit"):
        found = LRPTranspose(Classifier()).attribute(values, [0, 1, 2])
    assert_close(found, expected, 1e-9)


def test_a_softmax_that_is_saturated_says_that_its_map_vanishes() -> None:
    """Its slope is p (1 - p): nothing is left of a class that the network is sure of."""
    values = numbers(3, 16)
    saturated = nn.Sequential(scorer(600.0), nn.Softmax(1)).eval()
    target = saturated(values).argmax(1)
    assert (saturated(values).amax(1) > 1 - 1e-6).all()
    with pytest.warns(UserWarning, match="logit"):
        relevance = LRPTranspose(saturated).attribute(values, target)
    assert relevance.abs().max() < 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LRPTranspose(nn.Sequential(scorer(1.0), nn.Softmax(1)).eval()).attribute(values, 1).any()


class MeanPlace(nn.Module):
    """The mean column under a softmax over the columns: computed from weights alone, and no probability."""

    def forward(self, values: Tensor) -> Tensor:
        return (values.softmax(1) * torch.arange(1, 1 + values.shape[1])).sum(1, keepdim=True)


def test_a_mean_under_a_softmax_is_no_saturated_probability() -> None:
    values = numbers(3, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LRPTranspose(nn.Sequential(scorer(1.0), MeanPlace()).eval()).attribute(values, 0).any()


# -- Captum's rules on modules -----------------------------------------------------------------------------------------


class Modules(nn.Sequential):
    """As Captum wants a network: of modules only, which are called once; but for `flatten`, of which it has no rule."""

    def forward(self, values: Tensor) -> Tensor:
        for module in self:
            values = module(values.flatten(1) if isinstance(module, nn.Linear) else values)
        return values


class NewGELU(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return 0.5 * values * (1 + torch.tanh(0.7978845608 * (values + 0.044715 * torch.pow(values, 3))))


class RMSNorm(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + 1e-6)


class CustomLeaf(nn.Module):
    """Something that has no rule anywhere."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.sin(values) + values


def of_convolutions() -> nn.Sequential:
    torch.manual_seed(1)
    return Modules(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Linear(16, 3)
    ).eval()


def of_batch_norms() -> nn.Sequential:
    torch.manual_seed(1)
    body = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
    network = Modules(*body, nn.Linear(64, 3)).eval()
    for norm in (network[1], network[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return network


def around(module: nn.Module) -> Callable[[], nn.Sequential]:
    def build() -> nn.Sequential:
        torch.manual_seed(1)
        return Modules(nn.Linear(32, 8), module, nn.Linear(8, 3)).eval()

    return build


# (the point of the case, the network, the rules that its modules get)
CAPTUM_RULES: list[tuple[str, Callable[[], nn.Sequential], dict[int, PropagationRule]]] = [
    ("none", of_convolutions, {}),
    ("epsilon on a convolution", of_convolutions, {2: EpsilonRule(0.1)}),
    ("gamma on the first convolution", of_convolutions, {0: GammaRule(0.3)}),
    ("gamma on a convolution", of_convolutions, {2: GammaRule(0.3)}),
    ("gamma on a convolution, no bias", of_convolutions, {2: GammaRule(0.3, True)}),
    ("alpha 1 beta 0 on a convolution", of_convolutions, {2: Alpha1_Beta0_Rule()}),
    ("alpha 1 beta 0 on a convolution, no bias", of_convolutions, {2: Alpha1_Beta0_Rule(True)}),
    ("epsilon on a linear layer", of_convolutions, {5: EpsilonRule(0.1)}),
    ("gamma on a linear layer", of_convolutions, {5: GammaRule(0.3)}),
    ("alpha 1 beta 0 on a linear layer", of_convolutions, {5: Alpha1_Beta0_Rule()}),
    ("epsilon on average pooling", of_convolutions, {4: EpsilonRule(0.5)}),
    ("identity on a ReLU", of_convolutions, {1: IdentityRule()}),
    ("epsilon on a ReLU", of_convolutions, {1: EpsilonRule(0.5)}),
    ("batch norms, none", of_batch_norms, {}),
    ("batch norms, identity", of_batch_norms, {1: IdentityRule(), 4: IdentityRule()}),
    ("batch norms, epsilon", of_batch_norms, {4: EpsilonRule(0.5)}),
    ("gamma on a convolution before a batch norm", of_batch_norms, {3: GammaRule(0.3)}),
    ("alpha 1 beta 0 on a convolution before a batch norm", of_batch_norms, {3: Alpha1_Beta0_Rule()}),
    ("epsilon on a convolution before a batch norm", of_batch_norms, {3: EpsilonRule(0.5)}),
    ("gamma before, identity on the batch norm", of_batch_norms, {3: GammaRule(0.3), 4: IdentityRule()}),
    ("identity on an ELU", around(nn.ELU()), {1: IdentityRule()}),
    ("identity on a sigmoid", around(nn.Sigmoid()), {1: IdentityRule()}),
    ("identity on an activation by hand", around(NewGELU()), {1: IdentityRule()}),
    ("identity on a norm by hand", around(RMSNorm()), {1: IdentityRule()}),
    ("identity on a layer norm", around(nn.LayerNorm(8)), {1: IdentityRule()}),
    ("identity on a custom leaf", around(CustomLeaf()), {1: IdentityRule()}),
    ("identity on a linear layer", around(nn.Linear(8, 8)), {1: IdentityRule()}),
]


@pytest.mark.parametrize("row", CAPTUM_RULES, ids=lambda row: row[0])
def test_captums_rules_on_modules(row) -> None:
    _, build, rules = row
    network = build().double()
    inputs = numbers(2, 2, 8, 8) if isinstance(network[0], nn.Conv2d) else numbers(2, 32)
    for index, rule in rules.items():
        network[index].rule = copy.deepcopy(rule)
    expected = captum.attr.LRP(copy.deepcopy(network)).attribute(inputs.clone(), target=1).detach()
    before = snapshot(network)
    found = LRPTranspose(network, Composite(default=Epsilon(1e-9))).attribute(inputs, 1)
    assert_unchanged(before, network)
    assert_close(found, expected, 1e-5)


class Squared(PropagationRule):
    """As Captum's documentation invites to write."""

    def _manipulate_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        module.weight.data = module.weight.data**2


class AbsoluteEpsilon(EpsilonRule):
    def _manipulate_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        module.weight.data = module.weight.data.abs()


class CubedGamma(GammaRule):
    def _manipulate_weights(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        module.weight.data = module.weight.data**3


class HalvedIdentity(IdentityRule):
    def _create_backward_hook_input(self, inputs: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda signal: self.relevance_output[signal.device] / 2


# (the network, a layer of it, its rule)
SUBCLASSES: list[tuple[Callable[[], nn.Sequential], int, PropagationRule]] = [
    (of_convolutions, 2, Squared()),
    (of_convolutions, 2, AbsoluteEpsilon(0.1)),
    (of_convolutions, 5, CubedGamma()),
    (around(nn.Linear(8, 8)), 1, HalvedIdentity()),
    (around(nn.ELU()), 1, HalvedIdentity()),
]


@pytest.mark.parametrize(("build", "index", "rule"), SUBCLASSES, ids=[type(rule).__name__ for *_, rule in SUBCLASSES])
def test_a_subclass_of_captums_rules_is_called_or_refused(build, index, rule) -> None:
    """It overrides the computation of its base class: it must never be taken for that."""
    network = build().double()
    inputs = numbers(2, 2, 8, 8) if isinstance(network[0], nn.Conv2d) else numbers(2, 32)
    network[index].rule = copy.deepcopy(rule)
    expected = captum.attr.LRP(copy.deepcopy(network)).attribute(inputs.clone(), target=1).detach()
    try:
        found = LRPTranspose(network, Composite(default=Epsilon(1e-9))).attribute(inputs, 1)
    except (TypeError, NotImplementedError) as refusal:
        if type(rule).__name__ not in str(refusal):
            raise
    else:
        assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("rule", [ZPlus(), Gamma(0.25)], ids=str)
def test_a_rule_of_a_composite_and_captums_on_one_network(rule) -> None:
    """`module.rule` goes before the composite, and for its own module only."""
    network, inputs = of_convolutions().double(), numbers(2, 2, 8, 8)
    network[2].rule = EpsilonRule(0.1)
    expected = LRPTranspose(of_convolutions().double(), Composite([("2", Epsilon(0.1))], default=rule)).attribute(
        inputs, 1
    )
    assert_close(LRPTranspose(network, Composite(default=rule)).attribute(inputs, 1), expected, 1e-9)


# -- layers ------------------------------------------------------------------------------------------------------------


class MeanOfTokens(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


@pytest.mark.parametrize(
    ("in_place", "twin"),
    [
        (nn.ReLU(inplace=True), nn.ReLU()),
        (nn.Dropout(0.1, inplace=True), nn.Dropout(0.1)),
        (nn.LeakyReLU(0.1, inplace=True), nn.LeakyReLU(0.1)),
        (nn.SiLU(inplace=True), nn.SiLU()),
        (nn.Hardtanh(inplace=True), nn.Hardtanh()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_in_place_behind_a_linear_layer_of_tokens(in_place, twin) -> None:
    """A linear layer of (N, T, F) returns a view; it can be changed in place as an ordinary tensor can."""
    torch.manual_seed(0)
    first, last, tokens = nn.Linear(6, 6).double(), nn.Linear(6, 5).double(), numbers(2, 4, 6)
    networks = [nn.Sequential(first, activation, last, MeanOfTokens()).eval() for activation in (in_place, twin)]
    for preset in ("epsilon", "epsilon_plus_flat"):
        found, expected = (LRPTranspose(network, preset) for network in networks)
        assert_close(found.attribute(tokens, 1), expected.attribute(tokens, 1), 1e-9)
        assert_close(found.attribute_targets(tokens, [1, 2]), expected.attribute_targets(tokens, [1, 2]), 1e-9)
        assert found.ledger(tokens, 1).absorbed == pytest.approx(expected.ledger(tokens, 1).absorbed, rel=1e-9)
    for method in (GuidedBackprop, Deconvolution):
        assert_close(method(networks[0]).attribute(tokens, 1), method(networks[1]).attribute(tokens, 1), 1e-9)


class SqueezeExcitation(nn.Module):
    """A convolution whose channels are scaled by the output of two layers on their means."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.down, self.up = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.head = nn.Linear(6, 3)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images)
        gate = torch.sigmoid(self.up(F.relu(self.down(hidden.mean((2, 3), keepdim=True)))))
        return self.head(F.relu(hidden * gate).mean((2, 3)))


def test_a_layer_in_a_gate_has_no_relevance() -> None:
    """All relevance goes past it, to the signal: that is zeros, and no mistake of the user's."""
    network, images = SqueezeExcitation(), numbers(2, 3, 6, 6)
    for name, at_input, channels in (("down", False, 2), ("up", True, 2), ("up", False, 6)):
        layer = LayerLRPTranspose(network, name, rules="epsilon_plus")
        relevance, delta = layer.attribute(images, 1, None, True, at_input)
        assert relevance.shape == (2, channels, 1, 1)
        assert not relevance.any()
        torch.testing.assert_close(delta, network(images)[:, 1].detach())
    together = LayerLRPTranspose(network, ["first", "down", "up"]).attribute(images, 1)
    assert [bool(relevance.any()) for relevance in together] == [True, False, False]


class Tokens(nn.Module):
    """Convolution, batch norm, and its pixels as tokens, which are scaled: the stem of many hybrid transformers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.head = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.scales = nn.Parameter(torch.randn(16, 8))
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.convolution(images))
        return self.head((hidden.flatten(2).transpose(1, 2) * self.scales).relu().mean(1))

    def folded(self, images: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
        """The same without PyTorch's batch norm, whose gradient is wrong for a transposed signal of one example."""
        scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        shift = self.norm.bias + (self.convolution.bias - self.norm.running_mean) * scale
        weight = self.convolution.weight * scale[:, None, None, None]
        hidden = F.conv2d(images, weight, shift, stride=2).flatten(2).mT
        return self.head(relu(hidden * self.scales).mean(1))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("examples", [1, 2])
def test_batch_norm_hands_down_a_transposed_signal(examples, frozen) -> None:
    network, images = Tokens().requires_grad_(not frozen), numbers(examples, 3, 9, 9)

    def by_hand(relu: Callable[[Tensor], Tensor]) -> Tensor:
        return gradient(lambda v: network.folded(v, relu)[:, 1], images)

    guided = by_hand(lambda v: Guided.apply(v, F.relu))
    assert_close(GuidedBackprop(network).attribute(images, 1), guided, 1e-9)
    assert_close(Deconvolution(network).attribute(images, 1), by_hand(lambda v: Passed.apply(v, F.relu)), 1e-9)
    assert_close(LRPTranspose(network, "lrp_0").attribute(images, 1), images * by_hand(F.relu), 1e-9)


class Reordered(nn.Module):
    """A batch norm whose input and whose result are copied to memory in some order of their dimensions."""

    def __init__(self, received: str, returned: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.scales, self.received, self.returned = nn.BatchNorm2d(2), numbers(9), received, returned
        self.norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(self.norm.weight)
        self.double().eval()

    def forward(self, images: Tensor, by_hand: bool = False) -> Tensor:
        images = torch.einsum(f"nchw->{self.received}", images).contiguous()
        images = torch.einsum(f"{self.received}->nchw", images)
        normal = images * (self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()).view(-1, 1, 1)
        normal = normal if by_hand else self.norm(images)
        flat = torch.einsum(f"nchw->{self.returned}", normal).contiguous().flatten(1)
        return (flat * self.scales[: flat.shape[1]]).sum(1)


@pytest.mark.parametrize("orders", [("nchw", "nhwc"), ("nhwc", "nchw")], ids="-".join)
@pytest.mark.parametrize("size", [(1, 2, 2, 2), (2, 2, 1, 3), (2, 2, 3, 1)], ids=str)
def test_batch_norm_reads_a_signal_in_another_order_of_memory(size, orders) -> None:
    network, images = Reordered(*orders), numbers(*size)
    expected = gradient(lambda v: network(v, by_hand=True), images)
    for method in (GuidedBackprop(network), Deconvolution(network)):
        assert_close(method.attribute(images), expected, 1e-9)


# -- recurrent layers --------------------------------------------------------------------------------------------------


def held(function: Activate) -> Activate:
    return lambda values: function(values).detach()


def under(function: type[torch.autograd.Function], activate: Activate) -> Activate:
    return lambda values: function.apply(values, activate)


@pytest.mark.parametrize("of", CELLS)
@pytest.mark.parametrize("options", RECURRENT)
def test_recurrent_layers_are_unrolled_cell_by_cell(options, of) -> None:
    """Guided backprop and deconvnet at every sigmoid and tanh; LRP-all: gates are weights, tanh passes relevance."""
    network, sequences = Recurrent(of, **RECURRENT[options]), numbers(3, 6, 3)
    torch.testing.assert_close(network(sequences), network.by_cells(sequences, torch.sigmoid, torch.tanh))

    def by_hand(sigmoid: Activate, tanh: Activate) -> Tensor:
        return gradient(lambda v: network.by_cells(v, sigmoid, tanh)[:, 1], sequences)

    for method, function in ((GuidedBackprop, Guided), (Deconvolution, Passed)):
        expected = by_hand(under(function, torch.sigmoid), under(function, torch.tanh))
        assert_close(method(network).attribute(sequences, 1), expected, 1e-9)
    expected = sequences * by_hand(held(torch.sigmoid), under(Passing, torch.tanh))
    attribution = LRPTranspose(network, "lrp_0")
    assert_close(attribution.attribute(sequences, 1), expected, 1e-9)
    closed_ledger(attribution, sequences)


@pytest.mark.parametrize("of", CELLS)
def test_a_batch_of_sequences_lies_in_memory_with_the_sequence_first(of) -> None:
    """As PyTorch's own result, of which a network may take a view."""

    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.head = of(3, 4, batch_first=True).double(), nn.Linear(24, 2).double()

        def forward(self, sequences: Tensor) -> Tensor:
            outputs = self.layer(sequences)[0].transpose(0, 1).view(6, -1)
            return self.head(outputs.view(6, len(sequences), 4).transpose(0, 1).flatten(1))

    for attribution in (GuidedBackprop(Viewing()), LRPTranspose(Viewing())):
        assert attribution.attribute(numbers(3, 6, 3), 1).isfinite().all()


class Unrolled(nn.Module):
    """A loop over PyTorch's cells."""

    def __init__(self, of: type[nn.RNNCellBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = of(3, 4), nn.Linear(4, 2)  # type: ignore[call-arg]
        self.double().eval()

    def forward(self, sequences: Tensor) -> Tensor:
        state = None
        for step in sequences.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)

    def by_cells(self, sequences: Tensor, sigmoid: Activate, tanh: Activate) -> Tensor:
        of = {nn.LSTMCell: lstm_cell, nn.GRUCell: gru_cell, nn.RNNCell: rnn_cell}[type(self.cell)]
        state = [sequences.new_zeros(len(sequences), 4)] * 2
        for step in sequences.unbind(1):
            gates = [
                F.linear(step, self.cell.weight_ih, self.cell.bias_ih),
                F.linear(state[0], self.cell.weight_hh, self.cell.bias_hh),
            ]
            state = of(gates, state, sigmoid, tanh)
        return self.head(state[0])


@pytest.mark.parametrize("of", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(of) -> None:
    network, sequences = Unrolled(of), numbers(3, 5, 3)

    def by_hand(sigmoid: Activate, tanh: Activate) -> Tensor:
        return gradient(lambda v: network.by_cells(v, sigmoid, tanh)[:, 1], sequences)

    expected = by_hand(under(Guided, torch.sigmoid), under(Guided, torch.tanh))
    assert_close(GuidedBackprop(network).attribute(sequences, 1), expected, 1e-9)
    expected = sequences * by_hand(held(torch.sigmoid), under(Passing, torch.tanh))
    assert_close(LRPTranspose(network, "lrp_0").attribute(sequences, 1), expected, 1e-9)


MIXTURES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "(1 - z) n + z h": lambda n, h, z: (1 - z) * n + z * h,
    "n + z (h - n)": lambda n, h, z: n + z * (h - n),
    "torch.lerp(n, h, z)": torch.lerp,
    "n.lerp(h, z)": lambda n, h, z: n.lerp(h, weight=z),
    "addcmul": lambda n, h, z: torch.addcmul(n, z, h - n),
}


class GatedUnit(nn.Module):
    """A GRU as people write it."""

    def __init__(self, mix: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.of_input, self.of_state, self.head = nn.Linear(3, 12), nn.Linear(4, 12, bias=False), nn.Linear(4, 2)
        self.mix = mix
        self.double().eval()

    def forward(self, sequences: Tensor, sigmoid: Activate = torch.sigmoid, tanh: Activate = torch.tanh) -> Tensor:
        state = sequences.new_zeros(len(sequences), 4)
        for step in sequences.unbind(1):
            (ri, zi, ni), (rh, zh, nh) = (part.chunk(3, 1) for part in (self.of_input(step), self.of_state(state)))
            candidate = tanh(ni + sigmoid(ri + rh) * nh)
            state = self.mix(candidate, state, sigmoid(zi + zh))
        return self.head(state)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_gates_written_by_hand_are_weights(mixture) -> None:
    network, sequences = GatedUnit(MIXTURES[mixture]), numbers(2, 5, 3)
    multiplier = gradient(lambda v: network(v, held(torch.sigmoid), under(Passing, torch.tanh))[:, 1], sequences)
    assert_close(LRPTranspose(network, "lrp_0").attribute(sequences, 1), sequences * multiplier, 1e-9)
