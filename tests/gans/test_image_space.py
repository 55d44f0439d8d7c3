"""Natural images: Fourier space, MACO and pixels under random views, objectives, and decoders of autoencoders."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.helpers import assert_unchanged, slow, snapshot
from support.tiny_autoencoder import decoder, encoder
from torch import Tensor, nn
from torchvision.models import squeezenet1_0
from torchvision.transforms.functional import center_crop, gaussian_blur, to_tensor

from gan import CodeSpaceAM, ImageSpaceAM, LatentGenerator, PixelAM
from gan.__main__ import main
from gan.maximising.objectives import Objective, channel, direction, neuron, objective
from gan.maximising.spaces import SPACES, Fourier, Maco, correlated, frequencies, mean_magnitude, uncorrelated
from gan.maximising.views import LUCID, Views

SHAPE = (3, 16, 12)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 4)).eval()


# --- spaces -----------------------------------------------------------------------------------------------------------


def test_uncorrelated_colours_become_those_of_photographs() -> None:
    values = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(uncorrelated(correlated(values)), values)
    brightness = correlated(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)).flatten()
    assert brightness.min() > 0.5, "the first is brightness: red, green and blue together"
    grey = torch.randn(2, 1, 5, 4)
    assert torch.equal(correlated(grey), grey)


@pytest.mark.parametrize("shape", [(3, 16, 12), (1, 7, 9)])
def test_a_fourier_image_is_the_sum_of_its_waves(shape: tuple[int, int, int]) -> None:
    space = Fourier(shape)
    codes = space.start(torch.randn(2, *space.code_shape)) * 30
    spectrum = np.asarray(torch.view_as_complex(codes)) * np.asarray(1 / frequencies(*shape[1:]))
    expected = np.fft.irfft2(spectrum, shape[1:], norm="ortho") / 4
    waves = uncorrelated(space.render(codes).logit())
    torch.testing.assert_close(waves, torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-3)
    assert frequencies(*shape[1:]).max() == pytest.approx(math.hypot(*(n // 2 / n for n in shape[1:])))


@pytest.mark.parametrize("measured", [True, False])
def test_maco_changes_phases_only(measured: bool) -> None:
    photographs = torch.rand(5, 3, 40, 30) if measured else None
    space = Maco(SHAPE, photographs)
    images = space.render(torch.randn(3, *space.code_shape) * torch.tensor([0.1, 1, 9]).view(3, 1, 1, 1))
    assert images.shape == (3, *SHAPE)
    magnitudes = torch.fft.rfft2(uncorrelated(images.logit())).abs()[..., 1:-1]  # the others are real in part
    shares = magnitudes / space.magnitude[..., 1:-1]
    for share in shares:
        torch.testing.assert_close(share, share.mean().expand_as(share), rtol=1e-2, atol=0)


def test_the_magnitudes_of_photographs_are_measured() -> None:
    space, seeds = Fourier(SHAPE), torch.Generator().manual_seed(0)
    codes = 20 * space.start(torch.randn(200, *space.code_shape, generator=seeds))
    magnitude = mean_magnitude(space.render(codes), SHAPE)[:, 1:, 1:-1]
    fall = magnitude * frequencies(*SHAPE[1:])[1:, 1:-1]
    assert fall.std() / fall.mean() < 0.1, "of images made by the law 1 / frequency it is that law"
    with pytest.raises(ValueError, match="do not fit images"):
        mean_magnitude(torch.rand(2, 1, 8, 8), SHAPE)


@pytest.mark.parametrize("shade", [0.0, 0.02, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("side", [16, 224])
def test_photographs_of_one_colour_have_no_magnitudes(shade: float, side: int) -> None:
    plain = torch.full((3, 3, 40, 40), shade)
    with pytest.raises(ValueError, match=r"each of the 3 photographs has a single colour.*give photographs"):
        Maco((3, side, side), plain)


def test_maco_of_one_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no phases to choose in images \(3, 1, 1\) of one pixel: use another space"):
        Maco((3, 1, 1))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("shape", [(3, 16, 12), (1, 9, 9)])
def test_every_space_starts_grey_and_draws_in_range(name: str, shape: tuple[int, int, int]) -> None:
    space = SPACES[name](shape)
    codes = space.start(torch.randn(4, *space.code_shape)).requires_grad_()
    images = space.render(codes)
    assert images.shape == (4, *shape)
    assert 0 < images.min() < images.max() < 1
    assert float(images.detach().mean()) == pytest.approx(0.5, abs=0.05)
    (slope,) = torch.autograd.grad(images.square().sum(), codes)
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0


# --- views ------------------------------------------------------------------------------------------------------------


def randoms(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_views_shift_scale_and_turn() -> None:
    images = torch.rand(3, 3, 20, 20)
    still: dict[str, Any] = {"shift": 0.0, "scale": (1.0, 1.0), "angle": 0.0}
    torch.testing.assert_close(Views(**still).of(images, randoms(3), (20, 20)), images, atol=1e-5, rtol=0)
    for change in (
        {"shift": 0.3},
        {"scale": (0.5, 0.6)},
        {"angle": 30.0},
        {"middle": 0.2},
        {"noise": 0.1},
        {"colour": 0.5},
    ):
        views = Views(**(still | change)).of(images, randoms(3), (20, 20))
        assert (views - images).abs().mean() > 0.03, change
    halves = Views(**(still | {"scale": (0.5, 0.5)})).of(images, randoms(3), (10, 10))
    torch.testing.assert_close(halves, images[:, :, 5:15, 5:15], atol=1e-5, rtol=0)
    away = Views(**(still | {"scale": (3.0, 3.0)})).of(images, randoms(3), (20, 20))
    assert away[:, :, 0, 0].unique().tolist() == [0.5], "outside is grey"
    tinted = Views(**(still | {"colour": 0.5})).of(images, randoms(3), (20, 20))
    for plain, seen in zip(images.flatten(0, 1), tinted.flatten(0, 1), strict=True):
        contrast = seen.std() / plain.std()
        torch.testing.assert_close(seen - seen.mean(), contrast * (plain - plain.mean()), atol=1e-4, rtol=0)
    assert (tinted.mean((2, 3)) - images.mean((2, 3))).std() > 0.1, "each colour by itself"
    one = Views().of(images[1:2], randoms(3)[1:2], (20, 20))
    assert torch.equal(one[0], Views().of(images, randoms(3), (20, 20))[1]), "each by its own generator"


@pytest.mark.parametrize(
    "bad", [{"count": 0}, {"shift": -0.1}, {"colour": -1.0}, {"scale": (0.9, 0.5)}, {"scale": (0.0, 1.0)}]
)
def test_views_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Views(**bad)


# --- the ascent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
def test_runs_climb_by_seed_and_by_themselves(space: str) -> None:
    classifier = network().train()
    before = snapshot(classifier)
    am = ImageSpaceAM(classifier, SHAPE, transform=lambda images: (images - MEAN) / STD, space=space)
    result = am.maximize([0, 1, 2], seeds=[5, 6, 7], steps=40)
    assert_unchanged(before, classifier)
    assert result.images.shape == (3, *SHAPE)
    assert result.scores.shape == (40, 3)
    assert (result.scores[-1] > result.scores[0]).all()
    assert result.probabilities is not None
    assert result.steps_taken.tolist() == [40, 40, 40], "no run is frozen by itself"
    classifier.eval()
    torch.testing.assert_close(result.scores[-1], classifier((result.images - MEAN) / STD).diagonal().detach())
    alone = am.maximize(1, seeds=[6], steps=40)
    torch.testing.assert_close(alone.images[0], result.images[1], atol=1e-4, rtol=0)
    frames = list(am.iterate(1, seeds=[6], steps=40))
    assert torch.equal(frames[-1].images, alone.images)
    assert len(frames) == 40


def test_a_class_can_stop_early_in_image_space() -> None:
    am = ImageSpaceAM(nn.Sequential(network(), nn.Softmax(1)), SHAPE)
    free = am.maximize(0, runs=2, steps=60)
    assert free.stop_at is None
    result = am.maximize(0, runs=2, steps=200, stop_at=float(free.scores[30].min()))
    assert result.reached.all()
    assert result.steps_taken.max() < 200


def test_images_may_be_larger_than_the_classifier_takes() -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).eval()
    am = ImageSpaceAM(fixed, (3, 32, 32), space="maco", input_size=(8, 8))
    result = am.maximize(2, runs=2, steps=30)
    assert result.images.shape == (2, 3, 32, 32)
    assert (result.scores[-1] > result.scores[0]).all()
    again = pickle.loads(pickle.dumps(am)).maximize(2, runs=2, steps=30)
    assert torch.equal(again.images, result.images)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown space 'wavelets': choose one of fourier, maco, pixels"):
        ImageSpaceAM(network(), SHAPE, space="wavelets")
    with pytest.raises(ValueError, match="learning_rate=0"):
        ImageSpaceAM(network(), SHAPE, learning_rate=0)
    with pytest.raises(ValueError, match="is not"):
        ImageSpaceAM(network(), (3, 0, 4))
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\) do not fit"):
        ImageSpaceAM(network(), (1, 8, 8))


# --- objectives -------------------------------------------------------------------------------------------------------

VECTOR = torch.tensor([1.0, -2.0, 0.5])


def cosine(maps: Tensor) -> Tensor:
    return nn.functional.cosine_similarity(maps, VECTOR.view(1, 3, 1, 1), dim=1)


def dot(maps: Tensor) -> Tensor:
    return (maps * VECTOR.view(3, 1, 1)).sum(1)


OBJECTIVES: list[tuple[Objective, Callable[[Tensor], Tensor]]] = [
    (channel(1), lambda maps: maps[:, 1].mean((1, 2))),
    (channel(-1), lambda maps: maps[:, 2].mean((1, 2))),
    (neuron(1), lambda maps: maps[:, 1, 2, 3]),
    (neuron(2, 0, -1), lambda maps: maps[:, 2, 0, 5]),
    (direction(VECTOR), lambda maps: dot(maps).mean((1, 2))),
    (direction(VECTOR, 2.0), lambda maps: (dot(maps) * cosine(maps).clamp(0.1) ** 2).mean((1, 2))),
    (channel(0) + channel(1), lambda maps: maps[:, :2].mean((2, 3)).sum(1)),
    (2 * channel(0) - channel(1) / 4, lambda maps: 2 * maps[:, 0].mean((1, 2)) - maps[:, 1].mean((1, 2)) / 4),
    (-neuron(1, 0, 0) * 3, lambda maps: -3 * maps[:, 1, 0, 0]),
    (channel(0) + (lambda maps: maps.amax((1, 2, 3))), lambda maps: maps[:, 0].mean((1, 2)) + maps.amax((1, 2, 3))),
    ((lambda maps: maps.amax((1, 2, 3))) - channel(0), lambda maps: maps.amax((1, 2, 3)) - maps[:, 0].mean((1, 2))),
]  # fmt: skip


@pytest.mark.parametrize(("found", "expected"), OBJECTIVES)
def test_objectives_are_what_they_say(found: Objective, expected: Callable[[Tensor], Tensor]) -> None:
    maps = torch.randn(4, 3, 5, 6)
    torch.testing.assert_close(found(maps), expected(maps))


def test_objectives_are_targets() -> None:
    net = network()
    for maximizer in (ImageSpaceAM(net, SHAPE, "2"), PixelAM(net, SHAPE, "2")):
        result = maximizer.maximize([channel(1) - channel(2), neuron(3)], seeds=[0, 1], steps=20)
        maps = net[:3](result.images).detach()
        expected = torch.stack([(maps[0, 1] - maps[0, 2]).mean(), maps[1, 3, 4, 3]])
        torch.testing.assert_close(result.scores[-1], expected)
        assert (result.scores[-1] > result.scores[0]).all()
    classes = ImageSpaceAM(net, SHAPE).maximize(channel(2) - 0.5 * channel(1), runs=1, steps=5)
    logits = net(classes.images).detach()[0]
    torch.testing.assert_close(classes.scores[-1, 0], logits[2] - logits[1] / 2)
    assert repr(channel(1)) == repr(channel(1)), "equal objectives are one target"


def test_objectives_that_do_not_fit_are_named() -> None:
    am = ImageSpaceAM(network(), SHAPE, "2")
    for bad, message in (
        (channel(6), r"no channel 6: activations are \(6, 8, 6\)"),
        (neuron(1, 9, 0), r"no position \(9, 0\) in a channel of shape \(8, 6\)"),
        (neuron(1, 2), r"no position \(2,\)"),
        (direction(VECTOR), "a direction of 3 numbers for 6 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            am.maximize(bad, runs=1, steps=2)
    with pytest.raises(TypeError, match="'7' is no objective"):
        channel(1) + "7"  # type: ignore[operator]
    with pytest.raises(TypeError, match="7 is no objective"):
        objective(7)  # type: ignore[arg-type]


# --- decoders of autoencoders -----------------------------------------------------------------------------------------


def test_codes_become_latents_with_the_statistics_of_photographs() -> None:
    random = torch.Generator().manual_seed(0)
    white = torch.randn(300, 4, 12, 12, generator=random)
    scale = frequencies(12, 12) ** -0.7
    smooth = torch.fft.irfft2(torch.fft.rfft2(white) * scale)
    mixing = torch.randn(4, 4, generator=random)
    latents = torch.einsum("ck,nkhw->nchw", mixing, smooth) + torch.tensor([1.0, 0, -2, 5]).view(4, 1, 1)
    generator = LatentGenerator(lambda values: values[:, :3].sigmoid(), latents)
    assert generator.exponent == pytest.approx(0.7, abs=0.05)
    made = generator.latents(torch.randn(300, 4, 12, 12, generator=random))
    rows, own = (values.permute(1, 0, 2, 3).flatten(1) for values in (latents, made))
    torch.testing.assert_close(own.mean(1), rows.mean(1), atol=0.15, rtol=0)
    assert (torch.cov(own) - torch.cov(rows)).norm() < 0.1 * torch.cov(rows).norm()
    alike = [float((values[..., 1:] * values[..., :-1]).mean() / values.square().mean()) for values in (latents, made)]
    assert alike[0] == pytest.approx(alike[1], abs=0.03)
    larger = LatentGenerator(lambda values: values[:, :3].sigmoid(), latents, size=(20, 16))
    assert larger(torch.randn(2, 4, 20, 16)).shape == (2, 3, 20, 16)
    with pytest.raises(ValueError, match="of some tens of photographs"):
        LatentGenerator(lambda values: values, torch.randn(1, 4, 1, 1))


def test_a_decoder_is_a_generator_and_a_space() -> None:
    latents = torch.randn(20, 4, 8, 6)
    generator = LatentGenerator(nn.ConvTranspose2d(4, 3, 2, 2), latents, image_range=(-1, 1))
    result = CodeSpaceAM(network(), generator, candidates=2).maximize(1, runs=2, steps=5, stop_at=0.01)
    assert result.codes.shape == (2, 4, 8, 6)
    torch.testing.assert_close(result.codes.flatten(1).norm(dim=1), torch.full((2,), math.sqrt(4 * 8 * 6)))
    result = ImageSpaceAM(network(), (3, 16, 12), space=generator).maximize(1, runs=2, steps=20)
    assert (result.scores[-1] > result.scores[0]).all()


# --- ImageNet ---------------------------------------------------------------------------------------------------------


CASTLE, FLAMINGO = 483, 130


@pytest.fixture(scope="module")
def squeezenet(real_data: Path) -> nn.Module:
    network = squeezenet1_0()
    network.load_state_dict(load_file(real_data / "imagenet" / "squeezenet1_0_imagenet.safetensors"))
    return network.eval().requires_grad_(False)


def normalise(images: Tensor) -> Tensor:
    return (images - MEAN) / STD


# Views that differ little, in which few steps suffice.
CROPS = Views(count=2, shift=0.0, scale=(0.75, 1.0), angle=0.0, noise=0.02, middle=0.05)


@pytest.mark.parametrize(("space", "views"), [("fourier", LUCID), slow("maco", CROPS)])
def test_an_imagenet_class_is_reached_and_seen_in_views_that_were_not_climbed(
    space: str, views: Views, squeezenet: nn.Module
) -> None:
    am = ImageSpaceAM(squeezenet, (3, 128, 128), transform=normalise, space=space, views=views)
    frames = list(am.iterate([CASTLE, FLAMINGO], seeds=[3, 4], steps=28))
    result = frames[-1]
    logits = squeezenet(normalise(result.images))
    starts = am.render(am.space.start(torch.randn(20, *am.code_shape, generator=torch.Generator().manual_seed(0))))
    best = squeezenet(normalise(starts))[:, [CASTLE, FLAMINGO]].amax(0)
    reached = torch.stack([logits[0, CASTLE], logits[1, FLAMINGO]])
    assert (reached > 8 * best.clamp(min=1)).all()
    assert max(ranks_elsewhere(squeezenet, result.images)) < 5

    for both, alone in zip(frames[:8], am.iterate(FLAMINGO, seeds=[4], steps=28), strict=False):
        torch.testing.assert_close(alone.images[0], both.images[1], atol=1e-4, rtol=0)
    other = am.maximize(FLAMINGO, seeds=[5], steps=8)
    assert (other.images[0] - result.images[1]).abs().mean() > 0.05, "the seed decides"


def test_the_command_writes_images_of_any_network(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--runs", "1", "--steps", "3", "--out", str(tmp_path / "m.png")]
    weights = str(real_data / "imagenet" / "squeezenet1_0_imagenet.safetensors")
    for command in (
        ["--space", "fourier", "--network", "squeezenet1_0", "--weights", weights, "--target", str(CASTLE)],
        ["--space", "maco", "--network", "all-cnn-c", "--layer", "features.conv3", "--target", "3,2,2"],
    ):
        assert main(["maximize", *command, *options]) == 0
        assert "value" in capsys.readouterr().out
    assert main(["maximize", "--space", "fourier", "--target", "3", *options]) == 2
    assert "--space fourier needs --network" in capsys.readouterr().err
    assert main(["maximize", "--network", "all-cnn-c", "--target", "3", *options]) == 2
    assert "--network needs --space" in capsys.readouterr().err


def ranks_elsewhere(squeezenet: nn.Module, images: Tensor) -> list[int]:
    """How many classes come before castle and flamingo in blurred, mirrored and enlarged images."""
    seen = gaussian_blur(images.flip(3), [7, 7], [1.0, 1.0])
    seen = nn.functional.interpolate(seen, (160, 160), mode="bilinear", antialias=True)
    rows = zip(squeezenet(normalise(seen)), (CASTLE, FLAMINGO), strict=True)
    return [int((row > row[label]).sum()) for row, label in rows]


@pytest.mark.slow
def test_what_pixels_alone_reach_is_not_seen_elsewhere(squeezenet: nn.Module) -> None:
    pixel = PixelAM(squeezenet, (3, 128, 128), transform=normalise)
    noise = pixel.maximize([CASTLE, FLAMINGO], seeds=[3, 4], steps=24, least_steps=24)
    assert (noise.scores[-1] > 200).all(), "far beyond any photograph"
    assert sum(ranks_elsewhere(squeezenet, noise.images)) > 50


def test_magnitudes_of_real_photographs_fall_as_maco_assumes(real_data: Path) -> None:
    files = sorted((real_data / "imagenet" / "images").iterdir())[:40]
    photographs = torch.stack([center_crop(to_tensor(Image.open(file).convert("RGB")), [224, 224]) for file in files])
    magnitude, lengths = (
        mean_magnitude(photographs, (3, 224, 224))[:, 1:112, 1:112],
        frequencies(224, 224)[1:112, 1:112],
    )
    for colour in magnitude:
        slope = np.polyfit(lengths.flatten().log().numpy(), colour.flatten().log().numpy(), 1)[0]
        assert slope == pytest.approx(-1.2, abs=0.25)
    space = Maco((3, 224, 224), photographs)
    assert space.render(space.start(torch.randn(1, *space.code_shape))).std() > 0.05


def test_the_decoder_of_a_pretrained_autoencoder(squeezenet: nn.Module, real_data: Path) -> None:
    files = sorted((real_data / "imagenet" / "images").iterdir())[:16]
    photographs = torch.stack([to_tensor(Image.open(file).convert("RGB").resize((64, 64))) for file in files])
    with torch.no_grad():
        latents = encoder(real_data / "taef2")(photographs)
        assert (decoder(real_data / "taef2")(latents) - photographs).abs().mean() < 0.08
        generator = LatentGenerator(decoder(real_data / "taef2"), latents, size=(8, 8))
        made = generator(torch.randn(8, *generator.code_size, generator=torch.Generator().manual_seed(0)))
    assert made.shape == (8, 3, 64, 64)
    assert made.mean() == pytest.approx(float(photographs.mean()), abs=0.1)
    am = ImageSpaceAM(squeezenet, (3, 64, 64), transform=normalise, space=generator)
    result = am.maximize(FLAMINGO, runs=1, steps=16)
    with torch.no_grad():
        best = squeezenet(normalise(made))[:, FLAMINGO].max()
    assert result.scores[-1, 0] > 5 * best
    assert 0.8 < result.codes.std() < 1.3, "codes stay where N(0, I) lies"
