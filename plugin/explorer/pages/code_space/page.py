"""The Code space page: images that excite a class or a unit most, drawn by a generator, as they come about."""

from dataclasses import replace
from functools import partial

import streamlit as st

from ...fitting import generator_of
from ...inputs.layer_outputs import has_channels, middle
from ...inputs.offered_networks import DIGITS
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import PIXELS
from ...server.jobs import View
from ...settings import EXPLAIN, GENERATORS, MOST_RUNS, MOST_STEPS, PRIORS, SPANS, Settings
from ...untrusted_text import escaped
from ...widgets import controls, page_state
from ...widgets.background_work import forget_work, work
from ...widgets.page_frame import network_frame, offer_alone
from ...widgets.page_state import key
from . import run_sections
from .plans import Plan, described, plan_of
from .run_programs import program
from .runs import Outcome, maximize

_TEXT = (
    "A generator draws an image for each code. From a random code clearly of its class, each run climbs to codes "
    "whose images excite the chosen class or unit more, and stays among the codes that the generator was trained on."
)
_PIXEL_TEXT = "Without a generator the pixels themselves are changed, from grey noise on, and kept small and smooth."


def draw() -> None:
    """Draw the page."""
    fields = ("explain", "span", "prior", "runs", "seed", "steps", "stop_at")
    network_frame("code-space", "What would excite it most?", fields, _explore, DIGITS)


def _explore(settings: Settings, subject: Subject) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    if settings.explain == "neuron" and not settings.neuron:
        settings = replace(settings, neuron=middle(subject.layers[settings.layer]))
    page_state.put(settings, "target", "layer", "neuron")
    with st.sidebar:
        _widgets(settings, subject)
    plan = plan_of(settings, subject)
    unit = described(plan, subject)
    st.markdown(_PIXEL_TEXT if plan.generator == PIXELS else _TEXT)
    if subject.name != DIGITS:
        st.info(
            f"The shipped GANs draw digits and have no code space for {escaped(subject.name)}: its pixels are changed."
        )
        offer_alone(DIGITS)
    st.subheader(escaped(f"{GENERATORS[plan.generator]}: {subject.name}, {unit}"))
    if plan.runs < settings.runs:
        st.info(f"{subject.name} sees so many pixels that {plan.runs} runs are made at a time.")
    _runs(settings, subject, plan, unit)
    _onward(settings)
    return settings


def _runs(settings: Settings, subject: Subject, plan: Plan, unit: str) -> None:
    """The runs, which start on a click, and what can be done with them."""
    name = f"code-space.{plan.name}"
    forget_work(name)

    def show(view: View[Outcome]) -> None:
        if view.latest is not None:
            run_sections.runs(view.latest, unit, view.running)

    label = f"Maximise with {plan.runs} run{'s' if plan.runs > 1 else ''}"
    outcome = work(name, label, partial(maximize, plan=plan, subject=subject), show, device=plan.device)
    if outcome is not None:
        run_sections.files(outcome, unit)
        run_sections.verdict(name, outcome)
        run_sections.last_sixteen(outcome, unit)
        with st.expander("Reproduce this view"):
            st.code(page_state.link(settings), language=None)
            st.code(program(outcome, subject))


def _onward(settings: Settings) -> None:
    if settings.explain == "neuron":
        page_state.go_on("deconvnet", "Reconstruct this unit without a picture", settings)
    page_state.go_on("attribute", "Attribute this class or unit in a picture", settings)


def _widgets(settings: Settings, subject: Subject) -> None:
    if subject.name == DIGITS:
        page_state.put(settings, "generator")
        controls.switch("Drawn by", GENERATORS, "generator", "Without a generator the pixels are changed.")
    controls.switch("Maximise", EXPLAIN, "explain")
    if settings.explain == "class":
        controls.class_list("Class", subject.model.classes, f"the first: {subject.model.classes[0]}", "target")
        st.number_input("Stop at probability", 0.01, 1.0, step=0.01, key=key("stop_at"))
    else:
        controls.layer_list(subject.layers)
        controls.neuron_inputs(subject.layers[settings.layer])
        if has_channels(subject.layers[settings.layer]):
            controls.switch("Of the unit", SPANS, "span")
    left, right = st.columns(2)
    left.number_input("Runs", 1, MOST_RUNS, key=key("runs"))
    right.number_input("First seed", 0, 999_999, key=key("seed"))
    left.number_input("Steps at most", 1, MOST_STEPS, key=key("steps"))
    if generator_of(settings) != PIXELS:
        right.selectbox("Prior of the codes", PRIORS, key=key("prior"))
