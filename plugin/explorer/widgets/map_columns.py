"""Maps side by side on a page: each with its cost and its files, and below them their report, link and programs."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st
from numpy.typing import NDArray

from plugin import figures

from ..choices.offered_methods import METHODS
from ..choices.settings import Settings
from ..maps import badges, map_programs, rendering, reports
from ..maps.reports import Added, Line, ReportedView
from ..maps.shown_maps import Shown
from ..maps.unit_pictures import Box
from ..server.download_button import download_button
from ..server.meter import COST, cost
from ..server.turns import MAPS, turns_on
from . import chart_options, kept_results, map_badges, page_state
from .page_state import key


def map_column(
    shown: Shown,
    height: int,
    focus: Box | None = None,
    more: Mapping[str, NDArray[Any]] | None = None,
    several: bool = False,
    read: bool = False,
) -> None:
    """One map with its cost and its files.

    Args:
        shown: the map.
        height: of the figure in pixels.
        focus: the rows and columns to which the figure is zoomed; None shows all.
        more: arrays that its NPZ file holds too.
        several: whether the page has maps of several networks.
        read: whether the meaning of its colours stands beneath it; else it is the title's help.
    """
    settings, result = shown.settings, shown.result
    guide = METHODS[shown.question.method].guide
    st.markdown(f"**{shown.label}**", help=None if read else guide.reading or None)
    figure = rendering.figure(result, settings, shown.limit, shown.visible, height, guide.quantity)
    if focus:
        figures.focused(figure, *focus)
    st.plotly_chart(
        chart_options.map_on_page(figure),
        key=key(f"map.{shown.name}"),
        config=chart_options.MAP,
        alt=rendering.alternative(shown.label, result, settings),
    )
    if read and guide.reading:
        st.caption(guide.reading)
    map_files(shown, more, several)


def map_files(shown: Shown, more: Mapping[str, NDArray[Any]] | None = None, several: bool = False) -> None:
    """The note and the badge of a map, its cost and its files; `more` and `several` as for `map_column`."""
    settings, picture, result, limit = shown.settings, shown.asked.picture, shown.result, shown.limit
    if note := _note(shown):
        st.caption(note)
    map_badges.draw(shown.asked, result, shown.name)
    st.caption(cost(result), help=COST)
    method = METHODS[shown.question.method].label  # the changes of its rules would not fit
    name = shown.side or (f"{method}, {shown.subject.name}" if several else method)
    with st.container(horizontal=True, gap="xsmall"):
        for kind, ending, make in (
            ("PNG", ".png", lambda: rendering.titled(shown).png()),
            ("SVG", ".svg", lambda: rendering.titled(shown).svg()),
            ("Bare PNG", "-bare.png", partial(rendering.png, result, settings, limit, shown.visible)),
            ("NPZ", ".npz", partial(
                rendering.npz, result, settings, shown.question, picture, limit, more, shown.subject.identity
            )),
        ):  # fmt: skip
            download_button(f"{kind} of {name}", make, shown.file + ending, key(f"{kind}.{shown.name}"), slim=True)


def _note(shown: Shown) -> str:
    """The note below a map, as Markdown."""
    return shown.note if shown.result.attribution.any() else kept_results.zero_reason(shown.asked)


def _lines(shown: Shown) -> list[Line]:
    """The page's lines about a map, by name. Only for reports: Streamlit is not available here."""
    note = _note(shown).replace("`", "")
    trust = kept_results.badges.peek(kept_results.of_asked(shown.asked))
    said = [("Note", note), ("Trust", " ".join([badges.short_text(trust), *badges.sentences(trust)]) if trust else "")]
    return [*((name, text) for name, text in said if text), ("Took", cost(shown.result))]


def _report(view: ReportedView) -> bytes:
    # The networks look at their pictures again.
    with turns_on(view.maps[0].subject.device, MAPS).turn():
        return reports.html(view, _lines)


def reproduce(settings: Settings, maps: Sequence[Shown], added: Added | None = None) -> None:
    """The maps in numbers, the report, the link to this view, and the program of each map.

    Args:
        settings: of the page.
        maps: the maps that are shown, at least one.
        added: the other content of the page.
    """
    added = added or Added()
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
    view = ReportedView(page_state.title(), page_state.link(settings), tuple(maps), added)
    download_button("Report of this view", partial(_report, view), f"{view.file}.html", key("report"))
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(page_state.link(settings), language=None)
        programs = [
            (
                f"{shown.settings.network}: {shown.label}" if several and not shown.side else shown.label,
                map_programs.program_of(shown, ledger=added.ledger is not None),
            )
            for shown in maps
        ]
        programs += added.programs
        for tab, (_, code) in zip(st.tabs([label for label, _ in programs]), programs, strict=True):
            tab.code(code)
