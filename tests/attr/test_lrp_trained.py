"""LRP on trained networks and real photographs: maps of sane size that show the object, also past skip connections."""

import resource

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from plugin import models
from plugin.attr import LRPTranspose
from plugin.rules.presets import PRESETS, epsilon_gamma_box


def rules_for(preset: str, model: models.LoadedModel):
    """The preset, with the box of the network's own inputs."""
    if preset != "epsilon_gamma_box":
        return preset
    steps = model.preprocessing
    low = min((0 - mean) / std for mean, std in zip(steps.mean, steps.std, strict=True))
    high = max((1 - mean) / std for mean, std in zip(steps.mean, steps.std, strict=True))
    return epsilon_gamma_box(low, high)


@pytest.fixture(params=["all-cnn-c", "model-c", "squeezenet1_0"])
def model(request) -> models.LoadedModel:
    if request.param in models.names():
        return models.load(request.param)
    folder = request.getfixturevalue("real_data")
    return models.load(request.param, checkpoint=folder / "imagenet" / "squeezenet1_0_imagenet.safetensors")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_give_sane_maps_of_photographs(preset, model) -> None:
    attribution = LRPTranspose(model.network, rules_for(preset, model))
    # Where a picture takes fifty times as long, as on ImageNet, one of them.
    for name in ("cat", "rocket", "coffee") if model.preprocessing.crop < 100 else ("cat",):
        image = model.preprocess(models.sample_images()[name])
        logit, target = model.network(image).max(1)
        relevance = attribution.attribute(image, target)
        assert relevance.isfinite().all()
        assert 0 < relevance.clamp(min=0).sum() <= 100 * logit.abs()
        ledger = attribution.ledger(image, target)
        assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-3)


@pytest.mark.parametrize("preset", ["epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box", "excitation_backprop"])
def test_relevance_is_on_the_rocket(preset) -> None:
    """The rocket stands in the middle third; the sky beside it is empty."""
    model = models.load("all-cnn-c")
    image = model.preprocess(models.sample_images()["rocket"])
    target = model.network(image).argmax(1)
    relevance = LRPTranspose(model.network, rules_for(preset, model)).attribute(image, target)
    columns = relevance.clamp(min=0).sum(dim=(0, 1, 2))
    assert columns[12:21].mean() > 1.5 * columns[[*range(2, 10), *range(23, 31)]].mean()


class Residual(nn.Module):
    """s(x) + f(x), rectified: both may be negative, and relevance reaches them there; s is x where the sizes agree."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = normalised(channels, out, 3, stride)
        self.second = normalised(out, out, 3)
        self.shortcut = nn.Identity() if stride == 1 else normalised(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.second(F.relu(self.first(x), inplace=True))
        branch += self.shortcut(x)
        return F.relu(branch, inplace=True)


def normalised(channels: int, out: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution and a batch norm."""
    return nn.Sequential(nn.Conv2d(channels, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, Tensor, Tensor]:
    """A small ResNet trained on scikit-learn's digits, and two hundred of them it has not seen."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1
    labels = torch.from_numpy(digits.target)
    torch.manual_seed(0)
    blocks = [Residual(16, 16), Residual(16, 32, stride=2), Residual(32, 32), Residual(32, 64, stride=2)]
    stem = [*normalised(1, 16, 3), nn.ReLU()]
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(6):
        for batch in torch.randperm(1500).split(100):
            loss = F.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    accuracy = (net(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    assert accuracy > 0.85
    return net, images[-200:], labels[-200:]


@pytest.mark.parametrize("preset", ["epsilon_gamma_box", "epsilon_plus_flat", "epsilon_alpha2_beta1"])
def test_skip_connections_of_a_trained_network(preset, resnet) -> None:
    net, images, labels = resnet
    rules = epsilon_gamma_box(-1.0, 1.0) if preset == "epsilon_gamma_box" else preset
    attribution = LRPTranspose(net, rules)
    relevance = attribution.attribute(images, labels)
    logits = net(images).gather(1, labels[:, None]).squeeze(1)
    assert relevance.isfinite().all()
    assert (relevance.clamp(min=0).sum(dim=(1, 2, 3)) <= 100 * logits.abs()).all()
    ledgers = [attribution.ledger(images, labels)]
    ledgers += [attribution.ledger(images[i : i + 1], labels[i : i + 1]) for i in range(5)]  # sums might hide errors
    for ledger in ledgers:
        assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, rel=1e-3)


def test_peak_memory_does_not_grow() -> None:
    network = models.load("all-cnn-c").network
    attribution = LRPTranspose(network, "epsilon_gamma_box")
    images = torch.randn(8, 3, 32, 32)
    for _ in range(5):
        attribution.attribute(images, 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(25):
        attribution.attribute(images, 3)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < 5_000, f"the peak grew by {growth} KiB in 25 calls"
