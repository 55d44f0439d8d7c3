"""The Attribute page: which pixels led to a prediction, by several methods side by side."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from plugin.experiments.sanity import RandomisationCheck

from ...choices.fitting import to_be_compared, to_be_maximised
from ...choices.offered_methods import FIRST, METHODS, OF_PICTURES
from ...choices.settings import EXPLAIN, MOST_RANDOM_LAYERS, SCALES, Settings
from ...inputs.subject import Subject
from ...maps import rendering, sanity_checks
from ...maps.answers import Answer, equal_maps, largest
from ...maps.questions import Asked, Look, question_of
from ...maps.reports import Added, Table
from ...maps.shown_maps import Shown
from ...server.untrusted_text import markdown_sentence
from ...widgets import controls, kept_results, page_state
from ...widgets.about_methods import about_methods
from ...widgets.map_columns import map_column, reproduce
from ...widgets.page_frame import frame
from ...widgets.page_state import key
from ...widgets.picture_overview import overview

# Heights of a map in pixels, for one, two or three in a row.
_HEIGHTS = {1: 560, 2: 500, 3: 350}
_MEASURE = "Rank correlation of the map before and after layers are made random, 1 is no change (Adebayo et al. 2018)"


def draw() -> None:
    """Draw the page."""
    fields = ("methods", "view", "percentile", "opacity", "scale", "randomise")
    frame("attribute", "Which pixels led to this prediction?", fields, _explore)


def _explore(settings: Settings, look: Look, probabilities: NDArray[np.float32]) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    top = int(probabilities.argmax())
    if settings.explain == "neuron" and not settings.neuron:
        settings = replace(settings, neuron=largest(kept_results.responses(look, settings.layer)))
    page_state.put(settings, "explain", "target", "contrast", "layer", "neuron")
    with st.sidebar:
        _question_widgets(settings, look.subject, top)
        controls.display(look.subject.channels)
        controls.switch("Colour scale", SCALES, "scale")
    chosen = top if settings.target is None else settings.target
    overview(look, probabilities, chosen if settings.explain == "class" else None)
    maps = _answers(settings, look, top)
    _draw_maps(maps)
    if maps:
        _onward(settings, chosen)
        checked = _check(settings, maps)
        about_methods([shown.question.method for shown in maps])
        reproduce(settings, maps, Added(tables=checked))
    return settings


def _question_widgets(settings: Settings, subject: Subject, top: int) -> None:
    _method_pills(settings)
    controls.switch("Explain", EXPLAIN, "explain")
    if settings.explain == "class":
        controls.class_lists(subject, top)
    if settings.needs_layer:
        controls.layer_list(subject.layers)
    if settings.explain == "neuron":
        controls.neuron_inputs(subject.layers[settings.layer])
        st.button("Most active neuron", on_click=controls.forget_neuron)


def _method_pills(settings: Settings) -> None:
    """The methods as buttons: those to try first and those that are chosen, on request all."""
    place = st.container()
    every = st.toggle("All methods", key=key("all_methods"))
    place.pills(
        "Methods",
        [name for name in OF_PICTURES if every or name in FIRST or name in settings.methods],
        selection_mode="multi", format_func=lambda name: METHODS[name].label, key=key("methods"),
    )  # fmt: skip


def _answers(settings: Settings, look: Look, top: int) -> list[Shown]:
    answers: dict[str, tuple[Asked, Answer]] = {}
    unmoved = []
    for name in settings.methods:
        question = question_of(settings, name, top)
        asked = look.ask(question)
        try:
            answers[name] = asked, kept_results.result(asked)
            if question.contrast is not None:
                alone = kept_results.result(look.ask(replace(question, contrast=None)))
                unmoved += [name] * np.array_equal(alone.attribution, answers[name][1].attribution)
        except ValueError as error:
            st.warning(markdown_sentence(error))
    _remarks(settings, unmoved, top)
    for group in equal_maps({name: result for name, (_, result) in answers.items()}):
        st.info(f"{' and '.join(METHODS[name].label for name in group)} give the same map here, bit by bit.")
    limits = rendering.limits({name: result for name, (_, result) in answers.items()}, settings)
    return [Shown(settings, *answer, limits[name]) for name, answer in answers.items()]


def _remarks(settings: Settings, unmoved: Sequence[str], top: int) -> None:
    """Remarks on effects that the maps do not show; a contrast changes nothing for the methods `unmoved`."""
    if unmoved:
        labels = " and ".join(METHODS[name].label for name in unmoved)
        st.info(f"{labels}: subtracting a class changes nothing here; its negative signal stops at the first ReLU.")
    if settings.explain == "class" and settings.contrast == (top if settings.target is None else settings.target):
        st.info("Both classes are the same, and their difference is zero: the class alone is explained.")
    if not settings.methods:
        st.info("Choose at least one method in the sidebar.")


def _draw_maps(maps: Sequence[Shown]) -> None:
    # As few rows as the widest row allows, filled evenly: four maps are two and two, not three and one.
    rows = -(-len(maps) // max(_HEIGHTS))
    for row in range(rows):
        per_row = -(-len(maps) // rows)
        for column, shown in zip(st.columns(per_row), maps[row * per_row : (row + 1) * per_row], strict=False):
            with column:
                map_column(shown, _HEIGHTS[per_row], read=True)


def _onward(settings: Settings, chosen: int) -> None:
    if settings.explain == "neuron":
        page_state.go_on("deconvnet", "Reconstruct this unit without a picture", settings)
        page_state.go_on("code-space", "Maximise this unit", to_be_maximised(settings))
    else:
        page_state.go_on("code-space", "Maximise this class", to_be_maximised(settings, chosen))
        page_state.go_on("compare", "Compare with another map", to_be_compared(settings))


def _check(settings: Settings, maps: Sequence[Shown]) -> tuple[Table, ...]:
    """On request, check whether the maps depend on the weights of the last layers; the result, for the report."""
    with st.expander("Sanity check: do the maps depend on the learned weights?", expanded=settings.randomise > 0):
        st.number_input(
            "Last layers to make random (0 is no check)", 0, MOST_RANDOM_LAYERS, key=key("randomise"), width=320
        )
        if not settings.randomise:
            return ()
        if settings.explain == "neuron":
            st.info("The check is for classes: the layers after a neuron have no part in its map.")
            return ()
        found: dict[str, RandomisationCheck] = {}
        for shown in maps:
            try:
                found[shown.question.method] = kept_results.randomised(shown.asked, settings.randomise)
            except ValueError as error:
                st.warning(markdown_sentence(error))
        return (_checked(found),) if found else ()


def _checked(found: dict[str, RandomisationCheck]) -> Table:
    table = Table(_MEASURE, [sanity_checks.row(name, each) for name, each in found.items()])
    st.dataframe(
        table.rows,
        hide_index=True,
        alt="Rank correlation of each map with that of the randomised network",
    )
    st.caption(f"{_MEASURE}.")
    if text := sanity_checks.warning(found):
        st.warning(text)
    return table
