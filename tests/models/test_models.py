"""The bundled networks, loading, preprocessing, and training that survives being killed."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.helpers import slow
from torch import nn

from plugin import models
from plugin.attr import Deconvolution, GuidedBackprop
from plugin.experiments import deconvnet
from plugin.experiments.invariance import study_command as invariance
from plugin.models.checkpoints import load_weights, read_metadata, save_checkpoint
from plugin.models.data import CIFAR10_CLASSES, cifar10, normalise
from plugin.models.networks import NETWORKS, KnownNetwork
from plugin.models.preprocessing import CIFAR10_PREPROCESSING
from plugin.models.temporary_batch_norm import add_batch_norm, fold_batch_norm
from plugin.models.train import ClassMapTrainer, Recipe, accuracy, main, train


@pytest.mark.parametrize("name", models.names())
def test_bundled_networks_are_the_papers(name) -> None:
    model = models.load(name)
    convolutions = [m for m in model.network.modules() if isinstance(m, nn.Conv2d)]
    channels = [96, 96, 96, 192, 192, 192, 192, 192, 10] if name == "all-cnn-c" else [96, 96, 192, 192, 192, 192, 10]
    assert [c.out_channels for c in convolutions] == channels
    assert [c.kernel_size[0] for c in convolutions] == [3] * (len(channels) - 2) + [1, 1]
    pools = [m for m in model.network.modules() if isinstance(m, nn.MaxPool2d)]
    strides = [index for index, c in enumerate(convolutions, 1) if c.stride == (2, 2)]
    assert (strides, len(pools)) == (([3, 6], 0) if name == "all-cnn-c" else ([], 2))
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.network.modules())
    with torch.no_grad():
        assert model.network.features(torch.zeros(1, 3, 32, 32)).shape == (1, 10, 6, 6)
    assert not model.network.training
    assert {"seed", "data", "accuracy", "recipe", "history"} <= model.metadata.keys()


@pytest.fixture(scope="module")
def real_test(real_data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """CIFAR-10's 10,000 test images and their labels: to decode them takes seconds."""
    return cifar10(real_data / "cifar10", train=False)


@pytest.mark.parametrize("name", ["all-cnn-c", slow("model-c")])
def test_bundled_networks_are_as_accurate_as_they_say(name, real_test) -> None:
    model = models.load(name)
    images, labels = real_test
    measured = accuracy(model.network, images[:500], labels[:500])
    assert measured == pytest.approx(model.metadata["accuracy"], abs=0.025)


@pytest.mark.parametrize("name", models.names())
def test_the_cat_is_a_cat(name) -> None:
    model = models.load(name)
    cat = model.preprocess(models.sample_images()["cat"])
    assert model.classes[model.network(cat).argmax()] == "cat"


@pytest.mark.parametrize("name", models.names())
def test_pictures_of_the_paper(name) -> None:
    """The deconvnet depends on the image through switches alone; guided backprop always does."""
    model = models.load(name)
    cat, rocket = (model.preprocess(models.sample_images()[image]) for image in ("cat", "rocket"))
    same = Deconvolution(model.network).attribute(cat, 3).equal(Deconvolution(model.network).attribute(rocket, 3))
    assert same == (name == "all-cnn-c")
    guided = GuidedBackprop(model.network)
    assert not torch.allclose(guided.attribute(cat, 3), guided.attribute(rocket, 3))


def test_preprocessing_shows_what_the_network_sees() -> None:
    model = models.load("all-cnn-c")
    for size, mode in itertools.product([(300, 200), (20, 50), (32, 32)], ["RGB", "L", "RGBA", "P"]):
        image = Image.new(mode, size, color=7 if mode in "LP" else None)
        assert model.visible(image).size == (32, 32)
        assert model.preprocess(image).shape == (1, 3, 32, 32)
    cat = models.sample_images()["cat"]
    pixels = torch.from_numpy(np.array(model.visible(cat))).permute(2, 0, 1)[None]
    torch.testing.assert_close(model.preprocess(cat), normalise(pixels))


