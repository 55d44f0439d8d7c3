"""The Invariance page: what does invariant representation mean? Three figures, measured while one looks."""

from functools import partial

import streamlit as st

from .. import code_space, controls, drawings, image_sets, invariance_reports, invariances, panels, saving
from ..controls import LABELS, key
from ..invariances import Findings, Question
from ..jobs import View
from ..networks import DIGITS, Subject
from ..state import GENERATORS, LEAST_IMAGES, MOST_IMAGES, MOST_STEPS, PIXELS, Settings, escaped

_TEXT = (
    "A unit is *invariant* to a change of the picture if its response stays while it still tells contents apart. Then "
    "what it likes best is a whole set of pictures, not one. All units lie in the middle of the picture."
)
_MOST_RUNS = 16


def page() -> None:
    """Draw the page."""
    arrived = controls.arrived("invariance")
    panels.network_frame(
        "invariance", "What does invariant representation mean?", ("generator", "count", "runs", "ascent", "seed"),
        _explore, partial(code_space.suited, arrived=arrived),
    )  # fmt: skip


def _explore(settings: Settings, subject: Subject) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    st.markdown(_TEXT)
    if sentence := invariances.refusal(subject):
        st.info(sentence)
        return settings
    layers = invariances.layers_of(subject)
    settings = invariances.with_unit(settings, subject, layers)
    data, note = invariances.data_of(settings, subject)
    if note:
        st.warning(note)
    controls.put(settings, "layer", "neuron")
    st.session_state[key("data")] = data
    with st.sidebar:
        _widgets(settings, subject, layers)
    st.caption(f"{image_sets.LABELS[data]}; chosen unit: {escaped(settings.layer)}, channel {settings.neuron[0]}")
    for figure in invariances.FIGURES:
        st.subheader(invariances.TITLES[figure])
        st.markdown(invariances.TEXTS[figure])
        if figure == "C" and settings.generator == PIXELS:
            st.info(
                f"Solutions are linked through the codes of a generator. The shipped ones draw digits: see {DIGITS}."
            )
            continue
        _section(invariances.question_of(figure, settings, subject, data), subject)
    with st.expander("Link to this view"):
        st.code(controls.link(settings), language=None)
    controls.go_on("deconvnet", "Reconstruct the chosen unit without a picture", settings)
    controls.go_on("code-space", "Maximise the chosen unit", code_space.opening(settings))
    return settings


def _widgets(settings: Settings, subject: Subject, layers: list[str]) -> None:
    sets = [name for name in image_sets.fitting(subject.model) if image_sets.available(name)]
    st.selectbox("Images", sets, format_func=image_sets.LABELS.__getitem__, key=key("data"))
    st.number_input("How many", LEAST_IMAGES, MOST_IMAGES, step=50, key=key("count"))
    st.selectbox("Layer", layers, key=key("layer"))
    size = subject.layers[settings.layer][0]
    st.number_input("Channel", 0, size - 1, key=key("neuron.0"), help=f"0 to {size - 1}")
    generators = GENERATORS[:2] if subject.name == DIGITS else (PIXELS,)
    st.segmented_control(
        "Maximised in the codes of", generators, format_func=LABELS.__getitem__, key=key("generator"), required=True
    )
    left, right = st.columns(2)
    left.number_input("Runs", 1, 64, key=key("runs"), help=f"For each unit of C, 2 to {_MOST_RUNS}.")
    right.number_input("Steps", 1, MOST_STEPS, key=key("ascent"), help="Of each run; none stops earlier.")
    st.number_input("Seed", 0, 999_999, key=key("seed"))


def _section(question: Question, subject: Subject) -> None:
    """One figure: its button, its progress, and what was found."""
    name = f"invariance-{question.figure}.{question.name}"
    panels.forget_work(name)

    def draw(view: View[Findings]) -> None:
        if view.latest is not None:
            _findings(view.latest)

    findings = panels.work(
        name, f"Measure {question.figure}", partial(invariances.measure, question=question, subject=subject), draw
    )
    if findings is not None:
        file = f"invariance-{question.figure}-{question.name}.npz"
        make = partial(invariance_reports.npz, findings)
        saving.button("NPZ", make, file, "application/octet-stream", key(f"NPZ.{question.figure}"))
        with st.expander(f"Program for {question.figure}"):
            st.code(invariance_reports.snippet(question, subject))


def _findings(findings: Findings) -> None:
    statement, figure = invariance_reports.statement(findings), findings.question.figure
    charts = invariance_reports.panels(findings)
    columns = st.columns(min(len(charts), 3 if len(charts) % 3 == 0 else 2))
    for index, chart in enumerate(charts):
        columns[index % len(columns)].plotly_chart(
            chart, key=key(f"invariance.{figure}.{index}"), config=panels.SAVED_CHART,
            alt=f"{chart.layout.title.text or ''} {statement}".strip(),
        )  # fmt: skip
    st.markdown(escaped(statement))
    if findings.solutions is not None:
        st.image(
            findings.solutions, width="content",
            alt="Solutions of the chosen unit, and the path between the two that the highest barrier parts",
        )  # fmt: skip
    st.caption(drawings.cost(findings), help=drawings.COST)
