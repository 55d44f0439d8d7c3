"""Maps with a title and a colour bar, as files."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

from plugin import figures

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(8, 6))
LIMIT = figures.symmetric_limit([MAP], 90)
COLOURS = figures.signed_colours(MAP, LIMIT)
TEXT = "{http://www.w3.org/2000/svg}text"


def svg(title="Gradient", **more):
    data = figures.TitledMap(COLOURS, **{"limit": LIMIT, "title": title} | more).svg()
    return ET.fromstring(data), data


def words(root):
    return " ".join("".join(text.itertext()) for text in root.iter(TEXT))


def pictures(data):
    found = re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", data.decode())
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in found]


def test_svg_says_what_the_map_is_and_holds_its_pixels():
    root, data = svg(lines=("class 3, cat", "all-cnn-c"), quantity="relevance, in units of the logit", clipped=True)
    said = words(root)
    for part in ("Gradient", "class 3, cat", "all-cnn-c", "relevance, in units of the logit"):
        assert part in said
    assert f"≤ -{LIMIT:.2g}" in said
    assert f"≥ {LIMIT:.2g}" in said
    # The backend of matplotlib turns pictures upside down, and back by a transformation.
    assert any(np.array_equal(COLOURS, each) or np.array_equal(COLOURS[::-1], each) for each in pictures(data))
    assert svg("Gradient")[1] == svg("Gradient")[1] != svg("Other")[1]


def test_names_of_strangers_stay_names():
    name = "<script>&\"' $\\frac{1 %s é 中 \x00\x1b" + "x" * 200
    root, _ = svg(name, lines=(name,), quantity=name)
    said = words(root).replace(" ", "")
    assert said.count("<script>&\"'$\\frac{1%sé中") == 3
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_png_shows_the_colours_of_the_map_and_both_ends_of_the_bar():
    image = np.asarray(Image.open(io.BytesIO(figures.TitledMap(COLOURS, LIMIT, "x").png())).convert("RGB"))
    assert 900 < image.shape[1] < 1100
    seen = {tuple(pixel) for pixel in image.reshape(-1, 3)[::3].tolist()}
    assert {tuple(pixel) for pixel in COLOURS.reshape(-1, 3).tolist()} <= seen
    ends = figures.signed_colours(np.array([[-1.0, 1.0]]), 1).reshape(-1, 3)
    for end in ends:
        # Below the map, whose lower edge is within the last fifth of the file.
        assert (np.abs(image[-image.shape[0] // 5 :].astype(int) - end).max(-1) <= 2).any()


def test_colour_pictures_and_zero_maps_have_no_bar_and_say_why():
    picture = figures.as_image(RNG.normal(size=(3, 8, 6)), limit=0.5)
    said = words(ET.fromstring(figures.TitledMap(picture, 0.5, "x", quantity="signal", signed=False).svg()))
    assert "signal; grey is zero, full colour ±0.5" in said
    zero = words(svg(limit=0.0)[0])
    assert figures.ZERO_MESSAGE in zero
    assert "-0" not in zero