def test_loading_torchvision_and_own_networks(tmp_path, monkeypatch) -> None:
    random = models.load("resnet18", weights=None)
    assert len(random.classes) == 1000
    assert random.preprocess(models.sample_images()["coffee"]).shape == (1, 3, 224, 224)

    own = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))
    expected = own[1].weight.detach().clone()
    save_checkpoint(tmp_path / "own.safetensors", own, {"seed": 3})
    torch.save({"state_dict": own.state_dict()}, tmp_path / "own.pt")
    nn.init.zeros_(own[1].weight)
    loaded = models.load(own, checkpoint=tmp_path / "own.safetensors", classes=["a", "b"])
    assert loaded.network is own
    assert loaded.classes == ("a", "b")
    torch.testing.assert_close(own[1].weight, expected.half().float())
    models.load(own, checkpoint=tmp_path / "own.pt")
    assert torch.equal(own[1].weight, expected)
    assert read_metadata(tmp_path / "own.safetensors") == {"seed": 3}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", _offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", _offline)
    with pytest.raises(models.WeightsUnavailable, match=r"weights of resnet18 .* connect once, or pass checkpoint="):
        models.load("resnet18")


def _offline(*arguments: object, **options: object) -> None:
    from urllib.error import URLError

    raise URLError("no network")


@pytest.fixture
def without_weights(monkeypatch) -> str:
    """The name of a network that is known and whose weights do not ship."""
    row = KnownNetwork(models.ModelC, CIFAR10_PREPROCESSING, CIFAR10_CLASSES)
    monkeypatch.setitem(NETWORKS, "twin", row)
    return "twin"


def test_a_network_is_known_without_weights(without_weights, tiny_cifar, capsys) -> None:
    assert without_weights not in models.names()
    assert models.known_names() == (*models.names(), without_weights)
    with pytest.raises(
        models.WeightsUnavailable, match=r"^twin ships without weights: train it \(python -m [^)]*twin\)"
    ):
        models.load(without_weights)
    out = tiny_cifar / "run"
    command = [without_weights, "--data", str(tiny_cifar), "--out", str(out), "--epochs", "1", "--batch-size", "5"]
    assert main(command) == 0
    assert read_metadata(out / "twin.safetensors")["architecture"] == without_weights
    model = models.load(without_weights, checkpoint=out / "twin.safetensors")
    assert (model.name, model.classes, model.preprocessing) == ("twin", CIFAR10_CLASSES, CIFAR10_PREPROCESSING)
    assert model.metadata == {"checkpoint": str(out / "twin.safetensors")}
    stored = load_weights(out / "twin.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in model.network.state_dict().items())


def test_a_command_says_that_there_are_no_weights(without_weights, tiny_cifar, capsys) -> None:
    for command in (deconvnet.main, invariance.main):
        assert command([without_weights, "--data", str(tiny_cifar)]) == 2
        assert "error: twin ships without weights" in capsys.readouterr().err


class Executes:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))


