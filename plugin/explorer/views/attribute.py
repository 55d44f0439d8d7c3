"""The Attribute page: what in a picture made a network say so, by several methods side by side."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from plugin.experiments.sanity import RandomisationCheck

from .. import attributions, caches, code_space, controls, drawings, panels, sanity
from ..attributions import Question, Result
from ..controls import LABELS, key
from ..images import Picture
from ..methods import METHODS, OF_PICTURES
from ..networks import Subject
from ..panels import Shown
from ..state import EXPLAIN, MOST_RANDOM_LAYERS, SCALES, Settings, markdown_sentence

# Of a map in pixels, for one, two or three in a row.
_HEIGHTS = {1: 560, 2: 500, 3: 350}


def page() -> None:
    """Draw the page."""
    fields = ("methods", "view", "percentile", "opacity", "scale", "randomise")
    panels.frame("attribute", "What made the network say so?", fields, _explore)


def _explore(settings: Settings, subject: Subject, picture: Picture, probabilities: NDArray[np.float32]) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    top = int(probabilities.argmax())
    if settings.explain == "neuron" and not settings.neuron:
        responses = caches.responses(subject.identity, picture.digest, settings.layer, subject, picture.image)
        settings = replace(settings, neuron=attributions.largest(responses))
    controls.put(settings, "explain", "target", "contrast", "layer", "neuron")
    with st.sidebar:
        _question_widgets(settings, subject, top)
        controls.display(subject.channels)
        st.segmented_control("Colour scale", SCALES, format_func=LABELS.__getitem__, key=key("scale"), required=True)
    chosen = top if settings.target is None else settings.target
    panels.overview(subject, picture, probabilities, chosen if settings.explain == "class" else None)
    maps = _answers(settings, subject, picture, top)
    _draw(maps, picture)
    if maps:
        if settings.explain == "neuron":
            controls.go_on("deconvnet", "Reconstruct this unit without a picture", settings)
            controls.go_on("code-space", "Maximise this unit", code_space.opening(settings))
        else:
            controls.go_on("code-space", "Maximise this class", code_space.opening(settings, chosen))
        _check(settings, maps, picture)
        panels.reproduce(settings, picture, maps)
    return settings


def _question_widgets(settings: Settings, subject: Subject, top: int) -> None:
    st.multiselect("Methods", OF_PICTURES, format_func=lambda name: METHODS[name].label, key=key("methods"))
    st.segmented_control("Explain", EXPLAIN, format_func=LABELS.__getitem__, key=key("explain"), required=True)
    if settings.explain == "class":
        controls.class_lists(subject.model.classes, top)
    if settings.needs_layer:
        controls.layer_list(subject.layers)
    if settings.explain == "neuron":
        controls.neuron_inputs(subject.layers[settings.layer])
        st.button("Most active neuron", on_click=controls.forget_neuron)


def _answers(settings: Settings, subject: Subject, picture: Picture, top: int) -> list[Shown]:
    ask = partial(caches.result, subject.identity, picture.digest, _subject=subject, _image=picture.image)
    answers: dict[str, tuple[Question, Result]] = {}
    unmoved = []
    for name in settings.methods:
        question = attributions.question_of(settings, name, top)
        try:
            answers[name] = question, ask(question)
            if question.contrast is not None:
                alone = ask(replace(question, contrast=None))
                unmoved += [name] * np.array_equal(alone.attribution, answers[name][1].attribution)
        except ValueError as error:
            st.warning(markdown_sentence(error))
    if unmoved:
        labels = " and ".join(METHODS[name].label for name in unmoved)
        st.info(f"{labels}: subtracting a logit changes nothing here, its negative signal stops at the first ReLU.")
    if settings.explain == "class" and settings.contrast == (top if settings.target is None else settings.target):
        st.info("Both classes are the same, and the difference of their logits is zero: the class alone is explained.")
    if not settings.methods:
        st.info("Choose at least one method in the sidebar.")
    limits = drawings.limits({name: result for name, (_, result) in answers.items()}, settings)
    return [Shown(settings, subject, *answer, limits[name]) for name, answer in answers.items()]


def _draw(maps: Sequence[Shown], picture: Picture) -> None:
    # As few rows as the widest row allows, filled evenly: four maps are two and two, not three and one.
    rows = -(-len(maps) // max(_HEIGHTS))
    for row in range(rows):
        per_row = -(-len(maps) // rows)
        for column, shown in zip(st.columns(per_row), maps[row * per_row : (row + 1) * per_row], strict=False):
            with column:
                panels.map_column(shown, picture, _HEIGHTS[per_row])


def _check(settings: Settings, maps: Sequence[Shown], picture: Picture) -> None:
    """On request: do the maps depend on what the last layers have learned?"""
    with st.expander("Sanity check: do the maps depend on what was learned?", expanded=settings.randomise > 0):
        st.number_input(
            "Last layers to make random (0 is no check)", 0, MOST_RANDOM_LAYERS, key=key("randomise"), width=320
        )
        if not settings.randomise:
            return
        if settings.explain == "neuron":
            st.info("The check is for classes: what comes after a neuron has no part in its map.")
            return
        found: dict[str, RandomisationCheck] = {}
        for shown in maps:
            subject, question = shown.subject, shown.question
            try:
                found[question.method] = caches.randomised(
                    subject.identity, picture.digest, question, settings.randomise, subject, picture.image
                )
            except ValueError as error:
                st.warning(markdown_sentence(error))
        if not found:
            return
        st.dataframe(
            [sanity.row(name, each) for name, each in found.items()],
            hide_index=True,
            alt="Rank correlation of each map with that of the randomised network",
        )
        st.caption("Rank correlation of the map before and after, 1 is no change (Adebayo et al. 2018).")
        if text := sanity.warning(found):
            st.warning(text)
