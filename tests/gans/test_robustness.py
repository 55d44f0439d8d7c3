"""Data in other forms, and files that name their own kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gan import CodeSpaceAM, ImageSpaceAM, PixelAM, scorecard
from gan.__main__ import main
from gan.data import ImageSet
from gan.export import grid, save_gif, save_grid
from gan.maximising import Result
from gan.reals import images_and_labels

# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "found"), [("jpg", "JPEG"), ("JPEG", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
def test_a_grid_is_what_its_name_says(ending: str, found: str, tmp_path: Path) -> None:
    with Image.open(save_grid(torch.rand(4, 1, 8, 8), tmp_path / f"m.{ending}")) as picture:
        assert picture.format == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.ones(2, 1, 4, 4, dtype=torch.int64) * 90,),
            r"images are of torch\.int64: give numbers in \[0, 1\], or uint8",
        ),
        ((torch.rand(2, 1, 4, 4), -1), "columns=-1 and gap=2: give at least one column"),
        ((torch.rand(2, 1, 4, 4), 2, 8, -3), "columns=2 and gap=-3: .* no negative gap"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(*arguments)


@pytest.mark.parametrize("command", [["maximize", "--target", "0"], ["sample"]])
def test_an_ending_that_is_no_picture_is_refused_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan.maximising.CodeSpaceAM.maximize", None)
    assert main([*command, "--out", str(tmp_path / "m.pdf")]) == 2
    assert "m.pdf does not end in a format of pictures: give it one of .png, .jpg" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"m\.png does not end in \.gif"):
        save_gif([torch.rand(1, 1, 4, 4)], tmp_path / "m.png")


def brighter_half(scale: float = 1.0) -> nn.Sequential:
    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0] * 8 + [-1.0] * 8, [-1.0] * 8 + [1.0] * 8]) * scale)
        linear.bias.zero_()
    return nn.Sequential(nn.Flatten(), linear).eval()


def stripes(codes: Tensor) -> Tensor:
    halves = torch.sigmoid(2 * codes[:, :2])
    return halves.repeat_interleave(2, 1).view(-1, 1, 4, 1).expand(-1, 1, 4, 4)


def first_unit(values: Tensor) -> Tensor:
    return values[:, 0]


@pytest.mark.parametrize("target", [1, [0, 1, 1], [(0,), (slice(0, 2),), 1], first_unit])
def test_results_are_saved_as_plain_data(target: Any, tmp_path: Path) -> None:
    """A transform and a generator without a name of their own are no obstacle."""
    am = CodeSpaceAM(brighter_half(), lambda codes: stripes(codes), transform=lambda x: x * 1, code_size=3)
    seeds = {"seeds": [0, 1, 2]}
    result = am.maximize(target, **seeds, steps=5)
    for name in ("runs.png", "runs.NPZ"):  # which would hold neither
        with pytest.raises(ValueError, match="ends in another format than that of results: give a name that ends in"):
            result.save(tmp_path / name)
    path = result.save(tmp_path / "deep" / "result.pt")
    names = set(torch.load(path, weights_only=True))
    assert names >= {"images", "codes", "scores", "targets"}
    assert b"gan" not in path.read_bytes(), "no class of the package is in the file"
    again = Result.load(path, am)
    for name in ("images", "codes", "scores", "reached", "tried"):
        assert torch.equal(getattr(again, name), getattr(result, name))
    assert again.seeds == result.seeds
    assert again.targets == (["first_unit"] * 3 if target is first_unit else result.targets)
    assert Result.load(path).maximizer is None
    (tmp_path / "other.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"other\.pt holds no result"):
        Result.load(tmp_path / "other.pt")


# --- real images ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> tuple[Tensor, Tensor]:
    images = stripes(torch.randn(120, 3, generator=torch.Generator().manual_seed(3)))
    images = (images * 255).round() / 255
    return images, (images[:, 0, 0, 0] < images[:, 0, 3, 0]).long()


class Pictures:
    """As torchvision's data sets: PIL pictures and ints."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.arrays, self.labels = (images * 255).round().byte().numpy()[:, 0], labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.arrays[index]), self.labels[index]


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "uint8": lambda images, labels: ((images * 255).round().byte(), labels),
    "arrays": lambda images, labels: (images.numpy(), labels.numpy()),
    "channels last": lambda images, labels: (images.permute(0, 2, 3, 1).numpy(), labels.tolist()),
    "no channels": lambda images, labels: ((images[:, 0] * 255).round().byte().numpy(), labels.numpy()),
    "image set": lambda images, labels: ImageSet("stripes", (images * 255).round().byte(), labels),
    "loader": lambda images, labels: DataLoader(TensorDataset(images, labels), batch_size=7),
    "data set": TensorDataset,
    "pictures": Pictures,
}


