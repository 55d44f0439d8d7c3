"""The Compare page: two maps that differ in one thing, and their difference."""

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from plugin import figures

from ...choices.offered_methods import METHODS, OF_PICTURES
from ...choices.settings import DIFFERENCES, B, Settings
from ...maps import comparisons, map_programs, rendering
from ...maps.comparisons import Comparison
from ...maps.questions import Look
from ...maps.reports import Added, Table
from ...maps.shown_maps import Shown
from ...server.connection import comes_from_a_phone
from ...server.download_button import download_button
from ...server.untrusted_text import escaped, markdown_sentence
from ...widgets import chart_options, controls, kept_results, open_strip, page_state
from ...widgets.input_choice import network_choice, open_picture, open_subject, picture_choice
from ...widgets.map_columns import map_files, reproduce
from ...widgets.page_frame import frame
from ...widgets.page_state import key
from ...widgets.picture_overview import what_it_sees
from . import sides

# In pixels: the height of the maps, and the width of the pictures.
_HEIGHT, _SEEN = 380, 128


def draw() -> None:
    """Draw the page."""
    frame("compare", "What differs?", ("method", "differs", "percentile", "opacity"), _explore)


def _explore(settings: Settings, look: Look, probabilities: NDArray[np.float32]) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    settings = sides.with_b(settings, probabilities)
    page_state.put(settings, "target", "b")
    with st.sidebar:
        _widgets(settings, look, int(probabilities.argmax()))
    beside = settings.beside
    st.caption(f"B: {open_strip.described(beside)}")
    subject = open_subject(beside, B) if settings.differs == "network" else look.subject
    picture = open_picture(beside, B) if settings.differs == "image" else look.picture
    if subject is None or picture is None:
        return settings
    other = Look(subject, picture)
    target = sides.target_of(settings, probabilities)
    b_shares = kept_results.probabilities(other)
    b_target = sides.target_of_b(settings, target, look.subject.model.classes, subject.model.classes, b_shares)
    a = _shown(settings, look, target, "A")
    b = _shown(beside, other, b_target, "B")
    if a and b:
        _draw(settings, a, b)
    return settings


def _widgets(settings: Settings, look: Look, top: int) -> None:
    names = look.subject.model.classes
    _method_list("Method", "method")
    controls.class_list("Class", names, f"most probable: {names[top]}", "target")
    st.divider()
    controls.switch("B differs in", DIFFERENCES, "differs", "B is a copy of A in everything else.")
    if settings.differs == "method":
        _method_list("Method of B", f"{B}method")
    elif settings.differs == "target":
        controls.class_list("Class of B", names, "", f"{B}target")
    elif settings.differs == "network":
        network_choice(settings.beside, B)
    else:
        picture_choice(settings.beside, B)
    st.divider()
    controls.colours()


def _method_list(label: str, field: str) -> None:
    st.selectbox(label, OF_PICTURES, format_func=lambda name: METHODS[name].label, key=key(field))


def _shown(settings: Settings, look: Look, target: int, side: str) -> Shown | None:
    """The map of one side, or None after saying why there is none."""
    settings = sides.drawn(settings, look.subject)
    asked = look.ask(sides.question(settings, target))
    try:
        result = kept_results.result(asked)
    except ValueError as error:
        st.warning(f"{side}: {markdown_sentence(error)}")
        return None
    method = asked.question.method
    return Shown(settings, asked, result, rendering.limits({method: result}, settings)[method], side=side)


def _draw(settings: Settings, a: Shown, b: Shown) -> None:
    found = comparisons.compared(a, b)
    measures = comparisons.measures(found)
    maps = {"A": found.first, "B": found.second, comparisons.NAME: found.difference}
    shown = figures.linked_maps(
        maps, [a.visible, b.visible], settings.opacity, settings.percentile, _HEIGHT, stacked=comes_from_a_phone()
    )
    st.plotly_chart(
        chart_options.map_on_page(shown),
        key=key("map.compare"),
        config=chart_options.MAP,
        alt=". ".join(
            [*(rendering.alternative(shown.label, shown.result, shown.settings) for shown in (a, b)),
             *(f"{row['Measure']} {row['A and B']}" for row in measures)]
        ),
    )  # fmt: skip
    for column, shown in zip(st.columns(3), (a, b, None), strict=True):
        with column:
            if shown:
                _side(shown)
            else:
                _difference(found, a, b, settings.percentile)
    if found.equal:
        st.info("The two maps are equal, number for number.")
    st.subheader("How alike are they?")
    st.dataframe(measures, hide_index=True, alt="Measures of likeness of the two maps")
    program = map_programs.program_of_difference(a, b, found.scaled)
    figure = comparisons.titled(found, a, b, settings.percentile)
    reproduce(
        settings,
        [a, b],
        Added(
            tables=(Table("How alike A and B are", measures),),
            figures=((figure, comparisons.explanation(found)),),
            programs=((comparisons.NAME, program),),
        ),
    )


def _side(shown: Shown) -> None:
    look, target = shown.asked.look, shown.question.target
    assert target is not None  # this page explains classes
    outputs, shares = kept_results.outputs(look), kept_results.probabilities(look)
    st.markdown(f"**{shown.label}**", help=METHODS[shown.question.method].reading or None)
    text = sides.summary(look, target, float(outputs[target]), float(shares[target]))
    st.caption(escaped(f"{shown.subject.name}, {text}"))
    map_files(shown)
    what_it_sees(look, _SEEN)


def _difference(found: Comparison, a: Shown, b: Shown, percentile: float) -> None:
    st.markdown(f"**{comparisons.NAME}**")
    st.caption(comparisons.explanation(found))
    figure, file = comparisons.titled(found, a, b, percentile), comparisons.file(a, b)
    with st.container(horizontal=True, gap="xsmall"):
        for kind, make in (("PNG", figure.png), ("SVG", figure.svg)):
            label, name = f"{kind} of {comparisons.NAME}", f"{file}.{kind.lower()}"
            download_button(label, make, name, key(f"{kind}.difference"), slim=True)
