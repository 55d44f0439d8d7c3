"""Long work on a page: a button that starts it, its progress, and a button that stops it."""

from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from ..server.connection import connection_of_this_session
from ..server.jobs import PATIENCE_SECONDS, Job, Task
from ..server.turns import JOBS, PROCESSOR, turns_on
from ..server.untrusted_text import markdown_sentence
from .page_state import key

T = TypeVar("T")

_POLL_SECONDS = 0.5
# Charts are drawn less often: at every look, the work would take twice as long, since it waits for its own charts.
_DRAW_SECONDS = 1.5


def work(
    name: str,
    label: str,
    task: Callable[[Task], T],
    draw: Callable[..., None] | None = None,
    heavy: bool = True,
    patience_seconds: float = PATIENCE_SECONDS,
    device: str = PROCESSOR,
) -> Any:
    """A button that starts long work, then its progress with a button that stops it.

    Args:
        name: of the work, with everything it depends on: another name is other work.
        label: on the button.
        task: the work, see `jobs.Job`. It must not use Streamlit.
        draw: draws the state of the work, a `jobs.JobView`; called repeatedly while it runs, and at the end.
        heavy: whether it takes turns with the other work of the server; a mere download need not.
        patience_seconds: how long it goes on while its page is not looked at, as when another page is shown.
        device: the device that it uses.

    Returns:
        Its result, or its last intermediate result if it was stopped, once it has ended; else None.
    """
    place = key(f"job.{name}")
    job: Job[T] | None = st.session_state.get(place)
    ended = job is not None and not job.look().running
    if job is None or (ended and (job.look().error or not job.look().completed)):
        if job is not None and job.look().error:
            st.error(markdown_sentence(job.look().error))
        button = st.empty()
        if not button.button(label, key=key(f"start.{name}"), icon=":material/play_arrow:"):
            return _drawn(job, draw) if job is not None else None
        button.empty()
        turns = turns_on(device, JOBS) if heavy else None
        job = st.session_state[place] = Job(task, connection_of_this_session(), patience_seconds, turns, device)
        ended = False
    if ended:
        return _drawn(job, draw)
    _watch(name, job)
    if draw:
        _watch_charts(job, draw)
    return None


def _drawn(job: Job[T], draw: Callable[..., None] | None) -> Any:
    """Draw a job that has ended. Returns its result, or else its last intermediate result."""
    view = job.look()
    if draw:
        draw(view)
    return view.latest


def forget_work(kept: str) -> None:
    """Stop all other work of a kind, and drop its results.

    Args:
        kept: the name of the work that is kept, `kind.parameters`; work whose name begins with it is kept too.
    """
    kind = key(f"job.{kept.partition('.')[0]}.")
    for place in [place for place in st.session_state if str(place).startswith(kind)]:
        if not str(place).startswith(key(f"job.{kept}")):
            st.session_state.pop(place).stop()


@st.fragment(run_every=_POLL_SECONDS)
def _watch(name: str, job: Job[T]) -> None:
    view = job.look()
    if not view.running:
        st.rerun()
    st.progress(view.progress, view.message or "Starting …")
    st.button("Stop", key=key(f"stop.{name}"), on_click=job.stop)


@st.fragment(run_every=_DRAW_SECONDS)
def _watch_charts(job: Job[T], draw: Callable[..., None]) -> None:
    draw(job.look())
