"""The experiment's measures on networks whose answer is known, and the files that it leaves."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.experiments import deconvnet
from plugin.experiments.deconvnet import METHODS, examine, responses_in_the_middle, run
from plugin.models import LoadedModel
from plugin.models.preprocessing import CIFAR10_PREPROCESSING


def loaded(network: nn.Module, name: str = "net") -> LoadedModel:
    return LoadedModel(name, network.eval(), CIFAR10_PREPROCESSING, ("a", "b"), {"accuracy": 0.5})


@pytest.fixture
def images() -> Tensor:
    return torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3),
    )


def test_a_linear_unit_responds_best_to_its_own_weights(network: nn.Module, images: Tensor) -> None:
    """By Cauchy and Schwarz: the response to w, scaled to |x|, over w x is 1 / cos(w, x)."""
    found = examine(loaded(network), images, layers=["0"], units=3)
    assert [finding.unit for finding in found.units] == [(0, 8, 8), (2, 8, 8), (5, 8, 8)]
    for finding in found.units:
        weight = network[0].weight[finding.unit[0]].detach()
        assert finding.box == (slice(7, 10), slice(7, 10))
        patch = finding.image[:, 7:10, 7:10]
        expected = 1 / float(F.cosine_similarity(weight.flatten(), patch.flatten(), dim=0))
        for method in METHODS:
            torch.testing.assert_close(finding.pictures[method][:, 7:10, 7:10], weight)
            assert finding.response[method] == pytest.approx(expected, rel=1e-4)
        assert all(cosine == pytest.approx(1) for cosine in finding.cosine.values())


def test_likeness_is_the_mean_cosine_between_units(network: nn.Module, images: Tensor) -> None:
    weights = network[0].weight.detach().flatten(1)[[0, 2, 5]]
    pairs = [F.cosine_similarity(weights[one], weights[other], dim=0) for one, other in ((0, 1), (0, 2), (1, 2))]
    likeness = examine(loaded(network), images, layers=["0"], units=3).likeness["0"]
    assert likeness == pytest.approx(dict.fromkeys(METHODS, float(sum(pairs)) / 3), abs=1e-6)


def test_images_matter_only_to_the_methods_that_use_them(network: nn.Module, images: Tensor) -> None:
    for finding in examine(loaded(network), images, layers=["5"]).units:
        assert finding.cosine["no switches"] == pytest.approx(1)
        torch.testing.assert_close(finding.pictures["no image"], finding.pictures["no switches"])
        for method in ("switches", "guided", "gradient"):
            assert finding.cosine[method] < 0.999


def test_best_images_are_those_with_the_largest_response(network: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        maps = network[:4](images)
    values, position = responses_in_the_middle(network, images, batch_size=5)["3"]
    assert position == (4, 4)
    torch.testing.assert_close(values, maps[:, :, 4, 4])
    for finding in examine(loaded(network), images, layers=["3"]).units:
        response = maps[:, finding.unit[0], 4, 4]
        assert finding.best == pytest.approx(float(response.max()))
        assert torch.equal(finding.image, images[response.argmax()])


def test_units_that_never_respond_are_passed_over(network: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        network[3].bias[:4] = -1e6
    found = examine(loaded(network), images, layers=["3"], units=4)
    assert [finding.unit[0] for finding in found.units] == [4]


def test_all_units_are_those_examined_one_by_one(network: nn.Module, images: Tensor) -> None:
    """Units of a layer are examined together; the numbers of each are its own."""
    together = examine(loaded(network), images, layers=["0", "3"], units=None)
    assert {layer: len(units) for layer, units in together.layers.items()} == {
        "0": 6,
        "3": 4,
    }  # one of five responds to no image
    for finding in together.units:
        (alone,) = examine(loaded(network), images, layers=[finding.layer], units=[finding.unit[0]]).units
        assert (alone.unit, alone.box, alone.best) == (finding.unit, finding.box, finding.best)
        assert torch.equal(alone.image, finding.image)
        for method in METHODS:
            torch.testing.assert_close(alone.pictures[method], finding.pictures[method])
            assert alone.response[method] == pytest.approx(finding.response[method], rel=1e-4, abs=1e-5)


def test_the_file_of_numbers_has_the_quartiles_of_all_units(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU())
    (found,) = run([loaded(wide)], [images], tmp_path, layers=1, units=None)
    numbers = json.loads((tmp_path / "findings.json").read_text())["net"]
    assert numbers["images"] == 12
    assert len(found.units) > 8
    assert numbers["units"] == {"0": len(found.units)}
    for method in METHODS:
        exact = np.quantile([unit.response[method] for unit in found.units], (0.25, 0.5, 0.75))
        assert numbers["response"]["0"][method] == pytest.approx(exact.tolist())
    middle = numbers["response"]["0"]["guided"][1]
    assert f"{middle:.2f} (" in (tmp_path / "report.html").read_text()
    with Image.open(tmp_path / "net-0.png") as picture:
        assert picture.size == (74 + 6 * 134, 22 + 4 * 150)  # four of the units


def test_units_of_the_class_maps_have_the_names_of_classes(network: nn.Module, images: Tensor) -> None:
    model = LoadedModel("net", network.eval(), CIFAR10_PREPROCESSING, ("ash", "fir", "oak", "yew"))
    labels = {layer: [unit.label for unit in units] for layer, units in examine(model, images).layers.items()}
    assert set(labels["5"]) <= {"ash", "fir", "oak", "yew"}
    assert all(label.startswith("unit ") for label in labels["0"] + labels["3"])


def test_an_accuracy_is_not_rounded_at_its_last_digit(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    model = LoadedModel("net", network.eval(), CIFAR10_PREPROCESSING, ("a", "b"), {"accuracy": 0.8885})
    run([model], [images], tmp_path, layers=1, units=1)
    assert "test accuracy 88.85%" in (tmp_path / "report.html").read_text()


def test_the_report_is_one_file_that_needs_nothing_else(
    network: nn.Module, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run([loaded(network, "one"), loaded(network[:3], "two")], [images, images], tmp_path / "new", layers=2, units=2)
    assert "layer" in capsys.readouterr().err  # progress
    pictures = sorted(path.name for path in (tmp_path / "new").glob("*.png"))
    assert pictures == ["one-0.png", "one-5.png", "two-0.png"]
    with Image.open(tmp_path / "new" / "one-0.png") as picture:
        assert picture.size == (74 + 6 * 134, 22 + 2 * 150)
        assert len(picture.getcolors(maxcolors=1 << 20)) > 20
    page = (tmp_path / "new" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "test accuracy 50.00%" in page


def test_errors_end_the_command_with_a_sentence(
    network: nn.Module, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        examine(loaded(network), images[:2])
    with pytest.raises(ValueError, match=r"no convolution \['9'\]: choose among 0, 3, 5"):
        examine(loaded(network), images, layers=["9"])
    assert deconvnet.main(["all-cnn-c", "--data", str(tmp_path)]) == 2
    assert "error: no CIFAR-10 in" in capsys.readouterr().err
    assert deconvnet.main(["no-such-network", "--data", str(tmp_path)]) == 2
    assert "unknown network 'no-such-network'" in capsys.readouterr().err


def test_on_a_shipped_network(real_data: Path, tmp_path: Path) -> None:
    """The first and the last convolution of All-CNN-C by the command line."""
    arguments = ["all-cnn-c", "--data", str(real_data / "cifar10"), "--out", str(tmp_path)]
    assert deconvnet.main([*arguments, "--images", "10", "--layers", "2", "--units", "1"]) == 0
    assert len(list(tmp_path.glob("all-cnn-c-*.png"))) == 2
