"""Thumbnails with what the network says of them; a click opens a picture on the Attribute page."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from plugin.datasets.records import UnreadablePicture

from ...server.files import link_name, sent
from ...server.turns import MAPS, ahead_of_this
from ...settings import UPLOAD
from ...untrusted_text import escaped, markdown_sentence
from ...widgets import own_files
from ...widgets.page_state import change, key
from .folder_predictions import Findings, FolderPredictions
from .picture_collections import PictureCollection, SampleSource

# Of a cell, and of the part of a name that fits into it.
_WIDTH, _LONGEST_NAME = 148, 17
OPENED, _NOTE = key("folder.opened"), key("folder.note")


def grid(predictions: FolderPredictions, rows: Sequence[int]) -> Findings:
    """Draw these pictures, and ask the network about those of which nothing is known.

    The pictures appear one by one, and what the network says of them when it has said it.

    Returns:
        What is known afterwards.
    """
    if note := st.session_state.pop(_NOTE, ""):
        st.error(markdown_sentence(note))
    before = predictions.findings()
    unread = [row for row in rows if predictions.thumbnail(row) is None and row not in before.broken]
    unread += [row for row in predictions.left(rows) if row not in unread]
    pictures, texts = {}, {}
    waiting = st.empty()
    with st.container(horizontal=True, gap="small"):
        for row in rows:
            with st.container(width=_WIDTH, gap="small"):
                pictures[row] = st.empty()
                _picture(predictions, row, before, pictures[row])
                _open_button(predictions.collection, row, before)
                texts[row] = st.empty()
                texts[row].caption(_said(predictions, row, before))
    if not unread:
        return before

    def told(ahead: int) -> None:
        waiting.info(ahead_of_this(ahead))

    with MAPS.turn(told):
        waiting.empty()
        pixels = {}
        for row, seen in predictions.read(unread):
            _picture(predictions, row, predictions.findings(), pictures[row])
            if seen is not None:
                pixels[row] = seen
        predictions.predict(pixels)
    after = predictions.findings()
    for row in unread:
        texts[row].caption(_said(predictions, row, after))
    return after


def _picture(
    predictions: FolderPredictions, row: int, findings: Findings, place: st.delta_generator.DeltaGenerator
) -> None:
    name = predictions.collection.records[row].id
    if row in findings.broken:
        place.warning(markdown_sentence(findings.broken[row]))
    elif thumbnail := predictions.thumbnail(row):
        place.image(thumbnail, alt=name)


def _said(predictions: FolderPredictions, row: int, findings: Findings) -> str:
    """What the network says of a picture, as Markdown."""
    if row in findings.broken:
        return "broken"
    classes, label = predictions.subject.model.classes, int(findings.labels[row])
    labelled = f"labelled {escaped(classes[label])}" if label >= 0 else ""
    if not findings.known[row]:
        return labelled or "…"
    said = f"{escaped(classes[findings.predicted[row]])} {findings.confidence[row]:.0%}"
    mark = "" if label < 0 else "✗ " if findings.wrong[row] else "✓ "
    return f"**{mark}{said}**" + (f", {labelled}" if findings.wrong[row] else "")


def _open_button(collection: PictureCollection, row: int, findings: Findings) -> None:
    name = collection.records[row].id
    last = name.rpartition("/")[2]
    short = last if len(last) <= _LONGEST_NAME else f"{last[: _LONGEST_NAME - 1]}…"
    st.button(
        escaped(short), key=key(f"folder.open.{row}"), on_click=partial(_open, collection, row), type="tertiary",
        icon=":material/arrow_forward:", help=f"Attribute {escaped(name)}", disabled=row in findings.broken,
    )  # fmt: skip


def _open(collection: PictureCollection, row: int) -> None:
    """Callback: open a picture for all pages, as if it had been chosen or uploaded there, and turn to its maps."""
    record = collection.records[row]
    if isinstance(collection.source, SampleSource):
        change(image=record.place)
    else:
        try:
            content = collection.source.read(record)
        except (UnreadablePicture, OSError) as error:
            st.session_state[_NOTE] = str(error)
            return
        file = own_files.keep_file(sent(record.id.rpartition("/")[2], content))
        change(image=UPLOAD, picture=file.short, picture_name=link_name(file.name))
    st.session_state[OPENED] = True
