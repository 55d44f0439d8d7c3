"""The LRP page: one map by layer-wise relevance propagation, and where the relevance went on its way down."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from plugin.propagation.lrp.ledger import Ledger
from plugin.rules.presets import PRESETS

from ...choices.offered_methods import METHODS, lrp_key
from ...choices.offered_rules import NUMBERS, RULES, numbers_of
from ...choices.settings import BOUNDS, Settings
from ...inputs.subject import Subject
from ...maps import ledgers, rendering
from ...maps.questions import Asked, Look, Question, lrp_question
from ...maps.reports import Added
from ...maps.shown_maps import Shown
from ...server.untrusted_text import markdown_sentence
from ...widgets import chart_options, controls, kept_results, page_state
from ...widgets.about_methods import about_methods
from ...widgets.callbacks import uninterrupted
from ...widgets.map_columns import map_column, reproduce
from ...widgets.page_frame import frame
from ...widgets.page_state import key
from ...widgets.picture_overview import overview
from . import units_behind

_MAP_HEIGHT = 480
# Steps of the fields for the numbers of the rules.
_STEPS = {"epsilon": 0.01, "gamma": 0.05, "alpha": 0.5}
_HELP = {
    "epsilon": "Added to the denominators of the rule epsilon: the larger, the more of the weak parts it absorbs",
    "gamma": "By how much positive parts count more in the rule gamma; 0 is the rule epsilon",
    "alpha": "The weight of positive parts in the alpha-beta rule; that of negative ones, beta, is alpha - 1",
}
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


def draw() -> None:
    """Draw the page."""
    frame("lrp", "Where did the relevance go?", ("preset", *NUMBERS, "view", "percentile", "opacity"), _explore)


def _explore(settings: Settings, look: Look, probabilities: NDArray[np.float32]) -> Settings:
    """Everything below the header. A neuron that was chosen elsewhere stays chosen; this page explains a class."""
    top = int(probabilities.argmax())
    page_state.put(settings, "target", "contrast", "layer")
    with st.sidebar:
        _widgets(settings, look.subject, top)
    overview(look, probabilities, top if settings.target is None else settings.target)
    asked = look.ask(lrp_question(settings, top))
    _changes(asked.question)
    try:
        result, ledger = kept_results.result(asked), kept_results.ledger(asked)
    except ValueError as error:
        st.warning(markdown_sentence(error))
        return settings
    method = asked.question.method
    shown = Shown(settings, asked, result, rendering.limits({method: result}, settings)[method])
    left, chart = st.columns([1, 1])
    with left:
        map_column(shown, _MAP_HEIGHT, more=ledgers.arrays(ledger), read=True)
    with chart:
        _chart(ledger, asked)
    _table(ledger, settings, asked)
    if look.subject.layers:
        units_behind.draw(settings, asked)
    about_methods([method])
    reproduce(settings, [shown], Added(ledger))
    return settings


def _widgets(settings: Settings, subject: Subject, top: int) -> None:
    st.selectbox(
        "Rules", list(PRESETS), format_func=lambda name: METHODS[lrp_key(name)].label, key=key("preset"),
        help=(PRESETS[settings.preset].__doc__ or "").strip().splitlines()[0],
    )  # fmt: skip
    if names := numbers_of(settings.preset, settings.rules):
        for column, name in zip(st.columns(len(names)), names, strict=True):
            column.number_input(
                name.capitalize(), *BOUNDS[name], step=_STEPS[name], format="%g", key=key(name), help=_HELP[name]
            )
    controls.class_lists(subject, top)
    controls.display(subject.channels)


def _changes(question: Question) -> None:
    """The changes to the preset, with a button that undoes them."""
    changed = [f"{name} {value:g}" for name, value in question.numbers]
    changed += [f"`{layer}`: {ledgers.rule_label(rule, question)}" for layer, rule in question.rules]
    if changed:
        st.info(f"Changes to the preset: {', '.join(changed)}.")
        st.button("Back to the preset", on_click=_forget_changes)


def _chart(ledger: Ledger, asked: Asked) -> None:
    st.markdown("**Conservation, from the output down to the input**")
    st.markdown(ledgers.statement(ledger, asked))
    figure = chart_options.on_page(ledgers.figure(ledger))
    st.plotly_chart(figure, key=key("ledger"), config=chart_options.SAVED, alt=_ALT)


def _table(ledger: Ledger, settings: Settings, asked: Asked) -> None:
    """The ledger, in which the rules can be changed."""
    rows, numbers = ledgers.rows(ledger, asked), asked.question.numbers
    if note := ledgers.idle(ledger, settings.rules):
        st.warning(note)
    # Other rules give other rows, and a new key forgets the changes that were made to the old ones.
    table = key(f"rules.{settings.network}.{settings.preset}.{settings.rules}.{numbers}")
    st.data_editor(
        [asdict(row) for row in rows],
        key=table,
        hide_index=True,
        alt="The relevance of each layer, from the output to the input; the rule of a layer can be changed",
        disabled=["layer", *_NUMBERS],
        on_change=_choose_rules,
        args=([row.layer for row in rows], table),
        column_config={
            "layer": st.column_config.TextColumn("Layer"),
            "rule": st.column_config.SelectboxColumn(
                "Rule (click to change)",
                options=[*RULES, *{row.rule for row in rows} - {*RULES}],
                required=True,
                format_func=partial(ledgers.rule_label, question=asked.question),
            ),
            **{name: st.column_config.NumberColumn(label, format=form) for name, (label, form) in _NUMBERS.items()},
        },
    )


@uninterrupted
def _forget_changes() -> None:
    """Callback: give every layer the preset's rule again, with the preset's numbers."""
    page_state.change(rules=())
    page_state.put(Settings(), *NUMBERS)


@uninterrupted
def _choose_rules(layers: Sequence[str], table: str) -> None:
    """Callback of the table drawn under the session key `table`, whose rows are `layers`: take the edited rules."""
    rules = dict(page_state.last_settings().rules)
    for row, changes in st.session_state[table]["edited_rows"].items():
        # Rows of constants have no rule to change, and a rule outside the list cannot be given to a row.
        if changes.get("rule") in RULES:
            rules[layers[row]] = changes["rule"]
    page_state.change(rules=tuple(rules.items()))
