"""What strangers send to the explorer, files and links, gets a sentence or the right picture, never a traceback."""

import io
import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torchvision.models import squeezenet1_1

from plugin.explorer import checkpoints, images, state
from plugin.explorer.state import Settings

PHOTOGRAPH = images.sample("cat").image.resize((48, 32))


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, pixels=b"", depth=8, colour=2):
    """A PNG with any header, whether or not its pixels are as many as it says."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def with_text(data):
    """The PNG with a compressed comment that unpacks to 64 MB."""
    bomb = chunk(b"zTXt", b"comment\x00\x00" + zlib.compress(bytes(2**26)))
    return data[:33] + bomb + data[33:]


def frames(kind, **options):
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    return encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(PHOTOGRAPH, "JPEG", exif=exif)


WHOLE = {kind: encoded(PHOTOGRAPH, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")}
GREY16 = Image.fromarray(np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16))

# Refused, each with one sentence.
REFUSED = {
    "zero bytes": b"",
    "one byte": b"\x89",
    "text": b"this is no picture",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%id) (r) file\nshowpage",
    "PDF": b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF",
    "pickle": pickle.dumps({"a": 1}),
    "zip": b"PK\x03\x04" + bytes(100),
    "ELF": b"\x7fELF" + bytes(100),
    "PNG signature only": b"\x89PNG\r\n\x1a\n",
    "PNG without pixels": png(40, 40),
    "PNG of 60000 x 60000": png(60_000, 60_000),
    "PNG of 7000 x 7000": png(7_000, 7_000),
    "PNG of 5000 x 2": png(5_000, 2),
    "PNG with a comment of 64 MB": with_text(WHOLE["PNG"]),
    "PNG of no width": png(0, 40),
    "PNG of 2 billion columns": png(2**31 - 1, 1),
    "PNG of an impossible depth": png(4, 4, bytes(64), depth=3),
    "GIF of 65535 x 65535": b"GIF89a\xff\xff\xff\xff\x00\x00\x00",
    "BMP of negative width": WHOLE["BMP"][:18] + struct.pack("<i", -48) + WHOLE["BMP"][22:],
    "PPM of a huge size": b"P6 99999999 99999999 255\n",
    "PPM without end": b"P6 32 32 255\n" + bytes(10),
    "more than 10 MB": b"\x89PNG" + bytes(images.MAX_BYTES),
    "values that are not finite": encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
    **{f"truncated {kind}": data[: len(data) // 2] for kind, data in WHOLE.items() if kind not in ("GIF", "TIFF")},
}
# Shown, as people would expect: name, file, size, and what must hold of the pixels (N, M, 3).
SHOWN = {
    "CMYK": (encoded(PHOTOGRAPH.convert("CMYK"), "JPEG", quality=95), (48, 32), None),
    "16 bits": (encoded(GREY16), (32, 32), lambda pixels: 120 < pixels.mean() < 135),
    "alpha": (encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0))), (9, 9), lambda pixels: pixels.min() == 255),
    "half alpha": (encoded(Image.new("LA", (9, 9), (0, 128))), (9, 9), lambda pixels: 120 < pixels.mean() < 135),
    "one bit": (encoded(PHOTOGRAPH.convert("1")), (48, 32), lambda pixels: set(np.unique(pixels)) == {0, 255}),
    "palette": (encoded(PHOTOGRAPH.convert("P")), (48, 32), None),
    "one pixel": (encoded(Image.new("RGB", (1, 1), "red")), (1, 1), lambda pixels: pixels[0, 0, 0] == 255),
    "animated GIF": (frames("GIF"), (16, 16), lambda pixels: pixels[8, 8, 0] > 200),
    "animated WebP": (frames("WEBP", lossless=True), (16, 16), lambda pixels: pixels[8, 8, 0] > 200),
    "animated PNG": (frames("PNG"), (16, 16), lambda pixels: pixels[8, 8, 0] > 200),
    "trailing garbage": (WHOLE["JPEG"] + b"<script>" * 99, (48, 32), None),
    **{f"turned by EXIF, {o}": (turned(o), (32, 48) if o > 4 else (48, 32), None) for o in (1, 3, 6, 8)},
    "EXIF of nonsense": (turned(99), (48, 32), None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_that_is_no_picture_gets_a_sentence(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"^(The file|The picture) .*[.]$") as caught:
            images.decode(REFUSED[name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SHOWN)
def test_unusual_picture_is_shown_as_people_expect(name):
    data, size, holds = SHOWN[name]
    picture = images.decode(data)
    assert (picture.mode, picture.size) == ("RGB", size)
    pixels = np.asarray(picture)
    if holds:
        assert holds(pixels)
    elif size == PHOTOGRAPH.size:
        assert np.abs(pixels.astype(int) - np.asarray(PHOTOGRAPH, int)).mean() < 25 or "turned" in name


# Checkpoints


class Attack:
    """Runs a command where a pickle of it is loaded."""

    def __reduce__(self):
        return (open, ("attacked", "w"))


def torch_file(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def zip_bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(checkpoints.MAX_BYTES + 1))
    return file.getvalue()


def safetensors_header(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


STATE = squeezenet1_1(num_classes=5).state_dict()
NAME = "classifier.1.weight"
BAD_CHECKPOINTS = {
    "zero bytes": ("a.pt", b""),
    "text": ("a.pt", b"weights"),
    "text as safetensors": ("a.safetensors", b"weights"),
    "pickle": ("a.pt", pickle.dumps(Attack())),
    "pickle in an archive": ("a.pth", torch_file(Attack())),
    "pickle beside weights": ("a.pth", torch_file({**STATE, "extra": Attack()})),
    "whole module": ("a.pt", torch_file(torch.nn.Linear(2, 2))),
    "list": ("a.pt", torch_file([1, 2, 3])),
    "numbers": ("a.pt", torch_file({"a": 1})),
    "nothing": ("a.pt", torch_file({})),
    "truncated archive": ("a.pt", torch_file(STATE)[:-1000]),
    "truncated safetensors": ("a.safetensors", save(STATE)[:-1000]),
    "zip that unpacks to too much": ("a.pt", zip_bomb()),
    "header of 2^60 bytes": ("a.safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "header that is no JSON": ("a.safetensors", safetensors_header(b"{" * 64)),
    "offsets beyond the end": (
        "a.safetensors",
        safetensors_header({NAME: {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}),
    ),
    "wrong shapes": ("a.safetensors", save({name: torch.zeros(3) for name in STATE})),
    "one wrong shape": ("a.safetensors", save({**STATE, NAME: torch.zeros(5, 512, 3, 3)})),
    "two numbers of classes": ("a.safetensors", save({**STATE, NAME: torch.zeros(6, 512, 1, 1)})),
    "other names": ("a.safetensors", save({f"module.{name}": value for name, value in STATE.items()})),
    "not finite": ("a.safetensors", save({**STATE, NAME: torch.full((5, 512, 1, 1), torch.nan)})),
    "safetensors named .pt": ("a.pt", save(STATE)),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoint_gets_a_sentence_and_is_not_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file_name, data = BAD_CHECKPOINTS[name]
    with pytest.raises(ValueError, match="checkpoint") as caught:
        checkpoints.opened("squeezenet1_1", file_name, data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not Path("attacked").exists()


# Links


HOSTILE = [
    "",
    "-1",
    "9999999999999",
    "nan",
    "1e999",
    "<img src=x onerror=alert(1)>",
    "__import__('os')",
    "\x00",
    "é" * 300,
]


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_in_a_link_raises_or_goes_through(name, value):
    settings, notes = state.from_query({name: value}, ("all-cnn-c",), ("cat",))
    if name in ("layer", "results") and re.fullmatch(r"[\w.-]+", value, re.ASCII):
        # A name that could be: whether there is such a layer is asked where its network is known.
        assert (settings, notes) == (replace(Settings(), **{name: value}), []) or settings == Settings()
        return
    assert settings == Settings()
    assert len(notes) == (value != "" or name != "drawing")
    assert all(note.count("`") == 2 for note in notes)
