"""The Code space page: images that excite a class or a unit most, drawn by a generator, as they come about."""

from dataclasses import replace
from functools import partial

import streamlit as st

from .. import code_space, controls, panels, run_panels
from ..code_space import Outcome
from ..controls import LABELS, key
from ..jobs import View
from ..networks import DIGITS, Subject
from ..state import EXPLAIN, GENERATORS, MOST_RUNS, MOST_STEPS, PIXELS, PRIORS, SPANS, Settings, escaped

_TEXT = (
    "A generator draws an image for each code. From a random code clearly of its class, each run climbs to codes "
    "whose images excite the chosen class or unit more, and stays among the codes that the generator was trained on."
)
_ELSEWHERE = key("elsewhere")
_PIXEL_TEXT = "Without a generator the pixels themselves are changed, from grey noise on, and kept small and smooth."


def page() -> None:
    """Draw the page."""
    arrived = controls.arrived("code-space")
    fields = ("generator", "explain", "span", "prior", "runs", "seed", "steps", "stop_at")
    panels.network_frame(
        "code-space", "What would excite it most?", fields, partial(_explore, arrived=arrived),
        partial(_suited, arrived=arrived),
    )  # fmt: skip


def _suited(settings: Settings, arrived: bool) -> Settings:
    """What fits this page; what was shown elsewhere before is kept for the way back."""
    found = code_space.suited(settings, arrived)
    if found.network != settings.network and settings != Settings():
        st.session_state[_ELSEWHERE] = settings
    return found


def _explore(settings: Settings, subject: Subject, arrived: bool) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    if settings.explain == "neuron" and not settings.neuron:
        settings = replace(settings, neuron=code_space.middle(subject.layers[settings.layer]))
    controls.put(settings, "target", "layer", "neuron")
    with st.sidebar:
        _widgets(settings, subject)
    plan = code_space.plan_of(settings, subject)
    unit = code_space.described(plan, subject)
    st.markdown(_PIXEL_TEXT if settings.generator == PIXELS else _TEXT)
    st.subheader(escaped(f"{LABELS[settings.generator]}: {subject.name}, {unit}"))
    if plan.runs < settings.runs:
        st.info(f"{subject.name} sees so many pixels that {plan.runs} runs are made at a time.")
    name = f"code-space.{plan.name}"
    panels.forget_work(name)

    def draw(view: View[Outcome]) -> None:
        if view.latest is not None:
            run_panels.runs(view.latest, unit, view.running)

    label = f"Maximise with {plan.runs} run{'s' if plan.runs > 1 else ''}"
    outcome = panels.work(name, label, partial(code_space.maximize, plan=plan, subject=subject), draw, start=arrived)
    if outcome is not None:
        run_panels.files(outcome)
        run_panels.verdict(name, outcome)
        run_panels.last_sixteen(outcome, unit)
        with st.expander("Reproduce this view"):
            st.code(controls.link(settings), language=None)
            st.code(code_space.snippet(outcome, subject))
    if settings.explain == "neuron":
        controls.go_on("deconvnet", "Reconstruct this unit without a picture", settings)
    controls.go_on("attribute", "Attribute this class or unit in a picture", settings)
    if elsewhere := st.session_state.get(_ELSEWHERE):
        controls.go_on("attribute", f"Back to {elsewhere.network}, {elsewhere.image}", elsewhere)
    return settings


def _widgets(settings: Settings, subject: Subject) -> None:
    generators = GENERATORS if subject.name == DIGITS else (PIXELS,)
    st.segmented_control(
        "Drawn by", generators, format_func=LABELS.__getitem__, key=key("generator"), required=True,
        help=f"The GANs draw digits, for {DIGITS}. Without one the pixels are changed.",
    )  # fmt: skip
    st.segmented_control("Maximise", EXPLAIN, format_func=LABELS.__getitem__, key=key("explain"), required=True)
    if settings.explain == "class":
        controls.class_list("Class", subject.model.classes, f"the first: {subject.model.classes[0]}", "target")
        st.number_input("Stop at probability", 0.01, 1.0, step=0.01, key=key("stop_at"))
    else:
        controls.layer_list(subject.layers)
        controls.neuron_inputs(subject.layers[settings.layer])
        if code_space.has_channels(subject.layers[settings.layer]):
            st.segmented_control("Of the unit", SPANS, format_func=LABELS.__getitem__, key=key("span"), required=True)
    left, right = st.columns(2)
    left.number_input("Runs", 1, MOST_RUNS, key=key("runs"))
    right.number_input("First seed", 0, 999_999, key=key("seed"))
    left.number_input("Steps at most", 1, MOST_STEPS, key=key("steps"))
    if settings.generator != PIXELS:
        right.selectbox("Prior of the codes", PRIORS, key=key("prior"))
