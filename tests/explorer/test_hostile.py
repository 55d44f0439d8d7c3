"""Files and links that strangers send to the explorer get a sentence or the right picture, never a traceback."""

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
from support.simulator import opened
from torchvision.models import squeezenet1_1

from plugin.explorer.app import PAGES
from plugin.explorer.choices.settings import OWN_OF_B, Settings, from_query
from plugin.explorer.inputs import offered_networks, offered_pictures, own_weights
from plugin.explorer.inputs.own_weights import OwnWeights
from plugin.explorer.server.kept_files import FOLDER_NAME, sent
from plugin.models import pictures

PHOTOGRAPH = offered_pictures.sample("cat").image.resize((48, 32))


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


def upright(orientation):
    """Check a picture that was turned as its file says."""
    way = [None, 0, 3, 1, 5, 4, 6, 2][orientation - 1]  # of `Image.Transpose`; the file says how to turn it back
    right = PHOTOGRAPH if way is None else PHOTOGRAPH.transpose(Image.Transpose(way))
    return lambda pixels: np.abs(pixels.astype(int) - np.asarray(right, int)).mean() < 25


WHOLE = {kind: encoded(PHOTOGRAPH, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")}
GREY16 = Image.fromarray(np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16))
# Three columns of which the middle one is clear, by an index of the palette that stands for nothing.
CLEAR = Image.new("P", (9, 9), 0)
CLEAR.putpalette([255, 0, 0, 0, 0, 255])
CLEAR.paste(1, (3, 0, 6, 9))

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
    "text renamed to a name of 200 letters": b"GIF89" + b"a" * 200,
    "JPEG markers without a picture": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\xff\xd9",
    "TIFF whose directory is itself": b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00",
    "WebP of a huge size": b"RIFF\x1a\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + b"\xff" * 6,
    "PNG whose pixels are no zlib": png(4, 4).replace(zlib.compress(b""), b"x" * len(zlib.compress(b""))),
    "GIF of 65535 x 65535": b"GIF89a\xff\xff\xff\xff\x00\x00\x00",
    "BMP of negative width": WHOLE["BMP"][:18] + struct.pack("<i", -48) + WHOLE["BMP"][22:],
    "PPM of a huge size": b"P6 99999999 99999999 255\n",
    "PPM without end": b"P6 32 32 255\n" + bytes(10),
    "more than 10 MB": b"\x89PNG" + bytes(pictures.MAX_BYTES),
    "values that are not finite": encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
    **{f"truncated {kind}": data[: len(data) // 2] for kind, data in WHOLE.items() if kind not in ("GIF", "TIFF")},
}
# Shown, as people would expect: name, file, size, and a check of the pixels (N, M, 3).
SHOWN = {
    "CMYK": (encoded(PHOTOGRAPH.convert("CMYK"), "JPEG", quality=95), (48, 32), None),
    "16 bits": (encoded(GREY16), (32, 32), lambda pixels: 120 < pixels.mean() < 135),
    "16 bits a colour": (
        png(2, 1, b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 0, 32768), depth=16),
        (2, 1),
        lambda pixels: pixels[0, 0].tolist() == [255, 0, 0] and abs(int(pixels[0, 1, 2]) - 128) < 2,
    ),
    "clear colour of a palette": (
        encoded(CLEAR, transparency=1),
        (9, 9),
        lambda pixels: pixels[4, 4].tolist() == [255, 255, 255] and pixels[4, 1].tolist() == [255, 0, 0],
    ),
    "alpha": (encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0))), (9, 9), lambda pixels: pixels.min() == 255),
    "half alpha": (encoded(Image.new("LA", (9, 9), (0, 128))), (9, 9), lambda pixels: 120 < pixels.mean() < 135),
    "one bit": (encoded(PHOTOGRAPH.convert("1")), (48, 32), lambda pixels: set(np.unique(pixels)) == {0, 255}),
    "palette": (encoded(PHOTOGRAPH.convert("P")), (48, 32), None),
    "one pixel": (encoded(Image.new("RGB", (1, 1), "red")), (1, 1), lambda pixels: pixels[0, 0, 0] == 255),
    "animated GIF": (frames("GIF"), (16, 16), lambda pixels: pixels[8, 8, 0] > 200),
    "animated WebP": (frames("WEBP", lossless=True), (16, 16), lambda pixels: pixels[8, 8, 0] > 200),
    "animated PNG": (frames("PNG"), (16, 16), lambda pixels: pixels[8, 8, 0] > 200),
    "trailing garbage": (WHOLE["JPEG"] + b"<script>" * 99, (48, 32), None),
    **{f"turned by EXIF, {o}": (turned(o), (32, 48) if o > 4 else (48, 32), upright(o)) for o in range(1, 9)},
    "EXIF of nonsense": (turned(99), (48, 32), None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_that_is_no_picture_gets_a_sentence(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"^(The file|The picture) .*[.]$") as caught:
            pictures.decode(REFUSED[name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SHOWN)
def test_unusual_picture_is_shown_as_people_expect(name):
    data, size, holds = SHOWN[name]
    picture = pictures.decode(data)
    assert (picture.mode, picture.size) == ("RGB", size)
    pixels = np.asarray(picture)
    if holds:
        assert holds(pixels)
    elif size == PHOTOGRAPH.size:
        assert np.abs(pixels.astype(int) - np.asarray(PHOTOGRAPH, int)).mean() < 25


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
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", bytes(own_weights.MAX_BYTES + 1))
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
    "zip that unpacks to too much": ("a.pt", zip_bomb),  # made for its test alone: it takes a second
    "header of 2^60 bytes": ("a.safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "header that is no JSON": ("a.safetensors", safetensors_header(b"{" * 64)),
    "offsets beyond the end": (
        "a.safetensors",
        safetensors_header({NAME: {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}),
    ),
    "wrong shapes": ("a.safetensors", save({name: torch.zeros(3) for name in STATE})),
    "one wrong shape": ("a.safetensors", save({**STATE, NAME: torch.zeros(5, 512, 3, 3)})),
    "two numbers of classes": ("a.safetensors", save({**STATE, NAME: torch.zeros(6, 512, 1, 1)})),
    "other names": ("a.safetensors", save({f"layer{i}.weight": value for i, value in enumerate(STATE.values())})),
    "not finite": ("a.safetensors", save({**STATE, NAME: torch.full((5, 512, 1, 1), torch.nan)})),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoint_gets_a_sentence_and_is_not_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file_name, data = BAD_CHECKPOINTS[name]
    data = data() if callable(data) else data
    with pytest.raises(ValueError, match="checkpoint") as caught:
        own_weights.opened("squeezenet1_1", OwnWeights(sent(file_name, data)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    "content", [save(STATE), save({f"module.{name}": value for name, value in STATE.items()})], ids=["name", "prefix"]
)
def test_a_name_or_a_prefix_does_not_matter(content):
    opened = own_weights.opened("squeezenet1_1", OwnWeights(sent("../a.pt", content)))
    assert torch.equal(opened.model.network.state_dict()[NAME], STATE[NAME])


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


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if field.name != "b"])
@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_in_a_link_raises_or_goes_through(name, value):
    settings, notes = from_query({name: value}, ("all-cnn-c",), ("cat",))
    if name in ("layer", "results", "results_beside") and re.fullmatch(r"[\w.-]+", value, re.ASCII):
        # A name that could be: whether there is such a layer is asked where its network is known.
        assert (settings, notes) == (replace(Settings(), **{name: value}), []) or settings == Settings()
        return
    if name == "folder_name" and re.fullmatch(FOLDER_NAME, value):  # folders may be called so
        assert (settings, notes) == (replace(Settings(), folder_name=value), [])
        return
    if (name, value) == ("methods", ""):  # a page on which none is chosen
        assert (settings, notes) == (replace(Settings(), methods=()), [])
        return
    assert settings == Settings()
    assert len(notes) == (value != "" or name != "drawing")
    assert all(note.count("`") == 2 for note in notes)


@pytest.mark.parametrize("differs", OWN_OF_B)
@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_of_b_in_a_link_raises_or_goes_through(differs, value):
    query = {"differs": differs} | {f"b.{name}": value for name in OWN_OF_B[differs]}
    settings, notes = from_query(query, ("all-cnn-c",), ("cat",))
    assert settings == replace(Settings(), differs=differs)
    assert all(note.count("`") == 2 for note in notes)
    assert len(notes) >= 1


# Pages

MARKUP = "<img src=x onerror=alert(1)>"
# Each value could be right, and together they fit nothing.
TOGETHER = {
    "network": offered_networks.DIGITS, "image": "cat", "checkpoint": "", "methods": "guided-grad-cam,lrp-attn-lrp",
    "explain": "neuron", "layer": "body.relu4", "neuron": "127.99.99", "target": "999999", "contrast": "999999",
    "view": "colour", "randomise": "9", "rules": "no.such.layer:box", "preset": "epsilon_gamma_box",
    "generator": "pixels", "span": "channel", "runs": "1", "steps": "1", "count": "50", "ascent": "1",
    "batch": "999999", "results": "none-cpu", "percentile": "50", "opacity": "0",
}  # fmt: skip


@pytest.mark.parametrize("query", [dict.fromkeys([field.name for field in fields(Settings)], MARKUP), TOGETHER])
@pytest.mark.parametrize("path", [page.path for page in PAGES])
def test_page_says_what_a_hostile_link_has_wrong(path, query):
    at = opened(path, **query)
    said = [element.value for element in [*at.warning, *at.error, *at.info]]
    assert said or not path  # the opening page shows its own picture, whatever the link says
    for text in [*said, *(element.value for element in [*at.markdown, *at.caption, *at.subheader])]:
        # A stranger's text stands between backticks only, where Markdown renders nothing.
        assert MARKUP not in re.sub(r"`[^`]*`", "", text)
