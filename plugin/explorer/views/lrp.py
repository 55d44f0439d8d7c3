"""The LRP page: one map by layer-wise relevance propagation, and where the relevance went on its way down."""

from dataclasses import asdict

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from plugin.propagation.lrp.ledger import Ledger
from plugin.rules.presets import PRESETS

from .. import attributions, caches, controls, drawings, ledgers, panels
from ..attributions import Question
from ..controls import key
from ..images import Picture
from ..lrp_rules import RULES
from ..methods import METHODS, lrp_key
from ..networks import Subject
from ..state import Settings, markdown_sentence

_MAP_HEIGHT = 480
_ALT = (
    "Bars of the relevance that each layer passed on, and that its bias and its stabiliser took; the table has them too"
)
# Columns of the table: their titles, and how their numbers are printed. Stabilisers take very little.
_NUMBERS = {
    "entered": ("Entered", "%.4f"),
    "left": ("Left below", "%.4f"),
    "to_bias": ("To bias", "%.4f"),
    "to_stabiliser": ("To stabiliser", "%.1e"),
}


def page() -> None:
    """Draw the page."""
    panels.frame("lrp", "Where did the relevance go?", ("preset", "view", "percentile", "opacity"), _explore)


def _explore(settings: Settings, subject: Subject, picture: Picture, probabilities: NDArray[np.float32]) -> Settings:
    """Everything below the header. A neuron that was chosen elsewhere stays chosen; here it is a class."""
    top = int(probabilities.argmax())
    controls.put(settings, "target", "contrast")
    with st.sidebar:
        st.selectbox(
            "Rules", list(PRESETS), format_func=lambda name: METHODS[lrp_key(name)].label, key=key("preset"),
            help=(PRESETS[settings.preset].__doc__ or "").strip().splitlines()[0],
        )  # fmt: skip
        controls.class_lists(subject.model.classes, top)
        controls.display(subject.channels)
    panels.overview(subject, picture, probabilities, top if settings.target is None else settings.target)
    question = attributions.lrp_question(settings, top)
    if settings.rules:
        changed = ", ".join(f"`{layer}`: {rule}" for layer, rule in settings.rules)
        st.info(f"Other rules than the preset's: {changed}.")
        st.button("Back to the preset", on_click=controls.forget_rules)
    try:
        result = caches.result(subject.identity, picture.digest, question, _subject=subject, _image=picture.image)
        ledger = caches.ledger(subject.identity, picture.digest, question, _subject=subject, _image=picture.image)
    except ValueError as error:
        st.warning(markdown_sentence(error))
        return settings
    limits = drawings.limits({question.method: result}, settings)
    shown = panels.Shown(settings, subject, question, result, limits[question.method])
    left, chart = st.columns([1, 1])
    with left:
        panels.map_column(shown, picture, _MAP_HEIGHT, more=ledgers.arrays(ledger))
    with chart:
        _chart(ledger, question)
    _table(ledger, settings, subject)
    panels.reproduce(settings, picture, [shown], ledger=True)
    return settings


def _chart(ledger: Ledger, question: Question) -> None:
    st.markdown("**Conservation, from the output down to the input**")
    st.markdown(ledgers.statement(ledger, question))
    st.plotly_chart(ledgers.figure(ledger), key=key("ledger"), config=panels.SAVED_CHART, alt=_ALT)


def _table(ledger: Ledger, settings: Settings, subject: Subject) -> None:
    """The ledger, in which the rules can be changed."""
    rows = ledgers.rows(ledger, subject)
    if note := ledgers.idle(ledger, settings.rules):
        st.warning(note)
    # Other rules give other rows, and a new key forgets the changes that were made to the old ones.
    table = key(f"rules.{settings.network}.{settings.preset}.{settings.rules}")
    st.data_editor(
        [asdict(row) for row in rows],
        key=table,
        hide_index=True,
        alt="The ledger, layer by layer, from the output to the input; the rule of a layer can be changed",
        disabled=["layer", *_NUMBERS],
        on_change=controls.choose_rules,
        args=([row.layer for row in rows], table),
        column_config={
            "layer": st.column_config.TextColumn("Layer"),
            "rule": st.column_config.SelectboxColumn(
                "Rule (click to change)", options=[*RULES, *{row.rule for row in rows} - {*RULES}], required=True
            ),
            **{name: st.column_config.NumberColumn(label, format=form) for name, (label, form) in _NUMBERS.items()},
        },
    )
