"""The parts of a report: one self-contained HTML file."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from ..statistics import Quartiles

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; text-align: right }
th { font-weight: 600; border-bottom: 1px solid #999 } th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto } caption { text-align: left; font-weight: 600 }
"""


def page(title: str, introduction: str, body: str) -> str:
    """The whole file; the title is plain text, the rest HTML."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html><html lang="en"><head>{head}</head>'
        f"<body><h1>{html.escape(title)}</h1>{introduction}{body}</body></html>"
    )


def table(
    caption: str,
    columns: Sequence[str],
    lines: Sequence[tuple[str, Sequence[float | Quartiles]]],
    full_shade: float = 1.0,
) -> str:
    """Numbers with two decimals, or their quartiles, one line per layer.

    The shade of a cell grows from 0 to `full_shade`; that of quartiles is the median's.
    """
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    rows = "".join(
        f"<tr><td>{html.escape(layer)}</td>" + "".join(_cell(value, full_shade) for value in values) + "</tr>"
        for layer, values in lines
    )
    return f"<table><caption>{html.escape(caption)}</caption><tr><th>layer</th>{head}</tr>{rows}</table>"


def embedded(picture: Image.Image, description: str) -> str:
    """A picture as part of the file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def _cell(value: float | Quartiles, full_shade: float) -> str:
    number, text = (value.median, str(value)) if isinstance(value, Quartiles) else (value, f"{value:.2f}")
    strength = min(max(number / full_shade, 0.0), 1.0) if number == number else 0.0
    return f'<td style="background: rgba(33, 102, 172, {0.6 * strength:.2f})">{text}</td>'
