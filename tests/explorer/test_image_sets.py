"""Sets of images whose files change while pages are open."""

import os
import struct

import numpy as np
import pytest
import torch

from plugin.explorer.inputs import image_sets, picture_collections


def write_cifar10(folder, value):
    images = np.full((3, 32, 32, 3), value, np.uint8)
    np.savez(folder / "test.npz", images=images, labels=np.arange(3))


def write_mnist(folder, value):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    pixels = struct.pack(">IIII", 2051, 3, 28, 28) + bytes([value] * 3 * 28 * 28)
    labels = struct.pack(">II", 2049, 3) + bytes(range(3))
    for split in ("t10k", "train"):  # torchvision looks for both
        (raw / f"{split}-images-idx3-ubyte").write_bytes(pixels)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(labels)


@pytest.mark.parametrize(("name", "write"), [("cifar10", write_cifar10), ("mnist", write_mnist)])
def test_files_that_come_or_change_are_read_anew(name, write, tmp_path, monkeypatch):
    monkeypatch.setattr(image_sets, "folders", lambda: (tmp_path,))
    if name == "mnist":
        (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert not image_sets.available(name)
    states = set()
    for value in (10, 200):
        write(tmp_path, value)
        for file in tmp_path.rglob("*"):  # two writes of one size may fall into one tick of the file system's clock
            os.utime(file, (value, value))
        assert image_sets.available(name)
        pixels, labels = image_sets.pixels_of(name, 3)
        torch.testing.assert_close(pixels, torch.full_like(pixels, value))
        assert labels.tolist() == [0, 1, 2]
        collection = picture_collections.of_image_set(name, False, image_sets.version(name))
        seen = collection.source.read(collection.records[0])
        assert seen == picture_collections.ImageSetSource(name, False).read(collection.records[0])
        states.add(collection.state)
    assert len(states) == 2  # by which pages keep their values
