"""The Deconvnet page: what one unit looks for, without a picture and with one, in networks with and without pooling."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from .. import attributions, caches, code_space, controls, drawings, panels, units
from ..attributions import largest
from ..controls import LABELS, key
from ..images import Picture
from ..methods import METHODS, NO_IMAGE, UNPOOLING_LABELS
from ..networks import Subject
from ..panels import Shown
from ..state import FRAMES, UNPOOLING, Settings, axes, escaped, markdown_sentence, spatial

_PER_ROW, _MAP_HEIGHT = 4, 250


def page() -> None:
    """Draw the page."""
    fields = ("unpooling", "frame", "view", "percentile")
    panels.frame("deconvnet", "What does a unit look for?", fields, _explore)


def _explore(settings: Settings, subject: Subject, picture: Picture, probabilities: NDArray[np.float32]) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    if not subject.layers:
        st.warning("This network has no layers that run once and return one tensor.")
        return settings
    if not settings.layer:
        places = spatial(subject.layers)
        settings = replace(settings, layer=places[len(places) // 2], neuron=())
    responses = _responses(subject, picture, settings.layer)
    if not settings.neuron:
        settings = replace(settings, neuron=largest(responses))
    controls.put(settings, "layer", "neuron")
    with st.sidebar:
        controls.layer_list(subject.layers)
        controls.neuron_inputs(subject.layers[settings.layer])
        st.button("Most active unit", on_click=controls.forget_neuron)
        st.selectbox(
            "Unpooling without a picture", UNPOOLING, format_func=UNPOOLING_LABELS.__getitem__, key=key("unpooling"),
            help="Where max-pooling hands the signal when no picture tells which position won.",
        )  # fmt: skip
        controls.display(subject.channels, opacity=False)
        st.segmented_control("Frame", FRAMES, format_func=LABELS.__getitem__, key=key("frame"), required=True)
    _pickers(settings, subject, picture, responses)
    maps = _network(settings, subject, picture)
    twin_name = units.TWINS.get(subject.name)
    if twin_name and not settings.checkpoint:
        twin = caches.subject(twin_name)
        layer = units.counterpart(settings.layer, subject.layers, twin.layers)
        beside = units.twin_settings(settings, subject, twin, _responses(twin, picture, layer))
        maps += _network(beside, twin, picture)
        controls.go_on("deconvnet", f"Choose units of {twin_name}", beside)
    controls.go_on("attribute", "Attribute this unit", replace(settings, explain="neuron"))
    controls.go_on("code-space", "Maximise this unit", code_space.opening(replace(settings, explain="neuron")))
    if maps:
        panels.reproduce(settings, picture, maps)
    return settings


def _responses(subject: Subject, picture: Picture, layer: str) -> NDArray[np.float32]:
    return caches.responses(subject.identity, picture.digest, layer, subject, picture.image)


def _pickers(settings: Settings, subject: Subject, picture: Picture, responses: NDArray[np.float32]) -> None:
    """The layer's units as squares that can be clicked; the number inputs do the same."""
    channels, positions, seen = st.columns([7, 4, 2])
    layer = settings.layer
    place = f"{subject.identity[:80]}.{picture.digest[:12]}.{settings.layer}.{settings.neuron}"
    figure, squares = units.channels_figure(responses, settings.neuron)
    _squares(channels, "Units by their strongest response to the picture: click one", f"units.{place}", figure, squares,
             f"Squares for the {len(squares)} units of {layer}; the sidebar chooses by keyboard")  # fmt: skip
    channels.caption(f"The chosen unit's response is {float(responses[settings.neuron]):.3g}.")
    found = units.positions_figure(responses, settings.neuron)
    if found:
        _squares(positions, "Where it responds: click one", f"positions.{place}", *found,
                 "Squares for the positions of the chosen channel")  # fmt: skip
    seen.caption("Picture")
    seen.image(subject.model.visible(picture.image), width="stretch", alt="The picture as the network sees it")


def _squares(
    column: object, caption: str, name: str, figure: object, squares: Sequence[tuple[int, ...]], alt: str
) -> None:
    chart = key(name)
    with column:  # type: ignore[attr-defined]
        st.caption(caption)
        st.plotly_chart(
            figure, width="content", theme=None, key=chart, on_select=partial(controls.choose_unit, chart, squares),
            selection_mode="points", config=panels.CLICKED_CHART, alt=alt,
        )  # fmt: skip


def _network(settings: Settings, subject: Subject, picture: Picture) -> list[Shown]:
    """The unit's maps in one network."""
    named = zip(axes(subject.layers[settings.layer]), settings.neuron, strict=True)
    place = f"{subject.name}: {settings.layer}, {', '.join(f'{axis} {index}' for axis, index in named)}"
    st.subheader(escaped(place))
    try:
        pooled = caches.pooled(subject.identity, settings.layer, subject)
        methods = units.methods(pooled)
    except ValueError as error:
        st.warning(markdown_sentence(error))
        pooled, methods = False, units.CONDITIONED
    maps = []
    for name in methods:
        question = attributions.unit_question(settings, name, pooled)
        digest = picture.digest if question.needs_picture else ""
        try:
            result = caches.result(subject.identity, digest, question, _subject=subject, _image=picture.image)
        except ValueError as error:
            st.warning(markdown_sentence(error))
            continue
        limit = drawings.limits({name: result}, settings)[name]
        maps.append(Shown(replace(settings, opacity=1.0), subject, question, result, limit))
    st.markdown(units.statement(maps[0].result if methods[0] == NO_IMAGE and maps else None, pooled))
    focus = units.box([shown.result.attribution for shown in maps]) if maps and settings.frame == "unit" else None
    for start in range(0, len(maps), _PER_ROW):
        for column, shown in zip(st.columns(_PER_ROW), maps[start : start + _PER_ROW], strict=False):
            with column:
                panels.map_column(shown, picture, _MAP_HEIGHT, _note(shown, maps[0], picture), focus)
    return maps


def _note(shown: Shown, first: Shown, picture: Picture) -> str:
    """The two measures of a map: its likeness to the one without a picture, and how it excites its unit."""
    excites = caches.excitation(
        shown.subject.identity, picture.digest, shown.question, shown.subject, picture.image, shown.result
    )
    parts = [] if excites is None else [f"excites the unit {excites:.2f} times as much as the picture"]
    if shown is not first and not first.question.needs_picture and shown.result.attribution.any():
        parts.append(f"cosine {units.likeness(shown.result, first.result):.2f} with *{METHODS[NO_IMAGE].label}*")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]
