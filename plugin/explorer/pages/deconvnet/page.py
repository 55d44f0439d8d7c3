"""The Deconvnet page: maps of one unit without a picture and with one, in networks with and without pooling."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from plugin.rules import SWITCH_FREE

from ...choices.fitting import to_be_maximised
from ...choices.offered_methods import METHODS, NO_IMAGE, UNPOOLING_LABELS
from ...choices.settings import FRAMES, Settings
from ...inputs.layer_outputs import halfway, place
from ...inputs.subject import Subject
from ...maps import rendering, unit_pictures
from ...maps.answers import Answer, largest
from ...maps.questions import Look, Question, unit_question
from ...maps.shown_maps import Shown
from ...server.untrusted_text import escaped, markdown_sentence
from ...widgets import chart_options, controls, kept_results, page_state
from ...widgets.map_columns import map_column, reproduce
from ...widgets.page_frame import frame
from ...widgets.page_state import key
from . import twin_networks, unit_squares

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_PER_ROW, _MAP_HEIGHT = 4, 250


def draw() -> None:
    """Draw the page."""
    fields = ("unpooling", "frame", "view", "percentile")
    frame("deconvnet", "What does a unit look for?", fields, _explore)


def _explore(settings: Settings, look: Look, _: NDArray[np.float32]) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    subject = look.subject
    if not subject.layers:
        st.warning("This network has no layers that run once and return one tensor.")
        return settings
    if not settings.layer:
        settings = replace(settings, layer=halfway(subject.layers), neuron=())
    responses = kept_results.responses(look, settings.layer)
    if not settings.neuron:
        settings = replace(settings, neuron=largest(responses))
    page_state.put(settings, "layer", "neuron")
    with st.sidebar:
        _widgets(settings, subject)
    _pickers(settings, look, responses)
    maps = _network(settings, look)
    if not settings.checkpoint:
        maps += _twin(settings, look)
    page_state.go_on("attribute", "Attribute this unit", replace(settings, explain="neuron"))
    page_state.go_on("units", "Pictures that excite this unit most", settings)
    maximised = to_be_maximised(replace(settings, explain="neuron"))
    page_state.go_on("code-space", "Maximise this unit", maximised)
    if maps:
        reproduce(settings, maps)
    return settings


def _widgets(settings: Settings, subject: Subject) -> None:
    controls.layer_list(subject.layers)
    controls.neuron_inputs(subject.layers[settings.layer])
    st.button("Most active unit", on_click=controls.forget_neuron)
    st.selectbox(
        "Unpooling without a picture", list(SWITCH_FREE), format_func=UNPOOLING_LABELS.__getitem__,
        key=key("unpooling"), help="Where max-pooling hands the signal if no picture tells which position won.",
    )  # fmt: skip
    controls.display(subject.channels, opacity=False)
    controls.switch("Frame", FRAMES, "frame")


def _pickers(settings: Settings, look: Look, responses: NDArray[np.float32]) -> None:
    """The layer's units as squares that can be clicked; the number inputs do the same."""
    channels, positions, seen = st.columns([7, 4, 2])
    layer = settings.layer
    name = f"{look.subject.identity[:80]}.{look.picture.digest[:12]}.{settings.layer}.{settings.neuron}"
    figure, squares = unit_squares.channels_figure(responses, settings.neuron)
    _squares(channels, "Units by their strongest response to the picture: click one", f"units.{name}", figure, squares,
             f"Squares for the {len(squares)} units of {layer}; the sidebar chooses by keyboard")  # fmt: skip
    channels.caption(f"The chosen unit's response is {float(responses[settings.neuron]):.3g}.")
    found = unit_squares.positions_figure(responses, settings.neuron)
    if found:
        _squares(positions, "Where it responds: click one", f"positions.{name}", *found,
                 "Squares for the positions of the chosen channel")  # fmt: skip
    seen.caption("Picture")
    visible = look.subject.model.visible(look.picture.image)
    seen.image(visible, width="stretch", alt="The picture as the network sees it")


def _squares(
    column: "DeltaGenerator", caption: str, name: str, figure: go.Figure, squares: Sequence[tuple[int, ...]], alt: str
) -> None:
    chart = key(name)
    with column:
        st.caption(caption)
        st.plotly_chart(
            figure, width="content", theme=None, key=chart, on_select=partial(controls.choose_unit, chart, squares),
            selection_mode="points", config=chart_options.CLICKED, alt=alt,
        )  # fmt: skip


