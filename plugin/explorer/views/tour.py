"""The guided tour: a step at a time, each with a figure that is computed while you look, and the way on from it."""

from functools import partial

import streamlit as st

from .. import caches, controls, drawings, images, navigation, panels, saving, tour
from ..controls import key
from ..state import TOUR


def page() -> None:
    """Draw the page."""
    settings, notes = controls.recall("tour", images.samples())
    controls.put(settings, "step")
    st.header("Guided tour")
    if notes:
        st.warning("  \n".join(notes))
    titles = {name: f"{index}. {tour.STEPS[name].title}" for index, name in enumerate(TOUR, start=1)}
    st.selectbox(f"Step (of {len(TOUR)})", TOUR, format_func=titles.__getitem__, key=key("step"), width=420)
    step = tour.STEPS[settings.step]
    words, picture = st.columns([2, 3], gap="large")
    with words:
        st.subheader(titles[settings.step])
        st.markdown(step.text)
        finding, onward = st.container(), st.container()
    with onward:
        if step.page in navigation.pages():
            controls.go_on(
                step.page, f"Go on from here on the page {navigation.pages()[step.page].title}", step.settings
            )
        _turn_pages(settings.step)
    with picture:
        _figure(settings.step, finding)
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(controls.link(settings), language=None)
        st.code(tour.snippet(settings.step))
    controls.remember("tour", settings)


def _figure(name: str, finding: "st.delta_generator.DeltaGenerator") -> None:
    found = caches.tour_step(name)
    finding.markdown(found.finding)
    st.plotly_chart(found.figure, key=key(f"tour.{name}"), config=panels.SAVED_CHART, alt=found.alternative)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(drawings.cost(found), help=drawings.COST)
        make = partial(tour.npz, name, found)
        saving.button("NPZ", make, f"tour-{name}.npz", "application/octet-stream", key(f"NPZ.tour.{name}"))


def _turn_pages(name: str) -> None:
    before, after = tour.neighbours(name)
    with st.container(horizontal=True):
        st.button("Back", disabled=not before, on_click=_go, args=(before,))
        st.button("Next", type="primary", disabled=not after, on_click=_go, args=(after,))


def _go(name: str) -> None:
    st.session_state[key("step")] = name
