"""The GANs: networks, data, training that resumes, measures of quality, shipped checkpoints and the command line."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gan import DCGAN, MLPGAN, RECIPES, Recipe, branch_of, load, load_classifier, train, train_classifier
from gan.__main__ import main
from gan.data import ImageSet, read
from gan.judging.generator_quality import (
    evaluate,
    frechet_distance,
    imbalance,
    kernel_distance,
    nearest_distances,
)
from gan.loading import WEIGHTS_FOLDER
from gan.networks import BatchSpread, Smooth
from gan.training.adversarial import Trainer, squared_slope
from gan.training.precision import mixed_precision
from gan.training.recipes import recipe_for
from gan.training.supervised import jitter
from plugin.models.checkpoints import load_weights, read_metadata, save_checkpoint

TINY_MLP = Recipe("mlp", {"hidden": (32, 32), "code_size": 6}, steps=14, batch_size=16)
TINY_DCGAN = Recipe("dcgan", {"width": 8, "code_size": 6}, steps=14, batch_size=16)
TINY = pytest.mark.parametrize("recipe", [TINY_MLP, TINY_DCGAN], ids=["mlp", "dcgan"])


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, ImageSet]:
    return read("digits", train=True), read("digits", train=False)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [MLPGAN, DCGAN])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32)])
def test_images_are_in_range_and_logits_one_per_image(network: type, shape: tuple[int, int, int]) -> None:
    pair = network(image_shape=shape, code_size=12)
    images = pair.generator(3 * torch.randn(5, 12))
    assert images.shape == (5, *shape)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert pair.discriminator(images).shape == (5,)
    assert (pair.generator.code_size, pair.generator.image_shape) == (12, shape)


def test_an_evaluated_generator_treats_each_code_by_itself() -> None:
    generator = DCGAN(code_size=7, width=16).generator.eval()
    codes = torch.randn(4, 7)
    torch.testing.assert_close(generator(codes)[2:3], generator(codes[2:3]))


@pytest.mark.parametrize(
    ("options", "branches"), [({"branches": 4}, 4), ({"branches": 1}, None), ({"classes": 3}, 3)], ids=str
)
def test_the_branch_of_a_code_is_that_of_its_largest_first_entry(options: dict[str, int], branches: int | None) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = MLPGAN((1, 28, 28), code_size=8, hidden=(16,), **options).generator.eval()
    chosen = branch_of(generator)
    codes = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    if branches is None:
        assert chosen is None
    else:
        assert chosen is not None
        assert torch.equal(chosen(codes), codes[:, :branches].argmax(1))
    assert branch_of(nn.Linear(8, 4)) is None


def test_smooth_averages_neighbours() -> None:
    images = torch.randn(2, 3, 6, 5)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    expected = torch.nn.functional.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)
    torch.testing.assert_close(Smooth()(images), expected)
    torch.testing.assert_close(Smooth()(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize(("count", "size", "groups"), [(16, 8, 2), (6, 2, 3), (8, 8, 1), (10, 8, 1), (3, 8, 1)])
def test_spread_is_the_deviation_within_groups(count: int, size: int, groups: int) -> None:
    """Each image is in one group, with the images that many places apart; a batch that does not divide is one group."""
    features = torch.randn(count, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    # So that it matters which images are together.
    features *= torch.linspace(0.1, 5, count).view(-1, 1, 1, 1)
    found = BatchSpread(size)(features)
    assert found.shape == (count, 25)
    torch.testing.assert_close(found[:, :-1], features.permute(0, 2, 3, 1).flatten(1))
    for image in range(count):
        group = [features[other].flatten().tolist() for other in range(count) if other % groups == image % groups]
        assert len(group) == count // groups
        deviations = []
        for values in zip(*group, strict=True):
            mean = sum(values) / len(values)
            deviations.append(math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)))
        assert float(found[image, -1]) == pytest.approx(sum(deviations) / 24, rel=1e-4, abs=2e-4)


@pytest.mark.parametrize(("network", "low", "high"), [(MLPGAN, 0, 3), (DCGAN, -1, 1)])
def test_what_range_a_discriminator_sees(network: type, low: float, high: float) -> None:
    discriminator = network().discriminator
    images = torch.rand(2, 1, 28, 28)
    expected = discriminator.body(low + (high - low) * images).squeeze(1)
    torch.testing.assert_close(discriminator(images), expected)


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 28, 32), (1, 4, 4)])
def test_a_size_the_dcgan_cannot_make_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        DCGAN(image_shape=shape)


@pytest.mark.parametrize("network", [MLPGAN, DCGAN])
def test_networks_that_know_classes(network: type) -> None:
    """The largest of a code's first numbers is its class; a logit for a class is that of any image and the class's."""
    pair = network(image_shape=(3, 8, 8), code_size=6, classes=4).eval()
    codes = torch.tensor([[0.0, 3, 1, 2, 9, 9], [1.0, -1, 0, 0.5, 9, 9]])
    assert pair.generator.labels(codes).tolist() == [1, 0]
    assert network(image_shape=(3, 8, 8), code_size=6).generator.labels(codes) is None
    images, labels = torch.rand(3, 3, 8, 8), torch.tensor([2, 0, 3])
    low, high = pair.discriminator.low, pair.discriminator.high
    outputs = pair.discriminator.body(images * (high - low) + low)
    assert outputs.shape == (3, 5)
    for image, label in enumerate(labels.tolist()):
        expected = outputs[image, 0] + outputs[image, 1 + label]
        torch.testing.assert_close(pair.discriminator(images, labels)[image], expected)
        torch.testing.assert_close(pair.discriminator(images)[image], outputs[image, 0])


# --- data -------------------------------------------------------------------------------------------------------------


def picture(path: Path, size: tuple[int, int] = (8, 8), mode: str = "L", value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


def test_a_folder_with_classes_and_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for index in range(count):
            picture(tmp_path / split / "cat" / f"{index}.png", value=10 + index)
            picture(tmp_path / split / "dog" / f"{index}.png", value=50 + index)
    found = read(tmp_path, train=True)
    assert found.images[:, 0, 0, 0].tolist() == [10, 11, 12, 50, 51, 52]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (found.classes, found.image_shape) == (("cat", "dog"), (1, 8, 8))
    assert len(read(tmp_path, train=False)) == 4


def test_a_plain_folder_is_split_and_one_colour_picture_makes_all_rgb(tmp_path: Path) -> None:
    for index in range(20):
        picture(tmp_path / f"{index:02}.png", value=index, mode="L" if index else "RGB")
    train_set, test_set = read(tmp_path, train=True), read(tmp_path, train=False)
    assert (len(train_set), len(test_set)) == (18, 2)
    assert test_set.images.unique().tolist() == [9, 19]
    assert train_set.image_shape == (3, 8, 8)
    assert train_set.labels is None


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", size=(12, 9))
    with pytest.raises(ValueError, match=r"b\.png has 12 x 9 pixels.*size"):
        read(tmp_path, train=True)
    assert read(tmp_path, train=True, size=28).images.shape == (2, 1, 28, 28)


def test_bad_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor one of mnist"):
        read(tmp_path / "missing", train=True)
    with pytest.raises(FileNotFoundError, match="too few pictures"):
        read(tmp_path, train=True)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no picture in .* can be read: .*broken\.png: The file is not a picture"):
        read(tmp_path, train=True)
    with pytest.raises(ValueError, match="folder='elsewhere' is where mnist, fashion-mnist, cifar10 lie"):
        read("digits", train=True, folder="elsewhere")
    with pytest.raises(ValueError, match="size=0: give the pixels of a side"):
        read("digits", train=True, size=0)
    with pytest.raises(
        FileNotFoundError, match=r"no mnist in .*connect once, or give folder=.*folder that holds MNIST/raw$"
    ):
        read("mnist", train=True, folder=tmp_path)


def test_named_data_can_be_resized() -> None:
    found = read("digits", train=False, size=32)
    assert found.image_shape == (1, 32, 32)
    assert found.classes == tuple("0123456789")


# --- training ---------------------------------------------------------------------------------------------------------


@TINY
def test_a_killed_run_resumes_to_the_bit_same_checkpoint(
    recipe: Recipe, digits: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe, *digits, tmp_path / "unbroken", save_every=5)
    step = Trainer.train_step

    def interrupted(trainer: Trainer) -> dict[str, float]:
        if trainer.step == 8:  # three steps after a checkpoint, and in the middle of a round of the penalty
            raise KeyboardInterrupt
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, *digits, tmp_path / "killed", save_every=5)
    torch.manual_seed(1234)  # whatever the next process does to the global generator
    train(recipe, *digits, tmp_path / "killed", save_every=5)
    unbroken, killed = (tmp_path / name / f"{recipe.architecture}.safetensors" for name in ("unbroken", "killed"))
    assert read_metadata(killed) == read_metadata(unbroken)
    weights = load_weights(unbroken)
    assert all(torch.equal(value, weights[name]) for name, value in load_weights(killed).items())
    for name in ("history.json", "samples.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    assert not list(tmp_path.rglob("*.partial*"))


@TINY
def test_a_conditional_training_tells_the_networks_the_classes(
    recipe: Recipe, digits: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Tensor, Tensor]] = []

    class Watched(Trainer):
        def batch(self) -> tuple[Tensor, Tensor | None]:
            images, labels = super().batch()
            assert labels is not None
            told.append((images.detach().clone(), labels))
            return images, labels

    monkeypatch.setattr("gan.training.adversarial.Trainer", Watched)
    arguments = {**recipe.arguments, "code_size": 12}
    train(replace(recipe, arguments=arguments, steps=3, conditional=True), *digits, tmp_path)
    values, classes = digits[0].values(), digits[0].labels
    assert classes is not None
    for images, labels in told:
        for image, label in zip(images, labels.tolist(), strict=True):
            same = (values == image).flatten(1).all(dim=1)
            assert label in classes[same].tolist()
    generator = load(tmp_path / f"{recipe.architecture}.safetensors").generator
    assert generator.classes == 10
    assert generator.labels(torch.eye(10, 12)).tolist() == list(range(10))  # type: ignore[union-attr]


def test_a_conditional_training_needs_classes(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    plain = ImageSet("plain", digits[0].images)
    with pytest.raises(ValueError, match="plain has no classes"):
        train(replace(TINY_MLP, conditional=True), plain, plain, tmp_path)


def test_half_of_the_photographs_are_mirrored(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    data = ImageSet("noise", torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8, generator=random))
    image = data.values()[0]
    for mirror in (True, False):
        images, _ = Trainer(replace(TINY_DCGAN, batch_size=200, mirror=mirror), data, tmp_path).batch()
        straight = (images == image).flatten(1).all(dim=1)
        turned = (images == image.flip(2)).flatten(1).all(dim=1)
        assert bool((straight ^ turned).all())
        assert 70 < int(turned.sum()) < 130 if mirror else not turned.any()


def test_photographs_have_a_recipe_of_their_own() -> None:
    assert recipe_for("dcgan", "cifar10").conditional
    assert recipe_for("dcgan", "a-folder") == recipe_for("dcgan", "mnist") == RECIPES["dcgan"]
    assert recipe_for("mlp", "cifar10") == RECIPES["mlp"]


def test_the_seed_decides(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    first, again, other = (
        train(replace(TINY_MLP, seed=seed), *digits, tmp_path / name)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first["scores"] == again["scores"] != other["scores"]


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_checkpoint(
    digits: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = Trainer.codes
    monkeypatch.setattr(Trainer, "codes", lambda self: codes(self) * (math.nan if self.step == 8 else 1))
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 9.*checkpoint of .* stays"):
        train(TINY_MLP, *digits, tmp_path, save_every=5)
    monkeypatch.undo()
    saved = torch.load(tmp_path / "training.pt", weights_only=True)
    assert saved["state"]["step"] == 5
    assert all(value.isfinite().all() for value in saved["state"]["network"].values())
    assert train(TINY_MLP, *digits, tmp_path)["steps"] == TINY_MLP.steps


def test_a_folder_with_another_run_is_refused(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    train(TINY_MLP, *digits, tmp_path)
    before = (tmp_path / "training.pt").read_bytes()
    with pytest.raises(ValueError, match="is of another training, with seed=0 instead of 5"):
        train(replace(TINY_MLP, seed=5), *digits, tmp_path)
    assert (tmp_path / "training.pt").read_bytes() == before


def test_the_penalty_is_the_squared_slope() -> None:
    weight = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    images = torch.rand(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    logits = (weight * images.square()).sum(dim=(1, 2, 3))
    penalty = squared_slope(logits, images)
    expected = (2 * weight * images).square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(torch.autograd.grad(penalty, weight), torch.autograd.grad(expected, weight))


def test_the_penalty_is_added_every_few_steps_with_as_many_times_its_weight(
    digits: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(TINY_MLP, penalty=0.7, penalty_every=3, precision="float32")
    slopes: list[float] = []
    totals: list[float] = []

    def measured(logits: Tensor, images: Tensor) -> Tensor:
        slope = squared_slope(logits, images)
        slopes.append(slope.item())
        return slope

    class Watched(Trainer):
        def apply(self, loss: Tensor, optimizer: torch.optim.Optimizer, name: str) -> None:
            if name == "discriminator":
                totals.append(loss.item())
            super().apply(loss, optimizer, name)

    monkeypatch.setattr("gan.training.adversarial.squared_slope", measured)
    trainer = Watched(recipe, digits[0], tmp_path)
    losses = [trainer.train_step()["discriminator"] for _ in range(8)]
    added = [total - loss for total, loss in zip(totals, losses, strict=True)]
    expected = [0.7 * 3 / 2 * slopes.pop(0) if step % 3 == 0 else 0.0 for step in range(8)]
    assert not slopes
    assert added == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert added[0] > 1e-4


def test_training_approaches_the_data(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    recipe = replace(TINY_MLP, arguments={"hidden": (64, 64), "code_size": 8}, batch_size=32)
    short, long = (
        train(replace(recipe, steps=steps), *digits, tmp_path / str(steps), save_every=1000) for steps in (2, 500)
    )
    generators = [load(tmp_path / str(steps) / "mlp.safetensors").generator for steps in (2, 500)]
    means = [generator(torch.randn(300, 8)).mean(0) for generator in generators]
    target = digits[0].values().mean(0)
    untrained, trained = ((mean - target).norm() for mean in means)
    assert trained < untrained / 4
    assert long["scores"]["nearest_train"] < short["scores"]["nearest_train"]


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_only_where_the_processor_computes_with_it(
    wanted: bool, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan.training.precision.computes_in_bfloat16", lambda: able)
    with mixed_precision(wanted):
        product = torch.randn(3, 3) @ torch.randn(3, 3)
    assert product.dtype == (torch.bfloat16 if wanted and able else torch.float32)


@TINY
def test_without_bfloat16_the_recipe_trains_in_float32(
    recipe: Recipe, digits: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipe.precision == "bfloat16"
    trained = {}
    for name, precision, able in (
        ("float32", "float32", True),
        ("unable", "bfloat16", False),
        ("able", "bfloat16", True),
    ):
        monkeypatch.setattr("gan.training.precision.computes_in_bfloat16", lambda able=able: able)
        train(replace(recipe, steps=3, precision=precision), *digits, tmp_path / name)
        trained[name] = load_weights(tmp_path / name / f"{recipe.architecture}.safetensors")
    assert all(torch.equal(value, trained["unable"][name]) for name, value in trained["float32"].items())
    assert not all(torch.equal(value, trained["able"][name]) for name, value in trained["float32"].items())


def test_a_checkpoint_says_what_made_it(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    metadata = train(TINY_DCGAN, *digits, tmp_path)
    loaded = load(tmp_path / "dcgan.safetensors")
    assert loaded.scores == metadata["scores"]
    assert {"architecture", "data", "seed", "steps", "recipe", "history"} <= loaded.metadata.keys()
    assert not any(parameter.requires_grad for parameter in loaded.generator.parameters())
    assert not loaded.generator.training
    assert not loaded.discriminator.training
    assert loaded.generator(torch.randn(3, 6)).shape == (3, 1, 8, 8)


def test_a_classifier_learns_and_is_stored(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    metadata = train_classifier(tmp_path / "judge.safetensors", *digits, kind="judge", epochs=2, seed=3)
    judge = load_classifier(tmp_path / "judge.safetensors")
    test = digits[1]
    right = (judge(test.values()).argmax(1) == test.labels).double().mean()
    assert judge.accuracy == metadata["accuracy"] == pytest.approx(float(right), abs=1e-9)
    assert right > 0.5
    images = test.values()[:4]
    torch.testing.assert_close(judge.head(judge.features(images)), judge(images))
    unlabelled = ImageSet("plain", test.images)
    with pytest.raises(ValueError, match="no classes to learn"):
        train_classifier(tmp_path / "none.safetensors", unlabelled, unlabelled)


def test_jitter_turns_scales_and_shifts_each_image() -> None:
    """Where three spots of a square image go tells the map: up to 12 degrees, 10 % of the size and of the sides."""
    count, side = 400, 61
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    spots = torch.tensor([[-12.0, -9], [12, -3], [2, 12]])  # from the middle, down and right
    down, right = (spots[:, axis, None, None] + (side - 1) / 2 for axis in (0, 1))
    drawn = torch.exp(-((rows - down) ** 2 + (columns - right) ** 2) / (2 * 2.0**2))
    moved = jitter(drawn.expand(count, 3, side, side), torch.Generator().manual_seed(0))
    weight = moved / moved.sum((2, 3), keepdim=True)
    places = torch.stack([(weight * rows).sum((2, 3)), (weight * columns).sum((2, 3))], 2) - (side - 1) / 2

    # place = A spot + shift, with A = factor * rotation.
    one = torch.cat([spots, torch.ones(3, 1)], 1)
    solved = torch.linalg.solve(one.expand(count, 3, 3), places)
    linear, shift = solved[:, :2].mT, solved[:, 2]
    torch.testing.assert_close(linear[:, 0, 0], linear[:, 1, 1], atol=0.01, rtol=0)
    torch.testing.assert_close(linear[:, 0, 1], -linear[:, 1, 0], atol=0.01, rtol=0)
    angle = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    scale = 1 / torch.linalg.det(linear).sqrt()
    # The shift is of the picture that is looked at, before it is turned and scaled back.
    share = torch.linalg.solve(linear, shift) / side
    for values, bound in ((angle, 12.0), (scale - 1, 0.1), (share[:, 0], 0.1), (share[:, 1], 0.1)):
        assert bound * 0.95 < values.max() < bound * 1.02
        assert bound * 0.95 < -values.min() < bound * 1.02
        assert abs(float(values.mean())) < bound / 8, "to either side alike"
    table = torch.corrcoef(torch.stack([angle, scale, share[:, 0], share[:, 1]])) - torch.eye(4)
    assert table.abs().max() < 0.2, "each by itself"
    torch.testing.assert_close(
        jitter(torch.ones(9, 1, 5, 5), torch.Generator().manual_seed(0)).amax(), torch.tensor(1.0)
    )
    assert jitter(torch.ones(99, 1, 5, 5), torch.Generator().manual_seed(0)).amin() < 0.7, "outside is 0"


# --- quality ----------------------------------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians() -> None:
    """Sets with exactly diagonal covariance: the distance is |m1 - m2|^2 + |s1 - s2|^2."""

    def spread(mean: Tensor, deviation: Tensor) -> Tensor:
        axes = torch.diag(deviation * math.sqrt((2 * len(mean) - 1) / 2))
        return mean + torch.cat([axes, -axes])

    means, deviations = torch.randn(2, 5, dtype=torch.float64), torch.rand(2, 5, dtype=torch.float64) + 0.1
    first, second = (spread(mean, deviation) for mean, deviation in zip(means, deviations, strict=True))
    expected = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)


def test_the_kernel_distance_of_all_features_is_that_of_its_formula() -> None:
    """With one subset that holds everything there is no chance: means over pairs, different ones within a set."""
    first, second = (torch.randn(count, 5, dtype=torch.float64) for count in (12, 12))
    one, other, mixed = ((a @ b.T / 5 + 1) ** 3 for a, b in ((first, first), (second, second), (first, second)))
    within = sum((kernel.sum() - kernel.trace()) / (12 * 11) for kernel in (one, other))
    found = kernel_distance(first, second, subsets=1)
    assert found == pytest.approx(float(within - 2 * mixed.mean()))


def test_the_kernel_distance_depends_on_its_seed_alone_and_is_small_for_one_distribution() -> None:
    first, second = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    found = kernel_distance(first, second, seed=3, subset_size=50)
    assert torch.equal(torch.get_rng_state(), state)
    assert kernel_distance(first, second, seed=3, subset_size=50) == found
    assert abs(found) < 0.1 * kernel_distance(first, second + 1, seed=3, subset_size=50)


def test_imbalance_is_the_missing_entropy() -> None:
    assert imbalance(torch.eye(4).repeat(3, 1)) == pytest.approx(0, abs=1e-12)
    assert imbalance(torch.eye(4)[[2, 2, 2]]) == pytest.approx(math.log(4))
    halves = torch.eye(4)[[0, 1]]
    assert imbalance(halves) == pytest.approx(math.log(2))


def test_nearest_distances_against_a_loop() -> None:
    images, references = torch.rand(7, 1, 4, 4), torch.rand(11, 1, 4, 4)
    expected = torch.stack([min((image - other).norm() for other in references) for image in images])
    torch.testing.assert_close(nearest_distances(images, references, chunk=3), expected)


class Replay(nn.Module):
    """A generator that returns given images one after the other."""

    code_size = 2

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images, self.at = images, 0

    def forward(self, codes: Tensor) -> Tensor:
        rows = (self.at + torch.arange(len(codes))) % len(self.images)
        self.at += len(codes)
        return self.images[rows]


def test_a_generator_that_remembers_is_found_out(digits: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    train_classifier(tmp_path / "judge.safetensors", *digits, kind="judge", epochs=1)
    judge = load_classifier(tmp_path / "judge.safetensors")
    scores = evaluate(Replay(digits[0].values()), *digits, judge)  # type: ignore[arg-type]
    assert scores["nearest_train"] == pytest.approx(0, abs=1e-2)
    assert scores["nearest_train_of_test"] > 0.5
    assert scores["fid_ratio"] == pytest.approx(1, rel=1e-3)
    single = evaluate(Replay(digits[0].values()[:1]), *digits, judge)  # type: ignore[arg-type]
    assert single["imbalance"] == pytest.approx(math.log(10))
    assert single["fid_ratio"] > 5


# --- shipped weights --------------------------------------------------------------------------------------------------


# The targets are 30 and 10.
@pytest.mark.parametrize(("name", "ratio"), [("gan-mnist", 18), ("dcgan-mnist", 4.5)])
def test_shipped_generators(name: str, ratio: float) -> None:
    loaded = load(name)
    assert (WEIGHTS_FOLDER / f"{name}.safetensors").stat().st_size <= 3_000_000
    images = loaded.generator(torch.randn(16, loaded.generator.code_size, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (16, 1, 28, 28)
    assert loaded.metadata["data"] == "mnist"
    assert loaded.scores["fid_ratio"] <= ratio
    assert loaded.scores["imbalance"] <= 0.05
    assert loaded.scores["nearest_train"] >= loaded.scores["nearest_train_of_test"]


@pytest.mark.parametrize("name", ["mnist-classifier", "mnist-judge"])
def test_shipped_classifiers_read_real_digits(name: str, real_data: Path) -> None:
    classifier = load_classifier(name)
    test = read("mnist", train=False, folder=real_data)
    images, labels = test.values()[:1000], test.labels
    assert labels is not None
    assert classifier.accuracy > 0.99
    assert (classifier(images).argmax(1) == labels[:1000]).double().mean() > 0.98


def test_unknown_and_unfit_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no GAN 'none': give a file .*, or one of dcgan-cifar10, dcgan-mnist"):
        load("none")
    with pytest.raises(FileNotFoundError, match=r"no classifier 'none': give a file .*, or one of cifar10-judge"):
        load_classifier("none")
    with pytest.raises(ValueError, match="holds no classifier"):
        load_classifier("dcgan-mnist")
    save_checkpoint(tmp_path / "mlp.safetensors", torch.nn.Linear(2, 2), {"architecture": "mlp"})
    save_checkpoint(
        tmp_path / "judge.safetensors",
        torch.nn.Linear(2, 2),
        {"architecture": "judge", "image_shape": (1, 8, 8), "classes": ("a", "b"), "accuracy": 1.0},
    )
    for loader, name in ((load, "mlp"), (load_classifier, "judge")):
        with pytest.raises(ValueError, match=f"{name}.safetensors is no checkpoint of this version.*train it again"):
            loader(tmp_path / f"{name}.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"is not a \.safetensors checkpoint .*: give a file"):
        load(tmp_path / "broken.safetensors")


# --- command line -----------------------------------------------------------------------------------------------------


def test_train_and_sample_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    common = ["--data", "digits", "--out", str(out)]
    assert main(["train", *common, "--network", "judge", "--epochs", "1"]) == 0
    judge = str(out / "judge.safetensors")
    assert main(["train", *common, "--network", "mlp", "--steps", "3", "--batch-size", "8", "--judge", judge]) == 0
    assert "fid_ratio" in capsys.readouterr().out
    grid = tmp_path / "grid.png"
    assert main(["sample", "--gan", str(out / "mlp.safetensors"), "--count", "9", "--out", str(grid)]) == 0
    with Image.open(grid) as image:
        assert image.size == (3 * 10 + 2, 3 * 10 + 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "no/such/folder"], "neither a folder"),
        (["train", "--data", "digits", "--size", "30", "--network", "dcgan"], "multiple of 4"),
        (["train", "--data", "digits", "--judge", "mnist-judge", "--network", "mlp"], "does not take images (1, 8, 8)"),
        (["train", "--data", "digits", "--network", "judge", "--steps", "3"], "--steps is of a GAN"),
        (["train", "--data", "digits", "--network", "mlp", "--epochs", "3"], "--epochs is of a classifier"),
        (["sample", "--gan", "nothing"], "no GAN 'nothing'"),
        (["sample", "--count", "0"], "--count must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_package_is_a_command() -> None:
    shown = subprocess.run([sys.executable, "-m", "gan", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(name in shown for name in ("train", "sample", "maximize", "score"))
