"""Parts of the Code space page: runs as they come about, their files, the judge's verdict, and the last sixteen."""

from functools import partial

import streamlit as st

from ...inputs.subject import Subject
from ...maps.map_names import file_name
from ...server.download_button import download_button
from ...server.jobs import JobView
from ...server.meter import COST, cost
from ...server.untrusted_text import escaped
from ...widgets import chart_options
from ...widgets.background_work import work
from ...widgets.page_state import key
from . import judgements, run_reports
from .judgements import Judgement
from .last_runs import remembered
from .runs import Outcome

_LAST = key("last_runs")


def runs(outcome: Outcome, unit: str, running: bool) -> None:
    """The images beside the curves, also while the work goes on."""
    images, curves = st.columns([2, 3])
    images.image(run_reports.address(outcome), width="content", alt=run_reports.spoken(outcome, unit))
    with curves:
        st.plotly_chart(
            chart_options.on_page(run_reports.curves(outcome)), key=key("curves"), config=chart_options.MAP,
            alt=f"Value by step, a line per run and their median. {run_reports.statement(outcome, running)}",
        )  # fmt: skip
        st.markdown(run_reports.statement(outcome, running))
        if note := run_reports.silence(outcome):
            st.info(note)
        if note := run_reports.shortfall(outcome):
            st.warning(note)
        st.caption(cost(outcome), help=COST)


def files(outcome: Outcome, unit: str) -> None:
    """Buttons that download the runs, and a table with a line per run."""
    file = file_name(outcome.plan.network, unit, outcome.plan.generator, outcome.plan.name)
    with st.container(horizontal=True):
        for kind, make in (("PNG", run_reports.png), ("GIF", run_reports.gif), ("NPZ", run_reports.npz)):
            download_button(f"{kind} of the runs", partial(make, outcome), f"{file}.{kind.lower()}", key(kind))
    with st.expander("Run by run"):
        st.dataframe(run_reports.rows(outcome), hide_index=True, alt="Seed, value and steps of each run")


def verdict(name: str, outcome: Outcome, subject: Subject) -> None:
    """On request, the verdict of a network that took no part, on the runs and on two simpler methods."""
    st.subheader("Does anyone else see it?")
    if sentence := judgements.obstacle(subject):
        st.info(sentence)
        return

    def show(view: JobView[Judgement]) -> None:
        if view.result is not None:
            _judgement(view.result)

    place = f"{name}.judge.{outcome.result.step}"
    judge = partial(judgements.judge, outcome=outcome, subject=subject)
    work(place, "Judge, beside two baselines", judge, show, device=outcome.device)


def _judgement(judgement: Judgement) -> None:
    st.caption(judgements.caption(judgement))
    st.plotly_chart(
        chart_options.on_page(judgements.figure(judgement)), key=key("scorecard"), config=chart_options.CLICKED,
        alt=judgements.spoken(judgement),
    )  # fmt: skip
    st.dataframe(judgements.table(judgement), hide_index=True, alt="The scorecard as a table")
    for column, (label, images) in zip(st.columns(3), judgements.pictures(judgement).items(), strict=False):
        column.caption(label)
        column.image(run_reports.picture(images), width="stretch", alt=f"{len(images)} images: {label}")


def last_sixteen(outcome: Outcome, unit: str) -> None:
    """The last runs of this session, if there are others than those above."""
    runs = st.session_state[_LAST] = remembered(st.session_state.get(_LAST, []), outcome, unit)
    if len({run.key[:2] for run in runs}) < 2:
        return
    st.subheader("The last sixteen runs")
    with st.container(horizontal=True):
        for run in runs:
            picture = run_reports.picture(run.image[None], 84)
            st.image(picture, escaped(run.label), width=84, alt=f"Maximises {run.label}")
