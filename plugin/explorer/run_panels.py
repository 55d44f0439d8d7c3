"""Parts of the Code space page: runs as they come about, their files, the judge's verdict, and the last sixteen."""

from functools import partial

import streamlit as st

from . import code_space, drawings, judging, panels, saving
from .code_space import Outcome
from .controls import key
from .jobs import View
from .judging import Judgement

_LAST = key("last_runs")


def runs(outcome: Outcome, unit: str, running: bool) -> None:
    """The images beside the curves; while the work goes on too."""
    images, curves = st.columns([2, 3])
    images.image(code_space.address(outcome), width="content", alt=code_space.spoken(outcome, unit))
    with curves:
        st.plotly_chart(
            code_space.curves(outcome), key=key("curves"), config=panels.CHART,
            alt=f"Value by step, a line per run and their median. {code_space.statement(outcome, running)}",
        )  # fmt: skip
        st.markdown(code_space.statement(outcome, running))
        if note := code_space.shortfall(outcome):
            st.warning(note)
        st.caption(drawings.cost(outcome), help=drawings.COST)


def files(outcome: Outcome) -> None:
    file = f"{outcome.plan.network}-{outcome.plan.generator}-{outcome.plan.name}"
    with st.container(horizontal=True):
        for kind, make, mime in (
            ("PNG", code_space.png, "image/png"),
            ("GIF", code_space.gif, "image/gif"),
            ("NPZ", code_space.npz, "application/octet-stream"),
        ):
            saving.button(kind, partial(make, outcome), f"{file}.{kind.lower()}", mime, key(kind))
    with st.expander("Run by run"):
        st.dataframe(code_space.rows(outcome), hide_index=True, alt="Seed, value and steps of each run")


def verdict(name: str, outcome: Outcome) -> None:
    """On request: what a network that took no part says, and what is easier to do."""
    st.subheader("Does anyone else see it?")
    if not judging.can_judge(outcome):
        st.info("There is a judge for digits only.")
        return

    def draw(view: View[Judgement]) -> None:
        if view.result is None:
            return
        st.caption(judging.caption(view.result))
        st.plotly_chart(
            judging.figure(view.result), key=key("scorecard"), config=panels.CLICKED_CHART,
            alt=judging.spoken(view.result),
        )  # fmt: skip
        st.dataframe(judging.table(view.result), hide_index=True, alt="The scorecard as a table")
        for column, (label, images) in zip(st.columns(3), judging.pictures(view.result).items(), strict=False):
            column.caption(label)
            column.image(code_space.picture(images), width="stretch", alt=f"{len(images)} images: {label}")

    place = f"{name}.judge.{outcome.result.step}"
    panels.work(place, "Judge, beside two baselines", partial(judging.judge, outcome=outcome), draw)


def last_sixteen(outcome: Outcome, unit: str) -> None:
    """Of this session, where they are not the runs above."""
    runs = st.session_state[_LAST] = code_space.remembered(st.session_state.get(_LAST, []), outcome, unit)
    if len({run.key[:2] for run in runs}) < 2:
        return
    st.subheader("The last sixteen runs")
    with st.container(horizontal=True):
        for run in runs:
            st.image(code_space.picture(run.image[None], 84), run.label, width=84, alt=f"Maximises {run.label}")
