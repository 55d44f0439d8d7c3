"""The guided tour: a step at a time, each with a figure that is computed while you look, and the way on from it."""

from functools import partial

import streamlit as st

from ...choices.settings import TOUR
from ...inputs import offered_pictures
from ...server.download_button import download_button
from ...server.meter import COST, cost
from ...widgets import chart_options, kept_results, map_badges, navigation, open_strip, page_state
from ...widgets.callbacks import uninterrupted
from ...widgets.page_state import key
from . import tour_steps
from .step_findings import Found


def draw() -> None:
    """Draw the page."""
    settings, notes = page_state.recall("tour", offered_pictures.samples())
    page_state.put(settings, "step")
    open_strip.draw("tour", settings)
    st.header("Guided tour")
    page_state.show_notes("tour", settings, notes)
    titles = {name: f"{index}. {tour_steps.STEPS[name].title}" for index, name in enumerate(TOUR, start=1)}
    st.selectbox(f"Step (of {len(TOUR)})", TOUR, format_func=titles.__getitem__, key=key("step"), width=420)
    step = tour_steps.STEPS[settings.step]
    words, picture = st.columns([2, 3], gap="large")
    with words:
        st.subheader(titles[settings.step])
        st.markdown(step.text)
        finding, onward = st.container(), st.container()
    with onward:
        if goal := navigation.pages().get(step.page):
            page_state.go_on(step.page, f"Go on from here on the page {goal.title}", step.settings)
        _turn_pages(settings.step)
    with picture:
        _figure(settings.step, finding)
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(page_state.link(settings), language=None)
        st.code(tour_steps.program(settings.step))
    page_state.remember("tour", settings)


@kept_results.kept(len(TOUR), lambda step: step, "Computing the figure …")
def _found(step: str) -> Found:
    """See `tour_steps.compute`. All sessions share the figure, which must not be changed."""
    found = tour_steps.compute(step, kept_results.subject)
    chart_options.on_page(found.figure)
    return found


def _figure(name: str, finding: "st.delta_generator.DeltaGenerator") -> None:
    found = _found(name)
    finding.markdown(found.finding)
    st.plotly_chart(found.figure, key=key(f"tour.{name}"), config=chart_options.SAVED, alt=found.alternative)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(cost(found), help=COST)
        download_button(
            "NPZ of this step", partial(tour_steps.npz, name, found), f"tour-{name}.npz", key(f"NPZ.tour.{name}")
        )
    for number, (title, (asked, result)) in enumerate(found.maps.items()):
        map_badges.draw(asked, result, f"tour-{name}-{number}", title)


def _turn_pages(name: str) -> None:
    before, after = tour_steps.neighbours(name)
    with st.container(horizontal=True):
        st.button("Back", disabled=not before, on_click=_go, args=(before,))
        st.button(
            "Next", icon=":material/arrow_forward:", icon_position="right", disabled=not after,
            on_click=_go, args=(after,),
        )  # fmt: skip


@uninterrupted
def _go(name: str) -> None:
    st.session_state[key("step")] = name
