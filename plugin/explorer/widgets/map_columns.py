"""Maps side by side on a page: each with what it took and its files, and below them how to have them again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st
from numpy.typing import NDArray

from plugin import figures

from ..choices.offered_methods import METHODS
from ..inputs.subject import Subject
from ..maps import map_names, map_programs, rendering
from ..maps.answers import Result
from ..maps.questions import Asked, Question
from ..maps.unit_pictures import Box
from ..server.download_button import download_button
from ..server.meter import COST, cost
from ..settings import Settings
from . import chart_options, kept_results, map_badges, page_state
from .page_state import key


@dataclass(frozen=True)
class Shown:
    """A map on the page.

    Attributes:
        settings: how it is drawn.
        asked: what it answers.
        result: the answer.
        limit: where its colours end.
    """

    settings: Settings
    asked: Asked
    result: Result
    limit: float

    @property
    def question(self) -> Question:
        """What is asked."""
        return self.asked.question

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.asked.subject

    @property
    def label(self) -> str:
        """The method, for people, and whether its rules were changed."""
        return map_names.title(self.question)

    @property
    def file(self) -> str:
        """The name of its files without their ending."""
        return map_names.map_file(self.asked, self.settings, self.limit)

    @property
    def name(self) -> str:
        """Tells the maps of a page apart, and is fit for a key."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", f"{self.settings.network}-{self.question.method}")


def map_column(
    shown: Shown,
    height: int,
    note: str = "",
    focus: Box | None = None,
    more: Mapping[str, NDArray[Any]] | None = None,
    several: bool = False,
    read: bool = False,
) -> None:
    """One map with what it took, and its files.

    Args:
        shown: the map.
        height: of the figure in pixels.
        note: Markdown beneath it.
        focus: the rows and columns to which the figure is zoomed; None shows all.
        more: arrays that its NPZ file holds too.
        several: whether the page has maps of several networks.
        read: whether the meaning of its colours stands beneath it; else it is the title's help.
    """
    settings, picture, result, limit = shown.settings, shown.asked.picture, shown.result, shown.limit
    visible = shown.subject.model.visible(picture.image) if shown.question.needs_picture else None
    guide = METHODS[shown.question.method].guide
    st.markdown(f"**{shown.label}**", help=None if read else guide.reading or None)
    figure = rendering.figure(result, settings, limit, visible, height, guide.quantity)
    if focus:
        figures.focused(figure, *focus)
    st.plotly_chart(
        figure,
        key=key(f"map.{shown.name}"),
        config=chart_options.MAP,
        alt=rendering.alternative(shown.label, result, settings),
    )
    if not result.attribution.any():
        note = kept_results.zero_reason(shown.asked)
    if note:
        st.caption(note)
    if read and guide.reading:
        st.caption(guide.reading)
    map_badges.draw(shown.asked, result, shown.name)
    st.caption(cost(result), help=COST)
    png = partial(rendering.png, result, settings, limit, visible)
    npz = partial(rendering.npz, result, settings, shown.question, picture, limit, more, shown.subject.identity)
    name = f"{shown.label}, {shown.subject.name}" if several else shown.label
    with st.container(horizontal=True):
        for kind, make in (("PNG", png), ("NPZ", npz)):
            file = f"{shown.file}.{kind.lower()}"
            download_button(f"{kind} of {name}", make, file, key(f"{kind}.{shown.name}"))


def reproduce(settings: Settings, maps: Sequence[Shown], ledger: bool = False) -> None:
    """The maps in numbers, the link to this view, and the program of each map, with its `ledger` on request."""
    several = len({shown.settings.network for shown in maps}) > 1
    with st.expander("The maps in numbers"):
        st.dataframe(
            [
                {
                    "Map": shown.label,
                    **({"Network": shown.settings.network} if several else {}),
                    **rendering.numbers(shown.result, shown.settings),
                }
                for shown in maps
            ],
            hide_index=True, alt="Sum, positive share and strongest pixels of each map",
        )  # fmt: skip
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(page_state.link(settings), language=None)
        labels = [f"{shown.settings.network}: {shown.label}" if several else shown.label for shown in maps]
        for tab, shown in zip(st.tabs(labels), maps, strict=True):
            asked = shown.asked
            tab.code(
                map_programs.program(shown.settings, asked.question, asked.picture, shown.limit, asked.subject, ledger)
            )
