"""A map as a figure of its own, with a title and a colour bar: PNG and SVG by matplotlib, without a browser."""

import io
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .colours import SIGNED_COLOURS, ZERO_MESSAGE, colour_bar_labels, stops_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In inches, of 72 points.
_WIDTH, _MARGIN, _BAR, _LINE = 4.2, 0.25, 0.11, 0.17
_TITLE_POINTS, _TEXT_POINTS, _TITLE_LETTERS, _TEXT_LETTERS = 11, 8.5, 40, 58
_DOTS_PER_INCH = 240
# Settings of matplotlib are the whole process's, and sessions draw in threads.
_drawing = threading.Lock()


@dataclass(frozen=True)
class TitledMap:
    """A map with its title, quantity and colour bar.

    Attributes:
        picture: its colours as they are drawn, over the photograph if there is one, `(H, W, 3)`.
        limit: the magnitude of the deepest colours, at least 0; 0 says that the map is zero everywhere.
        title: above it; too long lines are broken.
        lines: smaller lines below the title.
        quantity: label of the colour bar, such as "relevance, in units of the logit".
        clipped: whether there are values beyond the limit.
        signed: whether the colours are those of `signed_colours`; those of `as_image` have no bar, but a line.

    >>> import numpy as np
    >>> from plugin import figures
    >>> values = np.random.randn(8, 8)
    >>> titled = figures.TitledMap(figures.signed_colours(values, limit=2.0), 2.0, "LRP", quantity="relevance")
    >>> titled.png()[:4], titled.svg()[:5]
    (b'\\x89PNG', b'<?xml')
    """

    picture: NDArray[np.uint8]
    limit: float
    title: str
    lines: tuple[str, ...] = ()
    quantity: str = ""
    clipped: bool = False
    signed: bool = True

    def png(self) -> bytes:
        """A PNG file, about 1000 pixels wide."""
        return self._saved("png")

    def svg(self) -> bytes:
        """An SVG file, the same for the same map: in it the map is a PNG of its own resolution, and text stays text."""
        return self._saved("svg")

    def _saved(self, kind: str) -> bytes:
        import matplotlib as mpl  # as late as it is needed

        file = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else None
        # A stranger's file or class may be called "$x$", which is no formula.
        style = mpl.rc_context({
            "svg.fonttype": "none", "svg.hashsalt": "titled", "font.size": _TEXT_POINTS, "text.parse_math": False,
        })  # fmt: skip
        with _drawing, style, warnings.catch_warnings():
            # A letter that the font does not have is drawn as a box; SVG keeps it.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            self._draw().savefig(file, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)
        return file.getvalue()

    def _draw(self) -> "Figure":
        from matplotlib.figure import Figure

        title, lines = _wrapped(self.title, _TITLE_LETTERS), _all_wrapped(self.lines)
        below = _all_wrapped([self._reading()])
        wide = _WIDTH - 2 * _MARGIN
        high = wide * self.picture.shape[0] / self.picture.shape[1]
        above = _MARGIN + 1.4 * _LINE * len(title) + _LINE * len(lines)
        bar = 3.9 * _BAR if self._has_bar else _BAR
        total = above + high + bar + _LINE * len(below) + _MARGIN
        figure = Figure(figsize=(_WIDTH, total))
        style: dict[str, Any] = {"va": "top", "linespacing": 1.35}
        figure.text(_MARGIN / _WIDTH, 1 - 0.6 * _MARGIN / total, "\n".join(title), size=_TITLE_POINTS, weight="bold",
                    **style)  # fmt: skip
        top = 0.6 * _MARGIN + 1.4 * _LINE * len(title)
        figure.text(_MARGIN / _WIDTH, 1 - top / total, "\n".join(lines), color="#444", **style)
        map_bottom = total - above - high
        axes = figure.add_axes((_MARGIN / _WIDTH, map_bottom / total, wide / _WIDTH, high / total))
        axes.imshow(self.picture, interpolation="none", aspect="auto")
        axes.set_axis_off()
        if self.limit == 0:
            axes.text(0.5, 0.5, ZERO_MESSAGE, transform=axes.transAxes, ha="center", va="center", size=11,
                      bbox={"facecolor": "white", "edgecolor": "#666"})  # fmt: skip
        if self._has_bar:
            place = (_MARGIN + 0.08 * wide, map_bottom - 1.6 * _BAR, 0.84 * wide, _BAR)
            self._draw_bar(figure, (place[0] / _WIDTH, place[1] / total, place[2] / _WIDTH, place[3] / total))
        reading = _MARGIN + _LINE * len(below)
        figure.text(0.5, reading / total, "\n".join(below), ha="center", **style)
        return figure

    @property
    def _has_bar(self) -> bool:
        return self.signed and self.limit > 0

    def _reading(self) -> str:
        if self.signed or self.limit == 0:
            return self.quantity
        return f"{self.quantity}; grey is zero, full colour ±{self.limit:.2g}".removeprefix("; ")

    def _draw_bar(self, figure: "Figure", place: tuple[float, float, float, float]) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize

        colours = LinearSegmentedColormap.from_list("signed", stops_of(SIGNED_COLOURS) / 255)
        scale = ScalarMappable(Normalize(-self.limit, self.limit), colours)
        bar = figure.colorbar(scale, cax=figure.add_axes(place), orientation="horizontal")
        bar.set_ticks([-self.limit, 0, self.limit], labels=colour_bar_labels(self.limit, self.clipped))
        bar.outline.set_visible(False)


def _all_wrapped(lines: Iterable[str]) -> list[str]:
    return [part for line in lines for part in _wrapped(line, _TEXT_LETTERS)]


def _wrapped(text: str, letters: int) -> list[str]:
    # Characters that cannot be printed are not allowed in XML.
    return wrap("".join(letter for letter in text if letter.isprintable()), letters)
