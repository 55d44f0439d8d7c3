"""The Attribute page: what in a picture made a network say so, by several methods side by side."""

from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from .. import attributions, caches, controls, drawings, panels
from ..attributions import Question, Result
from ..controls import LABELS, key
from ..images import Picture
from ..methods import METHODS
from ..networks import Subject
from ..state import EXPLAIN, SCALES, Settings, markdown_sentence

# Of a map in pixels, for one, two or three in a row.
_HEIGHTS = {1: 560, 2: 500, 3: 350}

Answers = dict[str, tuple[Question, Result]]


def page() -> None:
    """Draw the page."""
    fields = ("methods", "view", "percentile", "opacity", "scale")
    panels.frame("attribute", "What made the network say so?", fields, _explore)


def _explore(settings: Settings, subject: Subject, picture: Picture, probabilities: NDArray[np.float32]) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    top = int(probabilities.argmax())
    if settings.explain == "neuron" and not settings.neuron:
        neuron = caches.most_active(settings.network, picture.digest, settings.layer, subject, picture.image)
        settings = replace(settings, neuron=neuron)
    controls.put(settings, "explain", "target", "contrast", "layer", "neuron")
    with st.sidebar:
        _question_widgets(settings, subject, top)
        controls.display()
        st.segmented_control("Colour scale", SCALES, format_func=LABELS.__getitem__, key=key("scale"), required=True)
    chosen = top if settings.target is None else settings.target
    panels.overview(subject, picture, probabilities, chosen if settings.explain == "class" else None)
    answers = _answers(settings, subject, picture, top)
    _maps(settings, subject, picture, answers)
    return settings


def _question_widgets(settings: Settings, subject: Subject, top: int) -> None:
    st.multiselect("Methods", list(METHODS), format_func=lambda name: METHODS[name].label, key=key("methods"))
    st.segmented_control("Explain", EXPLAIN, format_func=LABELS.__getitem__, key=key("explain"), required=True)
    if settings.explain == "class":
        controls.class_lists(subject.model.classes, top)
    if settings.needs_layer:
        shapes = {name: " x ".join(map(str, shape)) for name, shape in subject.layers.items()}
        st.selectbox("Layer", list(shapes), format_func=lambda name: f"{name}  ({shapes[name]})", key=key("layer"))
    if settings.explain == "neuron":
        controls.neuron_inputs(subject.layers[settings.layer])
        st.button("Most active neuron", on_click=controls.forget_neuron)


def _answers(settings: Settings, subject: Subject, picture: Picture, top: int) -> Answers:
    ask = partial(caches.result, settings.network, picture.digest, _subject=subject, _image=picture.image)
    answers: Answers = {}
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
    return answers


def _maps(settings: Settings, subject: Subject, picture: Picture, answers: Answers) -> None:
    limits = drawings.limits({name: result for name, (_, result) in answers.items()}, settings)
    visible = subject.model.visible(picture.image)
    # As few rows as the widest row allows, filled evenly: four maps are two and two, not three and one.
    rows = -(-len(answers) // max(_HEIGHTS))
    names = list(answers)
    for row in range(rows):
        per_row = -(-len(names) // rows)
        for column, name in zip(st.columns(per_row), names[row * per_row : (row + 1) * per_row], strict=False):
            with column:
                panels.map_column(settings, *answers[name], picture, visible, limits[name], _HEIGHTS[per_row])
    if answers:
        panels.reproduce(
            settings, picture, {name: question for name, (question, _) in answers.items()}, limits, subject
        )
