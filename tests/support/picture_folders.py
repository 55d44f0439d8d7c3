"""Folders of pictures, some of them bad, a tiny network for them, and the content of stores."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from PIL import Image
from torch import nn

from plugin import models
from plugin.extras import require

from .helpers import with_module

PREPROCESSING = models.Preprocessing(9, 9, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
CLASSES = ("tabby cat", "dog", "truck", "ship", "bird")
BAD = {
    "cat/empty.jpg": "empty",
    "cat/text.jpg": "not a picture",
    "truck/bomb.png": "too many pixels",
    "truck/truncated.png": "truncated",
}


def draw(path: Path, seed: int) -> None:
    """A picture of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed % 5, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def fill(folder: Path, count: int) -> Path:
    """Pictures in two class folders, among them the bad ones."""
    for seed in range(count):
        draw(folder / ("cat" if seed % 2 else "truck") / f"{seed:03}.png", seed)
    data = (folder / "cat" / "001.png").read_bytes()
    (folder / "cat" / "empty.jpg").touch()
    (folder / "cat" / "text.jpg").write_text("no picture")
    (folder / "truck" / "truncated.png").write_bytes(data[: len(data) // 2])
    Image.new("1", (9000, 9000)).save(folder / "truck" / "bomb.png")
    (folder / ".hidden").touch()
    return folder


def network() -> models.LoadedModel:
    """A network for 9 x 9 pixels and five classes."""
    torch.manual_seed(0)
    return models.LoadedModel("tiny", with_module(nn.ReLU()), PREPROCESSING, CLASSES)


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def arrays(store: Path) -> dict[str, Any]:
    """Every array of a store."""
    return {name: array[:] for name, array in zarr.open_group(store, mode="r").arrays()}


def rows_of(out: Path) -> dict[str, Any]:
    """Every column of a folder of Parquet files, as numpy arrays."""
    parquet = require("pyarrow.parquet", extra="datasets", purpose="a test")
    table = parquet.read_table(out).combine_chunks()
    tensors = {"map", "logits"} & set(table.column_names)
    columns = {name: np.array(table.column(name).to_pylist()) for name in set(table.column_names) - tensors}
    return columns | {name: table.column(name).combine_chunks().to_numpy_ndarray() for name in tensors}


def assert_alike(first: Path, second: Path) -> None:
    """Two stores are the same but for rounding."""
    assert_columns_alike(arrays(first), arrays(second))


def assert_columns_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Arrays by name are the same but for rounding."""
    assert one.keys() == other.keys()
    for name, values in one.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, other[name], rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(values, other[name], err_msg=name)
