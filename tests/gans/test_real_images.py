"""Real images in the forms that people have them, and results that are judged by them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from gan import CodeSpaceAM, Result, scorecard
from gan.reals import images_and_labels

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 0, 1, 2, 2])


class Examples(Dataset[Any]):
    def __init__(self, examples: list[Any]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)])


def dictionaries(image: str, label: str) -> Examples:
    return Examples([{image: a, label: int(b)} for a, b in zip(IMAGES, LABELS, strict=True)])


@pytest.mark.parametrize(
    "real",
    [
        dictionaries("image", "label"),
        DataLoader(dictionaries("pixel_values", "labels"), batch_size=4),
        Stream(),
        DataLoader(Stream(), batch_size=4),
        Examples([(image, label, "a/path.png") for image, label in zip(IMAGES, LABELS, strict=True)]),
        (IMAGES, LABELS.unsqueeze(1)),
        (IMAGES, LABELS.double()),
        (IMAGES, LABELS.tolist()),
    ],
    ids=["dictionaries", "batches", "stream", "batches of it", "with paths", "a column", "floats", "a list"],
)
def test_forms_of_real_images(real: Any) -> None:
    images, labels = images_and_labels(real)
    assert torch.equal(images, IMAGES)
    assert labels is not None
    assert (labels.dtype, labels.tolist()) == (torch.int64, LABELS.tolist())


def test_images_without_labels_and_palettes() -> None:
    images, labels = images_and_labels(TensorDataset(IMAGES))
    assert (labels, torch.equal(images, IMAGES)) == (None, True)
    red = Image.new("RGB", (8, 8), "red").quantize(4)
    assert images_and_labels([red])[0][0, :, 0, 0].tolist() == [1, 0, 0], "not the number of the colour"


@pytest.mark.parametrize(
    ("real", "kind", "message"),
    [
        (
            torch.eye(4, dtype=torch.uint8).view(1, 1, 4, 4),
            ValueError,
            "the largest is 1: give them as floats, or times 255",
        ),
        ((IMAGES, ["cat"] * 6), ValueError, "labels such as 'cat': give the number of each one's class"),
        (Examples([(image, "cat") for image in IMAGES]), ValueError, "labels such as 'cat'"),
        ((IMAGES, torch.eye(6)), ValueError, r"labels of shape \(6, 6\): .* such as labels\.argmax\(1\)"),
        ((IMAGES, LABELS + 0.5), ValueError, r"labels such as 0\.5"),
        (Examples([{"photo": image} for image in IMAGES]), TypeError, "dictionaries with photo: name images 'image'"),
        ("photos", TypeError, r"the path photos: read the folder by gan\.data\.read"),
        ({"image": IMAGES}, TypeError, "real images as dict"),
    ],
)
def test_forms_that_say_too_little(real: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        images_and_labels(real)


def test_a_loader_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    images_and_labels(DataLoader(dictionaries("image", "label"), batch_size=2, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def am() -> CodeSpaceAM:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 192), nn.Sigmoid(), nn.Unflatten(1, (3, 8, 8)))
    return CodeSpaceAM(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), generator, code_size=4)


@pytest.mark.filterwarnings("ignore:.*did not reach")
def test_a_unit_has_one_name(am: CodeSpaceAM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed 0 is given twice for target 2"):
        am.maximize([2, -1], seeds=[0, 0], steps=2)
    found = am.maximize([-1, np.int64(1), torch.tensor(0), (np.int64(2),), slice(0, 2)], steps=2)  # type: ignore[list-item]
    assert found.targets == [2, 1, 0, (2,), (slice(0, 2),)]
    assert Result.load(found.save(tmp_path / "r.pt")).targets == found.targets


@pytest.mark.filterwarnings("ignore:.*did not reach")
def test_a_scorecard_says_what_it_lacks(am: CodeSpaceAM, tmp_path: Path) -> None:
    def judge(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * 9 - 4

    result = am.maximize(1, runs=2, steps=2)
    real = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match=r"does not hold its maximizer: load it by Result\.load\(path, maximizer\)"):
        scorecard(Result.load(result.save(tmp_path / "r.pt")), judge, real)  # type: ignore[arg-type]
    card = scorecard(result, judge, real, "best_of_n")  # type: ignore[arg-type]
    assert card.methods == ("maximised", "best_of_n", "real")
    assert "real" not in card["agreement"], "nobody knows the classes of these images"
