"""The conservation ledger of a map by layer-wise relevance propagation: its table, its chart and its balance."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image

from plugin import figures
from plugin.attr import LRPTranspose
from plugin.heads import LOG_SOFTMAX, LOGITS, OUTPUTS, PLURALS
from plugin.propagation.lrp.ledger import Entry, Ledger

from ..choices import offered_rules
from ..inputs.subject import Subject
from .answers import answering
from .questions import Asked, LogitDifference, Question, constructed, explained

# Stands for the rule of a constant that is added on the way, which has none.
NO_RULE = "-"


@dataclass(frozen=True)
class LedgerRow:
    """A line of the table: `plugin.propagation.lrp.ledger.Entry` with the rule's short name."""

    layer: str
    rule: str
    entered: float
    left: float
    to_bias: float
    to_stabiliser: float


def compute(subject: Subject, image: Image.Image, question: Question) -> Ledger:
    """The ledger of a class's relevance, layer by layer from the output to the input.

    Args:
        subject: the network.
        image: RGB, any size.
        question: of one of the LRP presets, about a class.

    Raises:
        ValueError: there is no answer; the message is one sentence.
    """
    inputs = subject.preprocess(image)
    with answering(subject, question):
        network, target = explained(subject.model.network, question)
        rules = constructed(subject.model, question)["rules"]
        ledger = LRPTranspose(network, rules).ledger(inputs, target)
    if not isinstance(network, LogitDifference):
        return ledger
    # The difference of logits wraps the network, and its layers' names with it.
    entries = [replace(entry, layer=entry.layer.removeprefix(LogitDifference.PREFIX)) for entry in ledger]
    return replace(ledger, entries=tuple(entries))


def rows(ledger: Ledger, asked: Asked) -> list[LedgerRow]:
    """The table, from the output to the input."""
    offered = offered_rules.layer_rules(asked.subject.model.preprocessing, dict(asked.question.numbers))
    names = {str(call()): name for name, call in offered.items()}
    return [
        LedgerRow(e.layer, names.get(e.rule, e.rule), e.entered, e.left, e.to_bias, e.to_stabiliser)
        for e in ledger.entries
    ]


def rule_label(rule: str, question: Question) -> str:
    """The rule of a row, for people."""
    return offered_rules.rule_label(rule, dict(question.numbers).get("alpha", offered_rules.NUMBERS["alpha"]))


def arrays(ledger: Ledger) -> dict[str, NDArray[Any]]:
    """For an NPZ file: each column of the ledger from the output to the input, such as `ledger_layer` and `ledger_left`
    `(entries,)`, with the relevance at both ends, `ledger_output` and `ledger_input` `()`."""
    columns = {field.name: np.array([getattr(entry, field.name) for entry in ledger]) for field in fields(Entry)}
    columns |= {"output": np.array(ledger.output), "input": np.array(ledger.input)}
    return {f"ledger_{name}": values for name, values in columns.items()}


def figure(ledger: Ledger) -> go.Figure:
    """The chart."""
    return figures.ledger_bars(
        [entry.layer for entry in ledger],
        [entry.left for entry in ledger],
        [entry.to_bias for entry in ledger],
        [entry.to_stabiliser for entry in ledger],
    )


def balance(ledger: Ledger, asked: Asked) -> str:
    """The balance in plain text: the logit is the relevance of the input plus the absorbed relevance."""
    head = asked.subject.head
    called = OUTPUTS[LOGITS if head == LOG_SOFTMAX else head]  # LRP explains the logits below a log-softmax
    named = called.capitalize() if asked.question.contrast is None else f"Difference of {PLURALS[called]}"
    return f"{named} {ledger.output:.5g} = input relevance {ledger.input:.5g} + absorbed {ledger.absorbed:.5g}"


def remainder(ledger: Ledger) -> str:
    """The relevance that biases and stabilisers absorbed, and the relevance in no entry, in plain text."""
    biases, stabilisers = (sum(getattr(entry, name) for entry in ledger) for name in ("to_bias", "to_stabiliser"))
    text = f"(biases {biases:.5g}, stabilisers {stabilisers:.5g})"
    missing = ledger.output - ledger.input - ledger.absorbed
    # Rounding in float32 grows with the relevance that flows, which may be far more than the logit.
    flowing = max([abs(ledger.output), *(abs(entry.entered) for entry in ledger)])
    if abs(missing) <= 1e-3 * flowing:
        return text
    return f"{text}; {missing:.5g} is in no entry: it ended between layers, as in a softmax"


def statement(ledger: Ledger, asked: Asked) -> str:
    """The balance with its remainder, as Markdown."""
    return f"**{balance(ledger, asked)}** {remainder(ledger)}"


def idle(ledger: Ledger, rules: Sequence[tuple[str, str]]) -> str:
    """One sentence on rules for layers that took no part; empty if there are none."""
    layers = {entry.layer for entry in ledger}
    names = [layer for layer, _ in rules if layer not in layers]
    return f"No linear layer that ran is called {' or '.join(f'`{name}`' for name in names)}." if names else ""