@pytest.mark.parametrize("form", FORMS)
def test_real_images_come_as_people_have_them(form: str, real: tuple[Tensor, Tensor]) -> None:
    images, labels = images_and_labels(FORMS[form](*real), (1, 4, 4))
    torch.testing.assert_close(images, real[0])
    assert labels is not None
    assert torch.equal(labels, real[1])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda images: images * 255, r"values from \S+ to \S+: give them in \[0, 1\]"),
        (lambda images: images * 2 - 1, r"values from -\S+ to \S+: give them in \[0, 1\]"),
        (lambda images: images * float("nan"), "values from nan"),
        (lambda images: nn.functional.interpolate(images, scale_factor=2), r"are \(1, 8, 8\), those .* \(1, 4, 4\)"),
        (lambda images: images[:0], "M above 0"),
        (lambda images: images[0, 0], r"have shape \(4, 4\)"),
        (lambda images: (images, torch.zeros(3)), "120 real images with 3 labels"),
        (lambda images: [images[0], images[0, :, :2]], "are of several sizes"),
        (lambda images: [], "there are no real images"),
    ],
)
def test_real_images_of_another_size_or_range_are_refused(
    form: Callable[[Tensor], Any], message: str, real: tuple[Tensor, Tensor]
) -> None:
    result = CodeSpaceAM(brighter_half(), stripes, code_size=3).maximize(1, runs=2, steps=5)
    with pytest.raises(ValueError, match=message):
        scorecard(result, brighter_half(0.2), form(real[0]), baselines=[])


def test_real_images_of_no_known_form() -> None:
    with pytest.raises(TypeError, match="real images as int: give a tensor"):
        images_and_labels(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_networks_in_half_precision_are_judged(precision: torch.dtype, real: tuple[Tensor, Tensor]) -> None:
    cards = []
    for kind in (torch.float32, precision):
        am = CodeSpaceAM(brighter_half().to(kind), stripes, code_size=3)
        cards.append(scorecard(am.maximize(1, runs=4, steps=10), brighter_half(0.2).to(kind), real))
    for measure, values in cards[0].to_dict().items():
        for method, value in values.items():
            assert cards[1][measure][method] == pytest.approx(value, rel=0.2, abs=0.05), (measure, method)


def test_runs_that_stop_at_what_data_reach_are_judged_and_timed(real: tuple[Tensor, Tensor]) -> None:
    am = CodeSpaceAM(brighter_half(), stripes, code_size=3)
    result = am.maximize([0, 0, 1, 1], seeds=[0, 1, 0, 1], stop_at="data", real=real)
    card = scorecard(result, brighter_half(0.2), real, speed=True)
    assert card["reached"]["maximised"] == 1
    assert card["speedup"]["maximised"] > 0


@pytest.mark.filterwarnings("ignore:2 of 2 runs did not reach")
def test_everything_may_be_made_in_inference_mode(real: tuple[Tensor, Tensor]) -> None:
    classifier = brighter_half()
    with torch.inference_mode():
        for make in (
            lambda: CodeSpaceAM(classifier, stripes, code_size=3),
            lambda: PixelAM(classifier, (1, 4, 4)),
            lambda: ImageSpaceAM(classifier, (1, 4, 4)),
        ):
            result = make().maximize(1, runs=2, steps=5, stop_at=0.999)
            assert (result.scores[-1] > result.scores[0]).all()


def test_a_judge_has_one_row_of_classes(real: tuple[Tensor, Tensor]) -> None:
    result = PixelAM(brighter_half(), (1, 4, 4)).maximize(1, runs=2, steps=5)
    with pytest.raises(ValueError, match="a judge returns one row of classes"):
        scorecard(result, nn.Conv2d(1, 2, 2), real, baselines=[])


def test_scores_of_digits_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "0", "--runs", "2", "--steps", "4", "--baselines", "--out", str(tmp_path)]
    with pytest.warns(UserWarning, match="right for 0% of the real images"):  # they have no margin, as MNIST's have
        assert main(["score", "--data", "digits", *options]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["mnist-judge"]["agreement"]["maximised"] == 1
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng(index).integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{index}.png")
    capsys.readouterr()
    assert main(["score", "--data", str(tmp_path / "pictures"), *options]) == 2
    assert "classifier knows the classes 0, 1, 2 ... (10)" in capsys.readouterr().err