def test_bad_names_and_checkpoints_get_one_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="unknown network 'resnet19'"):
        models.load("resnet19")
    with pytest.raises(ValueError, match="not an image classification network"):
        models.load("fcn_resnet50")
    with pytest.raises(ValueError, match="has no weights 'BEST': choose among"):
        models.load("resnet18", weights="BEST")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    torch.save(Executes(), tmp_path / "hostile.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    save_checkpoint(tmp_path / "small.safetensors", nn.Linear(2, 2), {})
    for name in ("broken.safetensors", "hostile.pt", "other.pt", "small.safetensors"):
        with pytest.raises(ValueError, match=name):
            models.load("all-cnn-c", checkpoint=tmp_path / name)
    assert not Path("executed").exists()
    with pytest.raises(FileNotFoundError):
        models.load("all-cnn-c", checkpoint="missing.safetensors")


@pytest.fixture
def tiny_cifar(tmp_path) -> Path:
    """Ten images of noise, one of each class, in CIFAR-10's npz layout."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        images = random.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / f"{split}.npz", images=images, labels=np.arange(10))
    return tmp_path


def test_folding_keeps_the_function(tiny_cifar) -> None:
    torch.manual_seed(0)
    network = add_batch_norm(models.ModelC())
    images = normalise(cifar10(tiny_cifar, train=True)[0])
    network.train()(images)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(fold_batch_norm(network)(images), network(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batches", [slow(1), slow(2), 3], ids=["within an epoch", "between two", "within the second"])
def test_a_killed_run_ends_as_an_unbroken_one(tiny_cifar, batches, monkeypatch) -> None:
    recipe = Recipe("model-c", epochs=2, batch_size=5, seed=5, dropout=(0.1, 0.2))
    whole = train(recipe, tiny_cifar, tiny_cifar / "whole", device="cpu")

    train_batch, begun = ClassMapTrainer.train_batch, []

    def killed(trainer, *arguments):
        begun.append(arguments)
        if len(begun) > batches:
            raise SystemExit
        return train_batch(trainer, *arguments)

    run = ClassMapTrainer.run
    monkeypatch.setattr(ClassMapTrainer, "run", lambda trainer, measure: run(trainer, measure, save_seconds=0))
    with monkeypatch.context() as patch:
        patch.setattr(ClassMapTrainer, "train_batch", killed)
        with pytest.raises(SystemExit):
            train(recipe, tiny_cifar, tiny_cifar / "broken", device="cpu")
    torch.manual_seed(1234)  # whatever the next process does to the global generator
    resumed = train(recipe, tiny_cifar, tiny_cifar / "broken", device="cpu")

    assert [entry["loss"] for entry in resumed["history"]] == [entry["loss"] for entry in whole["history"]]
    first, second = (load_weights(tiny_cifar / run / "model-c.safetensors") for run in ("whole", "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads((tiny_cifar / "whole" / "history.json").read_text())[1]["epoch"] == 2
    with pytest.raises(ValueError, match="is of another training, with epochs=2 instead of 3"):
        train(Recipe("model-c", epochs=3, batch_size=5), tiny_cifar, tiny_cifar / "broken")

    further = Recipe("model-c", epochs=1, batch_size=5, started_from=str(tiny_cifar / "whole" / "model-c.safetensors"))
    metadata = train(further, tiny_cifar, tiny_cifar / "further")
    assert metadata["earlier"]["history"] == whole["history"]


def test_the_command_line_says_what_is_wrong(tmp_path, tiny_cifar, capsys) -> None:
    assert main(["all-cnn-c", "--data", str(tmp_path / "nothing")]) == 2
    assert "no CIFAR-10 in" in capsys.readouterr().err
    out = tmp_path / "run"
    command = ["model-c", "--data", str(tiny_cifar), "--out", str(out), "--epochs", "1", "--batch-size", "5"]
    assert main([*command, "--learning-rate", "nan"]) == 2
    assert "learning_rate=nan: give a finite number above 0" in capsys.readouterr().err
    assert main([*command, "--learning-rate", "1e30", "--batch-size", "4"]) == 2
    assert "lower --learning-rate" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "good")]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_layouts_of_cifar(tmp_path, real_test) -> None:
    images, labels = real_test
    assert images.shape == (10000, 3, 32, 32)
    assert labels.bincount().tolist() == [1000] * 10
    for index in range(4):
        folder = tmp_path / "test" / str(labels[index].item())
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index].permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    again, found = cifar10(tmp_path, train=False)
    assert sorted(found.tolist()) == sorted(labels[:4].tolist()), "by name, though some are missing"
    assert sorted(image.sum().item() for image in again) == sorted(image.sum().item() for image in images[:4].long())
    (folder.parent / "cow").mkdir()
    Image.new("RGB", (32, 32)).save(folder.parent / "cow" / "0.png")
    with pytest.raises(ValueError, match="has the class folder cow: those of CIFAR-10 are called airplane"):
        cifar10(tmp_path, train=False)
