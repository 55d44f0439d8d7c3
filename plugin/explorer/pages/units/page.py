"""The Units page: the real pictures that excite each unit of a layer most, cut to the parts that the unit sees."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from plugin.experiments.unit_survey import UnitSurvey

from ...choices.fitting import to_be_maximised
from ...choices.settings import UNIT_ORDERS, Settings
from ...inputs import image_sets
from ...inputs.folder_predictions import FolderPredictions
from ...inputs.layer_outputs import axes, halfway, middle, place, unit_axis
from ...inputs.picture_collections import SampleSource
from ...inputs.subject import Subject
from ...server.untrusted_text import escaped, markdown_sentence
from ...widgets import controls, kept_results, open_folders, page_state
from ...widgets.background_work import forget_work, work
from ...widgets.callbacks import uninterrupted
from ...widgets.page_frame import network_frame
from ...widgets.page_state import key
from . import layer_surveys, survey_programs
from .unit_crops import crops, spot

_WIDTH, _LONGEST_NAME = 148, 17


def draw() -> None:
    """Draw the page."""
    fields = ("pictures", "unit_order", "selective_for")
    network_frame("units", "Which pictures excite a unit?", fields, _explore, Settings.network)


def _explore(settings: Settings, subject: Subject) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    if not subject.layers:
        st.warning("This network has no layers that run once and return one tensor.")
        return settings
    if not settings.layer:
        settings = replace(settings, layer=halfway(subject.layers), neuron=())
    if not settings.neuron:
        settings = replace(settings, neuron=middle(subject.layers[settings.layer]))
    page_state.put(settings, "layer", "neuron")
    with st.sidebar:
        _widgets(settings, subject)
    predictions = open_folders.predictions_of(settings, subject)
    if predictions is None:
        return settings
    with st.sidebar:
        _order(settings, predictions)
    found = _found(predictions, settings.layer)
    if found is None:
        return settings
    st.caption(_summary(predictions, found))
    try:
        _unit(settings, predictions, found)
        settings = _grid(settings, predictions, found)
    except ValueError as error:
        st.warning(markdown_sentence(error))
    _reproduce(settings, predictions)
    return settings


def _widgets(settings: Settings, subject: Subject) -> None:
    sets = [name for name in image_sets.fitting(subject.model) if image_sets.available(name)]
    offered = open_folders.offered(settings, sets)
    st.selectbox("Pictures of", list(offered), format_func=offered.__getitem__, key=key("pictures"))
    open_folders.widgets(settings)
    st.divider()
    controls.layer_list(subject.layers)
    shape = subject.layers[settings.layer]
    axis = unit_axis(shape)
    called = axes(shape)[axis].capitalize()
    st.number_input(called, 0, shape[axis] - 1, key=key(f"neuron.{axis}"), help=f"0 to {shape[axis] - 1}")


def _order(settings: Settings, predictions: FolderPredictions) -> None:
    st.selectbox("Sort units by", list(UNIT_ORDERS), format_func=UNIT_ORDERS.__getitem__, key=key("unit_order"))
    if settings.unit_order == "selective":
        controls.class_list("Selective for", predictions.subject.model.classes, "any class", "selective_for")


def _found(predictions: FolderPredictions, layer: str) -> UnitSurvey | None:
    """The survey; None if there is none yet. Only the few samples are surveyed unasked."""
    name = f"unit-survey.{predictions.collection.state}.{predictions.subject.identity}.{layer}"
    forget_work(name)
    if not isinstance(predictions.collection.source, SampleSource):
        label = f"Look at all {len(predictions)} pictures"
        survey_all = partial(layer_surveys.survey_all, predictions=predictions, layer=layer)
        found: UnitSurvey | None = work(name, label, survey_all, patience_seconds=math.inf)
        return found
    try:
        return _of_samples(predictions, layer)
    except ValueError as error:
        st.warning(markdown_sentence(error))
        return None


@kept_results.kept(
    16,
    lambda predictions, layer: (predictions.collection.state, predictions.subject.identity, layer),
    "Looking at the samples …",
)
def _of_samples(predictions: FolderPredictions, layer: str) -> UnitSurvey:
    return layer_surveys.survey(predictions, layer)


def _summary(predictions: FolderPredictions, found: UnitSurvey) -> str:
    """The numbers of units and of pictures in the survey, as Markdown."""
    text = f"{len(found.values)} units; {found.seen} of {len(predictions)} pictures were looked at"
    return f"{text}, {int(found.class_counts.sum())} of them with a label."


def _unit(settings: Settings, predictions: FolderPredictions, found: UnitSurvey) -> None:
    """The pictures that excite the chosen unit most, and the ways on from it."""
    subject = predictions.subject
    shape = subject.layers[settings.layer]
    unit = settings.neuron[unit_axis(shape)]
    st.subheader(escaped(_called(settings.layer, shape, unit)))
    if layer_surveys.is_silent(found, unit):
        st.info("No picture excites this unit.")
        return
    places = [number for number, value in enumerate(found.values[unit].tolist()) if math.isfinite(value) and value]
    spots = tuple(spot(found, unit, number) for number in places)
    files = crops(predictions, settings.layer, spots)
    # Another session may have cut them out: links need the files' digests.
    list(predictions.read([row for row, _ in spots if not predictions.digest(row)]))
    st.caption("The parts it sees of the pictures that excite it most, and its response; a link opens its map on one.")
    with st.container(horizontal=True, gap="small"):
        for number, (row, _), file in zip(places, spots, files, strict=True):
            with st.container(width=_WIDTH, gap="small"):
                name = predictions.collection.records[row].id
                if file:
                    st.image(file, alt=f"The part of {name} that the unit sees")
                at = replace(settings, explain="neuron", neuron=layer_surveys.neuron_at(found, shape, unit, number))
                _link(at, predictions, row)
                st.caption(f"{float(found.values[unit, number]):.3g}")
    if preferred := _preferred(predictions, found, unit, 3):
        st.caption(f"Selective for {preferred}, from -1 to 1.")
    best = replace(settings, explain="neuron", neuron=layer_surveys.neuron_at(found, shape, unit))
    with st.container(horizontal=True):
        page_state.go_on("attribute", "Attribute this unit", best)
        page_state.go_on("deconvnet", "Reconstruct this unit without a picture", best)
        page_state.go_on("code-space", "Maximise this unit", to_be_maximised(best))


def _link(settings: Settings, predictions: FolderPredictions, row: int) -> None:
    """A link to the unit's map on a picture; it chooses the picture for all pages."""
    last = predictions.collection.records[row].id.rpartition("/")[2]
    label = escaped(last if len(last) <= _LONGEST_NAME else f"{last[: _LONGEST_NAME - 1]}…")
    if chosen := open_folders.with_picture(settings, predictions, row):
        page_state.choose_on("attribute", label, chosen)
    else:
        st.caption(label)


