"""The findings of `plugin.experiments.deconvnet` as pictures and as one self-contained HTML file."""

import html
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..figures import as_image
from ..files import replacing, write_text
from ..models import Preprocessing
from ..statistics import Quartiles, quartiles
from .report_page import embedded, page, table
from .unit_findings import NetworkFindings, UnitFinding
from .units import evenly

_TILE, _GAP, _HEADER, _MARGIN = 128, 6, 22, 74
_MOST_DRAWN, _DRAWN = 8, 4  # of more units than the first number, the second is drawn


def write_report(findings: Sequence[NetworkFindings], methods: Sequence[str], folder: Path) -> Path:
    """Write one PNG per layer and `report.html`, which contains them all.

    Args:
        findings: one per network.
        methods: names of the pictures, in the order of the columns.
        folder: the folder of the files; it is made, and files of the same names are replaced.

    Returns:
        The HTML file.
    """
    parts = []
    for found in findings:
        parts.append(_section(found, methods))
        for layer, units in found.layers.items():
            drawn = evenly(units, len(units) if len(units) <= _MOST_DRAWN else _DRAWN)
            picture = draw_layer(drawn, methods, found.model.preprocessing)
            with replacing(folder / f"{found.model.name}-{layer}.png") as partial:
                picture.save(partial, optimize=True)
            parts.append(f"<h3>{html.escape(layer)}</h3>{embedded(picture, f'{found.model.name}, {layer}')}")
    return write_text(folder / "report.html", page(_TITLE, _INTRODUCTION, "".join(parts)))


def draw_layer(units: Sequence[UnitFinding], methods: Sequence[str], preprocessing: Preprocessing) -> Image.Image:
    """One row per unit: the best image and each method's picture, cut to the unit's pixels, with the response."""
    columns = ("best image", *methods)
    size = (_MARGIN + len(columns) * (_TILE + _GAP), _HEADER + len(units) * (_TILE + _HEADER))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for column, name in enumerate(columns):
        draw.text((_MARGIN + column * (_TILE + _GAP), 4), name, fill="#222", font=font)
    for row, unit in enumerate(units):
        top = _HEADER + row * (_TILE + _HEADER)
        draw.text((4, top + _TILE // 2 - 8), textwrap.fill(unit.label, 11), fill="#222", font=font)
        tiles = {"best image": _photograph(unit.image[:, *unit.box].numpy(), preprocessing)}
        tiles |= {name: as_image(unit.pictures[name][:, *unit.box].numpy()) for name in methods}
        for column, name in enumerate(columns):
            left = _MARGIN + column * (_TILE + _GAP)
            sheet.paste(_enlarged(tiles[name]), (left, top))
            if name in unit.response:
                draw.text((left, top + _TILE + 1), f"response {unit.response[name]:.2f}", fill="#555", font=font)
    return sheet


def quartile_table(
    layers: Mapping[str, Sequence[UnitFinding]], methods: Sequence[str], measure: str
) -> list[tuple[str, list[Quartiles]]]:
    """For each layer the quartiles over its units of a measure ("response" or "cosine"), one entry per method."""
    return [
        (layer, [quartiles(getattr(unit, measure)[method] for unit in units) for method in methods])
        for layer, units in layers.items()
    ]


def numbers(found: NetworkFindings) -> dict[str, Any]:
    """The numbers of a network's report, for JSON: by measure, layer and method; quartiles are three numbers."""
    first = _first(found)
    methods = [*first[0].response] if first else []
    conditioned = [*first[0].cosine] if first else []
    by_layer = {
        measure: {
            layer: dict(zip(names, values, strict=True))
            for layer, values in quartile_table(found.layers, names, measure)
        }
        for measure, names in (("response", methods), ("cosine", conditioned))
    }
    units = {layer: len(group) for layer, group in found.layers.items()}
    return {"images": found.images, "units": units, **by_layer, "likeness": found.likeness}


def _photograph(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    shown: np.ndarray = np.rint(255 * np.clip(image * std + mean, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return shown


def _enlarged(pixels: np.ndarray) -> Image.Image:
    """A tile filled by the picture along its longer side."""
    image = Image.fromarray(pixels)
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _section(found: NetworkFindings, methods: Sequence[str]) -> str:
    conditioned = [method for method in methods if all(method in unit.cosine for unit in _first(found))]
    accuracy = found.model.metadata.get("accuracy")
    known = f"test accuracy {accuracy:.2%}, " if accuracy is not None else ""
    likeness = [(layer, [row[method] for method in methods]) for layer, row in found.likeness.items()]
    response, cosine = "Response to the picture over the best response to an image", "Cosine between the pictures from"
    return (
        f"<h2>{html.escape(found.model.name)}</h2><p>{known}{found.images} images, {found.seconds:.0f} seconds.</p>"
        + table(f"{response} (median, quartiles)", methods, quartile_table(found.layers, methods, "response"))
        + table(
            f"{cosine} three images (median, quartiles)",
            conditioned,
            quartile_table(found.layers, conditioned, "cosine"),
        )
        + table(f"{cosine} different units (mean)", methods, likeness)
    )


def _first(found: NetworkFindings) -> Sequence[UnitFinding]:
    return next(iter(found.layers.values()), ())


_TITLE = "The patterns of units: deconvnet with and without an image"
_INTRODUCTION = """
<p>Each row is a unit in the middle of the picture: its best image, cut to the pixels the unit sees, and the pictures of
five methods there; grey is zero. <b>No image</b>: the deconvnet from the weights alone (max-pooling passes its signal
to the middle of the window). <b>Switches</b>: the deconvnet on the best image, max-pooling undone by the image's
switches. <b>No switches</b>: the same without them. <b>Guided</b>: guided backprop. <b>Gradient</b>: the plain one.</p>
<p><b>Response</b>: the unit's response to the picture, scaled to the norm of the best image on those pixels, over its
best response to any image. Near 1 or above, the picture shows the unit's preferred pattern. <b>Cosine</b>: between the
pictures from the unit's three best images (at 1 the image has no influence), and between the pictures of different
units (at 1 all units have the same preferred pattern).</p>
"""