def _twin(settings: Settings, look: Look) -> list[Shown]:
    """The maps of the unit that stands for this one in the other network; empty where there is none."""
    name = twin_networks.TWINS.get(look.subject.name)
    if not name:
        return []
    beside = Look(kept_results.subject(name, device=look.subject.device), look.picture)
    layer = twin_networks.counterpart(settings.layer, look.subject.layers, beside.subject.layers)
    responses = kept_results.responses(beside, layer)
    chosen = twin_networks.twin_settings(settings, look.subject, beside.subject, responses)
    maps = _network(chosen, beside)
    page_state.go_on("deconvnet", f"Choose units of {name}", chosen)
    return maps


def _network(settings: Settings, look: Look) -> list[Shown]:
    """The unit's maps in one network."""
    subject = look.subject
    unit = place(settings.layer, subject.layers[settings.layer], settings.neuron)
    st.subheader(escaped(f"{subject.name}: {unit}"))
    try:
        pooled = _pooled(subject, settings.layer)
        methods = twin_networks.methods(pooled)
    except ValueError as error:
        st.warning(markdown_sentence(error))
        pooled, methods = False, twin_networks.CONDITIONED
    maps: list[Shown] = []
    for name in methods:
        asked = look.ask(unit_question(settings, name, pooled))
        try:
            result = kept_results.result(asked)
        except ValueError as error:
            st.warning(markdown_sentence(error))
            continue
        limit = rendering.limits({name: result}, settings)[name]
        maps.append(Shown(replace(settings, opacity=1.0), asked, result, limit))
    maps = _with_notes(maps, look, settings)
    st.markdown(twin_networks.statement(maps[0].result if methods[0] == NO_IMAGE and maps else None, pooled))
    has_twin = not settings.checkpoint and subject.name in twin_networks.TWINS
    _draw_maps(maps, settings.frame == "unit", has_twin)
    return maps


def _draw_maps(maps: Sequence[Shown], zoomed: bool, has_twin: bool) -> None:
    focus = unit_pictures.box([shown.result.attribution for shown in maps]) if maps and zoomed else None
    for start in range(0, len(maps), _PER_ROW):
        for column, shown in zip(st.columns(_PER_ROW), maps[start : start + _PER_ROW], strict=False):
            with column:
                map_column(shown, _MAP_HEIGHT, focus, several=has_twin)


def _with_notes(maps: Sequence[Shown], look: Look, settings: Settings) -> list[Shown]:
    """The maps of one unit, each with its two measures."""
    if not maps:
        return []
    questions, results = zip(*((shown.question, shown.result) for shown in maps), strict=True)
    excited = _excitations(look, settings.layer, settings.neuron, questions, results)
    return [replace(shown, note=_note(shown, maps[0], excites)) for shown, excites in zip(maps, excited, strict=True)]


def _note(shown: Shown, first: Shown, excites: float | None) -> str:
    """The two measures of a map: its likeness to the one without a picture, and how it excites its unit."""
    parts = [] if excites is None else [f"excites the unit {excites:.2f} times as much as the picture"]
    if shown is not first and not first.question.needs_picture and shown.result.attribution.any():
        likeness = unit_pictures.likeness(shown.result, first.result)
        parts.append(f"cosine {likeness:.2f} with “{METHODS[NO_IMAGE].label}”")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


@kept_results.kept(64, lambda subject, layer: (subject.identity, layer))
def _pooled(subject: Subject, layer: str) -> bool:
    """See `unit_pictures.is_pooled`."""
    return unit_pictures.is_pooled(subject, layer)


@kept_results.kept(
    64,
    lambda look, layer, neuron, questions, _results: (*kept_results.of_look(look), questions),
    "Comparing the maps …",
    lambda look, *_: look.subject.device,
)
def _excitations(
    look: Look, layer: str, neuron: tuple[int, ...], questions: tuple[Question, ...], _results: tuple[Answer, ...]
) -> list[float | None]:
    """See `unit_pictures.excitations`; `_results` answer the questions."""
    return unit_pictures.excitations(look.subject, look.picture.image, layer, neuron, _results)
