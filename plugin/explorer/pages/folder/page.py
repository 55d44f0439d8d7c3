"""The Folder page: many pictures through the network that is open, those that it gets wrong, and maps of all."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st

from plugin.datasets import Report

from ...choices.offered_methods import METHODS, OF_DATA_SETS
from ...choices.settings import CORRECTNESS, ORDERS, Settings
from ...inputs.folder_predictions import FolderPredictions, KnownPictures, predict_all
from ...inputs.layer_outputs import spatial
from ...inputs.subject import Subject
from ...server.download_button import download_button
from ...server.jobs import JobView
from ...server.kept_files import SHORT, digest
from ...server.untrusted_text import escaped, markdown_sentence
from ...widgets import chart_options, controls, open_folders, own_files, page_state
from ...widgets.background_work import forget_work, work
from ...widgets.callbacks import uninterrupted
from ...widgets.page_frame import network_frame
from ...widgets.page_state import key
from . import confusion_table, folder_maps, folder_programs, folder_reports, picture_choice
from .folder_maps import FolderMaps
from .picture_grid import grid

_OUTPUTS = key("folder.outputs")
_INPUTS_OF_OWN_WEIGHTS = ("resize", "crop", "mean", "std")
_FIELDS = ("pictures", "correctness", "labelled", "predicted", "confidence", "order", "whole")


def draw() -> None:
    """Draw the page."""
    network_frame("folder", "Which pictures does it get wrong?", _FIELDS, _explore, Settings.network)


def _explore(settings: Settings, subject: Subject) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    if METHODS[settings.whole].needs_layer and not settings.layer:
        settings = replace(settings, layer=spatial(subject.layers)[-1])
    page_state.put(settings, "layer")
    with st.sidebar:
        _widgets(settings, subject)
    predictions = open_folders.predictions_of(settings, subject)
    if predictions is None:
        return settings
    summary, running = st.empty(), st.container()
    settings, rows = _chosen(settings, predictions)
    findings = grid(settings, predictions, rows)
    summary.markdown(folder_reports.summary(predictions, findings))
    with running:
        _predict_all(predictions)
    _confusion(settings, predictions, findings)
    _files(settings, predictions, findings)
    _maps(settings, subject)
    return settings


def _widgets(settings: Settings, subject: Subject) -> None:
    controls.switch("Pictures of", open_folders.offered(settings), "pictures")
    open_folders.widgets(settings)
    st.divider()
    controls.switch("Show", CORRECTNESS, "correctness")
    controls.class_list("Labelled as", subject.model.classes, "any class", "labelled")
    controls.class_list("Predicted as", subject.model.classes, "any class", "predicted")
    st.slider("Confidence", 0.0, 1.0, step=0.01, key=key("confidence"))
    st.selectbox("Sort by", list(ORDERS), format_func=ORDERS.__getitem__, key=key("order"))


def _chosen(settings: Settings, predictions: FolderPredictions) -> tuple[Settings, list[int]]:
    """The rows on the shown page of the grid, with the widget that chooses the page."""
    findings = predictions.findings()
    rows = picture_choice.chosen_rows(settings, findings)
    most = picture_choice.sheets(len(rows))
    settings = replace(settings, sheet=min(settings.sheet, most))
    page_state.put(settings, "sheet")
    left = len(predictions.left())
    if picture_choice.asks_for_predictions(settings) and left:
        st.info(f"{left} pictures have no prediction yet, and are not among these.")
    if not len(rows):
        st.info("No picture matches the filters in the sidebar.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if most > 1:
            st.number_input(f"Page (of {most})", 1, most, key=key("sheet"), width=140)
        if any(getattr(settings, name) != getattr(Settings, name) for name in picture_choice.FILTERS):
            st.caption(f"{len(rows)} of {len(predictions)} pictures")
            st.button("Show all pictures", key=key("folder.all"), on_click=_show_all)
    return settings, picture_choice.rows_on(settings.sheet, rows)


def _predict_all(predictions: FolderPredictions) -> None:
    """The network's prediction of every picture, which starts on a click."""
    subject = predictions.subject
    name = f"folder-predictions.{predictions.collection.state}.{subject.identity}.{subject.device}"
    forget_work(name)
    left = len(predictions.left())
    if not left:
        return

    def show(view: JobView[FolderPredictions]) -> None:
        if view.running:
            st.caption(folder_reports.tally(predictions.findings()))
            if st.button("Show the finished predictions", key=key("folder.refresh")):
                st.rerun()

    label = f"Predict the other {left} pictures" if left < len(predictions) else f"Predict all {left} pictures"
    work(
        name, label, partial(predict_all, predictions=predictions), show, patience_seconds=math.inf,
        device=subject.device,
    )  # fmt: skip