def _grid(settings: Settings, predictions: FolderPredictions, found: UnitSurvey) -> Settings:
    """The units of the layer, each by the part that it sees of its best picture; a button chooses one."""
    st.subheader("Units of the layer")
    if settings.unit_order == "selective" and not layer_surveys.has_classes(found):
        st.info("Selectivity needs pictures of two classes with labels: the units stand by their numbers.")
    order = layer_surveys.ordered(found, settings)
    most = -(-len(order) // layer_surveys.PER_SHEET)
    settings = replace(settings, unit_sheet=min(settings.unit_sheet, most))
    page_state.put(settings, "unit_sheet")
    if most > 1:
        st.number_input(f"Page (of {most})", 1, most, key=key("unit_sheet"), width=140)
    first = (settings.unit_sheet - 1) * layer_surveys.PER_SHEET
    _cells(settings, predictions, found, order[first : first + layer_surveys.PER_SHEET])
    return settings


def _cells(settings: Settings, predictions: FolderPredictions, found: UnitSurvey, units: Sequence[int]) -> None:
    shape = predictions.subject.layers[settings.layer]
    loud = [unit for unit in units if not layer_surveys.is_silent(found, unit)]
    spots = tuple(spot(found, unit) for unit in loud)
    files = dict(zip(loud, crops(predictions, settings.layer, spots), strict=True)) if spots else {}
    chosen = settings.neuron[unit_axis(shape)]
    with st.container(horizontal=True, gap="small"):
        for unit in units:
            with st.container(width=_WIDTH, gap="small"):
                if file := files.get(unit):
                    st.image(file, alt=f"The part that unit {unit} sees of its best picture")
                neuron = layer_surveys.neuron_at(found, shape, unit)
                st.button(
                    f"Unit {unit}", key=key(f"unit.{unit}"), on_click=_choose, args=(neuron,),
                    icon=":material/check:" if unit == chosen else None,
                )  # fmt: skip
                st.caption(_said(predictions, found, unit) if unit in files else "silent")


def _said(predictions: FolderPredictions, found: UnitSurvey, unit: int) -> str:
    """A unit's largest response, and the class that it prefers, as Markdown."""
    preferred = _preferred(predictions, found, unit)
    return f"{float(found.values[unit, 0]):.3g}" + (f", {preferred}" if preferred else "")


def _preferred(predictions: FolderPredictions, found: UnitSurvey, unit: int, count: int = 1) -> str:
    """The classes for which a unit is most selective, as Markdown; empty without labels."""
    classes = predictions.subject.model.classes
    pairs = layer_surveys.preferred_classes(found, unit, count)
    return ", ".join(f"{escaped(classes[index])} {value:.2f}" for index, value in pairs)


def _called(layer: str, shape: tuple[int, ...], unit: int) -> str:
    """A unit in words, for people: its axis and number, without a position."""
    return place(layer, (shape[unit_axis(shape)],), (unit,)).replace("unit", axes(shape)[unit_axis(shape)])


@uninterrupted
def _choose(neuron: tuple[int, ...]) -> None:
    """Callback: look at this unit."""
    page_state.put(replace(page_state.last_settings(), neuron=neuron), "neuron")


def _reproduce(settings: Settings, predictions: FolderPredictions) -> None:
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(page_state.link(settings), language=None)
        st.caption("Python")
        st.code(survey_programs.program(settings, predictions), language="python")
