"""The Code space page: images that excite a class or a unit most, drawn by a generator, as they come about."""

from dataclasses import replace
from functools import partial

import streamlit as st

from ...choices.settings import (
    DRAWN_BY,
    EXPLAIN,
    LEAST_IMAGES,
    MOST_IMAGES,
    MOST_RUNS,
    MOST_STEPS,
    PRIORS,
    SPANS,
    UNTIL,
    Settings,
)
from ...inputs import image_sets
from ...inputs.layer_outputs import has_channels, middle
from ...inputs.offered_networks import DIGITS
from ...inputs.offered_pictures import Picture
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import SPACES, generators_for
from ...server.jobs import JobView
from ...server.untrusted_text import escaped
from ...widgets import controls, page_state
from ...widgets.background_work import forget_work, work
from ...widgets.input_choice import open_picture
from ...widgets.page_frame import network_frame, offer_alone
from ...widgets.page_state import key
from . import run_sections
from .plans import RunPlan, asks_for_picture, described, endings, plan_of, real_sets, settled
from .run_programs import program
from .runs import Outcome, maximize

_TEXT = (
    "A generator draws an image for each code. From a random code clearly of its class, each run climbs to codes "
    "whose images excite the chosen class or unit more, and stays among the codes that the generator was trained on."
)
_SPACE_TEXTS = {
    "fourier": (
        "Each run climbs from grey noise in the Fourier coefficients of an image, where large structures change as "
        "easily as fine ones, and looks at the image from a slightly other place at each step (Olah et al. 2017)."
    ),
    "maco": (
        "Each run turns the phases of an image's Fourier coefficients, whose magnitudes stay those of photographs, and "
        "looks at four crops at each step (Fel et al. 2023). A step takes about four times as long."
    ),
    "pixels": (
        "Each run climbs in the pixels themselves, from grey noise on, and looks at the image from a slightly other "
        "place at each step. Nothing favours large structures: expect noise."
    ),
}
_DRAWING = "A generator draws images like its training data. A space needs no generator, and suits any network."


def draw() -> None:
    """Draw the page."""
    fields = ("explain", "span", "prior", "runs", "seed", "steps", "stop_at", "count")
    network_frame("code-space", "What would excite it most?", fields, _explore, DIGITS)


def _explore(settings: Settings, subject: Subject) -> Settings:
    """Everything below the header; the settings with the choices that were left open."""
    if settings.explain == "neuron" and not settings.neuron:
        settings = replace(settings, neuron=middle(subject.layers[settings.layer]))
    settings = settled(settings, subject)
    page_state.put(settings, "target", "contrast", "layer", "neuron", "generator", "until", "data")
    with st.sidebar:
        _widgets(settings, subject)
    picture = open_picture(settings) if asks_for_picture(settings, subject) else None
    if picture is None and asks_for_picture(settings, subject):
        return settings  # `open_picture` has named the missing picture
    plan = plan_of(settings, subject, picture)
    unit = described(plan, subject)
    st.markdown(_SPACE_TEXTS.get(plan.generator, _TEXT))
    if not generators_for(subject.name):
        st.caption(
            f"The shipped generators draw digits and the pictures of CIFAR-10, and have no code space for "
            f"{escaped(subject.name)}."
        )
    if subject.name != DIGITS:
        offer_alone(DIGITS)
    st.subheader(escaped(f"{DRAWN_BY[plan.generator]}: {subject.name}, {unit}"))
    if plan.runs < settings.runs:
        st.info(f"{subject.name} sees so many pixels that {plan.runs} runs are made at a time.")
    _runs(settings, subject, picture, plan, unit)
    _onward(settings)
    return settings


def _runs(settings: Settings, subject: Subject, picture: Picture | None, plan: RunPlan, unit: str) -> None:
    """The runs, which start on a click; once they have ended, also their files, their judgement and their program."""
    name = f"code-space.{plan.name}"
    forget_work(name)

    def show(view: JobView[Outcome]) -> None:
        if view.latest is not None:
            run_sections.runs(view.latest, unit, view.running)

    label = f"Maximise with {plan.runs} run{'s' if plan.runs > 1 else ''}"
    outcome = work(
        name, label, partial(maximize, plan=plan, subject=subject, picture=picture), show, device=plan.device
    )
    if outcome is not None:
        run_sections.files(outcome, unit)
        run_sections.verdict(name, outcome, subject)
        run_sections.last_sixteen(outcome, unit)
        with st.expander("Reproduce this view"):
            st.code(page_state.link(settings), language=None)
            st.code(program(outcome, subject))


def _onward(settings: Settings) -> None:
    if settings.explain == "neuron":
        page_state.go_on("deconvnet", "Reconstruct this unit without a picture", settings)
    page_state.go_on("attribute", "Attribute this class or unit in a picture", settings)


def _widgets(settings: Settings, subject: Subject) -> None:
    generators = generators_for(subject.name)
    drawing = {**generators, **SPACES}
    controls.switch("Drawn by" if generators else "Drawn in", drawing, "generator", _DRAWING)
    controls.switch("Maximise", EXPLAIN, "explain")
    if settings.explain == "class":
        controls.class_list("Class", subject.model.classes, f"the first: {subject.model.classes[0]}", "target")
        controls.subtracted_class(subject)
    else:
        controls.layer_list(subject.layers)
        controls.neuron_inputs(subject.layers[settings.layer])
        if has_channels(subject.layers[settings.layer]):
            controls.switch("Extent of the unit", SPANS, "span")
    left, right = st.columns(2)
    left.number_input("Runs", 1, MOST_RUNS, key=key("runs"))
    right.number_input("First seed", 0, 999_999, key=key("seed"))
    left.number_input("Steps at most", 1, MOST_STEPS, key=key("steps"))
    if settings.generator not in SPACES:
        right.selectbox("Prior of the codes", PRIORS, key=key("prior"))
    _ending(settings, subject)


def _ending(settings: Settings, subject: Subject) -> None:
    """The widgets for the end of the runs."""
    possible = endings(settings, subject)
    st.selectbox("End at", possible, format_func=UNTIL.__getitem__, key=key("until"))
    if settings.until == "probability":
        st.number_input("Stop at probability", 0.01, 1.0, step=0.01, key=key("stop_at"))
    if settings.until == "data":
        st.selectbox(
            "Images", real_sets(settings, subject), format_func=image_sets.LABELS.__getitem__, key=key("data"),
            help="Runs for a class end at the median probability of its images, for another unit at the largest value.",
        )  # fmt: skip
        st.number_input("How many", LEAST_IMAGES, MOST_IMAGES, step=50, key=key("count"))