def _confusion(settings: Settings, predictions: FolderPredictions, findings: KnownPictures) -> None:
    st.subheader("Confusion table")
    if not findings.judged.any():
        st.caption("Pictures have labels if their subfolders have the names of the network's classes.")
        return
    found, classes = picture_choice.confusion(findings), predictions.subject.model.classes
    if found.left_out:
        st.caption(f"The {len(found.classes)} classes with most errors; {found.left_out} others are left out.")
    # A new name for each state forgets the last click, because a second click on the same cell would only undo it.
    chart = key(f"confusion.{settings.labelled}.{settings.predicted}.{int(findings.judged.sum())}")
    st.caption("Click a cell to see its pictures; the sidebar does the same by keyboard.")
    st.plotly_chart(
        chart_options.on_page(confusion_table.figure(found, classes, settings)), key=chart, selection_mode="points",
        on_select=partial(_choose_cell, chart, found.classes), config=chart_options.CLICKED,
        alt=confusion_table.spoken(found, classes),
    )  # fmt: skip
    with st.expander("The same as a list"):
        st.dataframe(confusion_table.pairs(found, classes), hide_index=True, alt="Label, prediction and number")


def _files(settings: Settings, predictions: FolderPredictions, findings: KnownPictures) -> None:
    """The files without a prediction, the file of the predictions, and the link and the program of the view."""
    collection = predictions.collection
    if broken := folder_reports.broken(predictions, findings):
        with st.expander(folder_reports.without_prediction(len(broken))):
            st.dataframe(broken, hide_index=True, alt="Files that could not be read, each with the reason")
    if collection.cut:
        st.info(f"{escaped(collection.name)} holds more than {len(collection.files)} files: these are the first.")
    table = partial(folder_reports.csv, predictions, findings)
    download_button("CSV of the predictions", table, folder_reports.file_name(predictions), key("CSV"))
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(page_state.link(settings), language=None)
        st.caption("Python")
        st.code(folder_programs.program(settings, predictions), language="python")


def _maps(settings: Settings, subject: Subject) -> None:
    """Maps of the whole folder, which are made on a click."""
    st.subheader("Maps of all pictures")
    folder = open_folders.path_of(settings)
    if folder is None:
        st.caption("Maps of all pictures are made of a folder that is given by its path.")
        return
    st.selectbox("Method", OF_DATA_SETS, format_func=lambda name: METHODS[name].label, key=key("whole"), width=320)
    needs_layer = METHODS[settings.whole].needs_layer
    if needs_layer:
        controls.layer_list(subject.layers)
    try:
        out = folder_maps.output(_output(folder))
    except ValueError as error:
        st.error(markdown_sentence(error))
        return
    weights = own_files.find(settings.checkpoint)
    maps = FolderMaps(
        folder_maps.named_for_command_line(subject), subject.identity, weights.place if weights else "", str(folder),
        settings.whole, settings.layer if needs_layer else "", str(out), subject.device,
    )  # fmt: skip
    name = f"folder-maps.{maps.name}"
    forget_work(name)
    label = "Go on with the maps" if out.exists() else "Make the maps"
    work(
        name, label, partial(folder_maps.attribute_all, maps=maps, subject=subject), _made, patience_seconds=math.inf,
        device=subject.device,
    )  # fmt: skip
    if weights and any(getattr(settings, name) != getattr(Settings, name) for name in _INPUTS_OF_OWN_WEIGHTS):
        st.caption("The command line takes no size, mean or deviation for a checkpoint: these maps continue only here.")
        return
    st.caption("The same from the command line, which continues the maps that were begun here")
    st.code(maps.command, language=None, wrap_lines=True)


def _output(folder: Path) -> str:
    """The field for the output of a folder, which keeps its text while other pages are shown."""
    texts: dict[Path, str] = st.session_state.setdefault(_OUTPUTS, {})
    field = key(f"folder.out.{digest(str(folder).encode())[:SHORT]}")
    st.session_state.setdefault(field, texts.get(folder) or str(folder_maps.proposed(folder)))
    texts[folder] = st.text_input("Output: a zarr store, or a folder of Parquet files (.parquet)", key=field)
    return texts[folder]


def _made(view: JobView[Report]) -> None:
    if view.result is not None:
        st.success(folder_reports.made(view.result))
    elif view.partial is not None and not view.running:
        done, whole = view.partial
        st.info(f"Stopped: {done} of {whole} files are finished. The button goes on with the others.")


@uninterrupted
def _choose_cell(chart: str, classes: tuple[int, ...]) -> None:
    """Callback of the confusion table: show the pictures of a cell."""
    clicked = controls.clicked_mark(chart)
    if clicked is not None and 0 <= clicked < len(classes) ** 2:
        row, column = divmod(clicked, len(classes))
        st.session_state[key("labelled")], st.session_state[key("predicted")] = classes[row], classes[column]


@uninterrupted
def _show_all() -> None:
    """Callback: drop the filters."""
    page_state.put(Settings(), *picture_choice.FILTERS)
