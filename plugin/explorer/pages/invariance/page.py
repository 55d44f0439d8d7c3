"""The Invariance page: three figures on the meaning of invariant representation, measured while one looks."""

from dataclasses import replace
from functools import partial

import streamlit as st

from ...choices.fitting import to_be_maximised
from ...choices.settings import LEAST_IMAGES, MOST_IMAGES, MOST_STEPS, Settings
from ...inputs import image_sets
from ...inputs.offered_networks import DIGITS
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import generators_for
from ...maps.map_names import file_name
from ...server.download_button import download_button
from ...server.jobs import JobView
from ...server.meter import COST, cost
from ...server.untrusted_text import escaped
from ...widgets import chart_options, controls, page_state
from ...widgets.background_work import forget_work, work
from ...widgets.page_frame import network_frame, offer_alone
from ...widgets.page_state import key
from . import figure_programs, figure_questions, figure_reports
from .figure_findings import FigureFindings, measure
from .figure_questions import FigureQuestion

_TEXT = (
    "A unit is *invariant* to a change of the picture if its response stays while it still tells contents apart. Then "
    "a whole set of pictures excites it most, not one. All units lie in the middle of the picture."
)


def draw() -> None:
    """Draw the page."""
    fields = ("count", "runs", "ascent", "seed")
    network_frame("invariance", "What does invariant representation mean?", fields, _explore, DIGITS, any_device=False)


def _explore(settings: Settings, subject: Subject) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    st.markdown(_TEXT)
    if sentence := figure_questions.refusal(subject):
        st.info(sentence)
        offer_alone(DIGITS)
        return settings
    layers = figure_questions.layers_of(subject)
    generators = generators_for(subject.name)
    if generators and settings.generator not in generators:
        settings = replace(settings, generator=next(iter(generators)))
    settings = figure_questions.with_unit(settings, subject, layers)
    data, note = figure_questions.data_of(settings, subject)
    if note:
        st.warning(note)
    settings = replace(settings, data=data)
    page_state.put(settings, "layer", "neuron", "data")
    with st.sidebar:
        _widgets(settings, subject, layers)
    st.caption(f"{image_sets.LABELS[data]}; chosen unit: {escaped(settings.layer)}, channel {settings.neuron[0]}")
    for figure in figure_questions.FIGURES:
        _section(figure, settings, subject)
    if subject.name != DIGITS:
        offer_alone(DIGITS)
    with st.expander("Link to this view"):
        st.code(page_state.link(settings), language=None)
    page_state.go_on("deconvnet", "Reconstruct the chosen unit without a picture", settings)
    page_state.go_on("code-space", "Maximise the chosen unit", to_be_maximised(settings))
    return settings


def _widgets(settings: Settings, subject: Subject, layers: list[str]) -> None:
    sets = [name for name in image_sets.fitting(subject.model) if image_sets.available(name)]
    st.selectbox("Images", sets, format_func=image_sets.LABELS.__getitem__, key=key("data"))
    st.number_input("How many", LEAST_IMAGES, MOST_IMAGES, step=50, key=key("count"))
    st.selectbox("Layer", layers, key=key("layer"))
    size = subject.layers[settings.layer][0]
    st.number_input("Channel", 0, size - 1, key=key("neuron.0"), help=f"0 to {size - 1}")
    if generators := generators_for(subject.name):
        page_state.put(settings, "generator")
        controls.switch("Maximised in the codes of", generators, "generator")
    left, right = st.columns(2)
    runs = f"For each unit of C, 2 to {figure_questions.MOST_RUNS}."
    left.number_input("Runs", 1, 64, key=key("runs"), help=runs)
    right.number_input("Steps", 1, MOST_STEPS, key=key("ascent"), help="Steps of each run; none stops earlier.")
    st.number_input("Seed", 0, 999_999, key=key("seed"))


def _section(figure: str, settings: Settings, subject: Subject) -> None:
    """One figure: its explanation, and its measurement where that is possible."""
    st.subheader(figure_questions.TITLES[figure])
    st.markdown(figure_questions.TEXTS[figure])
    if figure == "C" and not generators_for(subject.name):
        st.info(
            "Solutions are linked through the codes of a generator. The shipped ones draw digits, and the pictures of "
            f"CIFAR-10: open {DIGITS} or all-cnn-c."
        )
    else:
        _measurement(figure_questions.question_of(figure, settings, subject, settings.data), subject)


def _measurement(question: FigureQuestion, subject: Subject) -> None:
    """A button, its progress, and the findings."""
    figure = question.figure
    name = f"invariance-{figure}.{question.name}"
    forget_work(name)

    def show(view: JobView[FigureFindings]) -> None:
        if view.latest is not None:
            _findings(view.latest)

    findings = work(name, f"Measure {figure}", partial(measure, question=question, subject=subject), show)
    if findings is not None:
        file = file_name(subject.name, f"invariance-{figure}", question.name)
        download_button(
            f"NPZ of figure {figure}", partial(figure_reports.npz, findings), f"{file}.npz", key(f"NPZ.{figure}")
        )
        with st.expander(f"Program for {figure}"):
            st.code(figure_programs.program(question, subject))


def _findings(findings: FigureFindings) -> None:
    statement, figure = figure_reports.statement(findings), findings.question.figure
    charts = figure_reports.panels(findings)
    columns = st.columns(min(len(charts), 3 if len(charts) % 3 == 0 else 2))
    for index, chart in enumerate(charts):
        columns[index % len(columns)].plotly_chart(
            chart_options.on_page(chart), key=key(f"invariance.{figure}.{index}"), config=chart_options.SAVED,
            alt=f"{chart.layout.title.text or ''} {statement}".strip(),
        )  # fmt: skip
    st.markdown(escaped(statement))
    if findings.solutions is not None:
        st.image(
            findings.solutions, width="content",
            alt="Solutions of the chosen unit, and the path between the two with the highest barrier",
        )  # fmt: skip
    st.caption(cost(findings), help=COST)
