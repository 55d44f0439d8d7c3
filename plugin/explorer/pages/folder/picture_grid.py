"""Thumbnails with the network's predictions; each has a link to its maps on the Attribute page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ...choices.settings import Settings
from ...inputs.folder_predictions import FolderPredictions, KnownPictures
from ...server.turns import MAPS, ahead_of_this, turns_on
from ...server.untrusted_text import escaped, markdown_sentence
from ...widgets import page_state
from ...widgets.open_folders import with_picture

# Width of a cell in pixels, and length of the part of a name that fits into it.
_WIDTH, _LONGEST_NAME = 148, 17
# About as many pictures as a first screen holds.
_AT_ONCE = 8


@dataclass(frozen=True)
class _GridCell:
    """The places on the page for one picture, its link and its prediction."""

    picture: DeltaGenerator
    link: DeltaGenerator
    text: DeltaGenerator


def grid(settings: Settings, predictions: FolderPredictions, rows: Sequence[int]) -> KnownPictures:
    """Draw these pictures, and ask the network about those without a prediction.

    The pictures appear one by one, their predictions a few at a time.

    Returns:
        The findings afterwards.
    """
    before = predictions.findings()
    left = {*predictions.left(rows)}
    unread = [row for row in rows if row in left or (predictions.thumbnail(row) is None and row not in before.broken)]
    waiting = st.empty()
    cells = {}
    with st.container(horizontal=True, gap="small"):
        for row in rows:
            with st.container(width=_WIDTH, gap="small"):
                cells[row] = _GridCell(st.empty(), st.empty(), st.empty())
                _draw(cells[row], settings, predictions, row, before)
    if not unread:
        return before

    def told(ahead: int) -> None:
        waiting.info(ahead_of_this(ahead))

    with turns_on(predictions.subject.device, MAPS).turn(told):
        waiting.empty()
        for start in range(0, len(unread), _AT_ONCE):
            _ask(cells, settings, predictions, unread[start : start + _AT_ONCE])
    return predictions.findings()


def _ask(
    cells: Mapping[int, _GridCell], settings: Settings, predictions: FolderPredictions, rows: Sequence[int]
) -> None:
    """Read pictures and ask the network about them, and draw both as they come."""
    pixels = {}
    for row, seen in predictions.read(rows):
        _draw(cells[row], settings, predictions, row, predictions.findings())
        if seen is not None:
            pixels[row] = seen
    predictions.predict(pixels)
    after = predictions.findings()
    for row in pixels:
        cells[row].text.caption(_said(predictions, row, after))


def _draw(
    cell: _GridCell, settings: Settings, predictions: FolderPredictions, row: int, findings: KnownPictures
) -> None:
    """Draw a picture, its link and its prediction, as far as they are known."""
    name = predictions.collection.records[row].id
    if row in findings.broken:
        cell.picture.warning(markdown_sentence(findings.broken[row]))
    elif thumbnail := predictions.thumbnail(row):
        cell.picture.image(thumbnail, alt=name)
    last = name.rpartition("/")[2]
    label = escaped(last if len(last) <= _LONGEST_NAME else f"{last[: _LONGEST_NAME - 1]}…")
    if chosen := with_picture(settings, predictions, row):
        with cell.link:
            page_state.choose_on("attribute", label, chosen)
    else:
        cell.link.caption(label)
    cell.text.caption(_said(predictions, row, findings))


def _said(predictions: FolderPredictions, row: int, findings: KnownPictures) -> str:
    """The prediction and the label of a picture, as Markdown."""
    if row in findings.broken:
        return "broken"
    classes, label = predictions.subject.model.classes, int(findings.labels[row])
    labelled = f"labelled {escaped(classes[label])}" if label >= 0 else ""
    if not findings.known[row]:
        return labelled or "…"
    said = f"{escaped(classes[findings.predicted[row]])} {findings.confidence[row]:.0%}"
    mark = "" if label < 0 else "✗ " if findings.wrong[row] else "✓ "
    return f"**{mark}{said}**" + (f", {labelled}" if findings.wrong[row] else "")
