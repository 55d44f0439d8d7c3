"""A badge under each map: how far it can be trusted. It appears without a request, after the maps.

A page calls `draw` under each map, which shows the badge if it is kept. When the page is drawn, `check` measures the
others in the background, one after the other. Each badge looks for its value by itself, as a fragment, until it has it:
the page is not drawn again. Work for a page or a view that is not shown any more is stopped.
"""

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import streamlit as st

from plugin import figures
from plugin.experiments.faithfulness import RemovalCurves

from ..maps import badges, map_names
from ..maps.answers import Answer
from ..maps.badges import Badge, Level
from ..maps.questions import Asked
from ..server.connection import ask_no_more, connection_of_this_session
from ..server.jobs import Job, Task
from ..server.turns import MAPS, PROCESSOR, ahead_of_this
from ..server.untrusted_text import escaped, markdown_sentence
from . import chart_options, kept_results
from .page_state import key

# A colour and a sign for each level: nobody has to tell colours apart.
_SIGNS = {
    Level.GOOD: ("green", "✓"),
    Level.MEDIUM: ("orange", "~"),
    Level.BAD: ("red", "✗"),
    Level.UNKNOWN: ("gray", "?"),
}
_WAITING = "How far can this map be trusted? It is being checked …"
_POLL_SECONDS = 1.0
# How long the work goes on for a page that does not ask. Browsers let hidden pages ask once a minute; for these it
# begins again when they are seen.
_PATIENCE_SECONDS = 20.0
# How long each step of a check waits at most while a user waits for maps, or for the next page.
_WAY_SECONDS = 2.0
# The pause after a page was drawn: its browser draws it, too, and a user who goes on at once is not slowed down.
_STILL_SECONDS = 0.7
# The maps on the page that lack a badge, and the `_Checks` that were begun for them.
_WANTED, _JOB = key("badges.wanted"), key("badges.job")
_CURVES = "Score while parts of the picture are removed or put back, by the map and in random order"


@dataclass
class _Checks:
    """The checks that were begun for a page.

    Attributes:
        keys: the keys of the maps.
        job: the job that measures their badges; set once it has begun.
        drawn: when the page was drawn last, by the monotonic clock.
    """

    keys: set[Hashable]
    job: Job[None] = field(init=False)
    drawn: float = field(default_factory=time.monotonic)


def draw(asked: Asked, result: Answer, name: str = "", title: str = "") -> None:
    """The badge of a map, or else a note that the map is being checked.

    Args:
        asked: the question that the map answers.
        result: the map.
        name: tells the maps of a page apart, and may be part of a key; without one the badge has no details.
        title: of the map, where it does not stand above the badge.
    """
    wait = None
    if _kept(asked) is None:
        wanted = st.session_state.setdefault(_WANTED, [])
        wanted.append((asked, result))
        # They are measured in this order. If all looked each second, a busy server would do nothing else.
        wait = _POLL_SECONDS * len(wanted)
    st.fragment(_draw, run_every=wait)(asked, name, title)


def _draw(asked: Asked, name: str, title: str) -> None:
    badge, start = _kept(asked), f"{escaped(title)}: " if title else ""
    if badge is None:
        st.caption(start + _WAITING)
        return
    ask_no_more()
    if not badges.verdicts(badge):
        st.caption(start + _coloured(badge))
        return
    st.markdown(start + _coloured(badge))
    if not name:
        return
    label = f"How far to trust {escaped(title or map_names.title(asked.question))}"
    # Drawn when it is opened: the curves of twelve maps take half a second.
    details = st.expander(label, key=key(f"trust.{name}"), on_change="rerun")
    if details.open:
        with details:
            st.markdown("\n".join(f"* {escaped(sentence)}" for sentence in badges.sentences(badge)))
            if badge.removal is not None:
                _curves(badge.removal, name)


def check() -> None:
    """Begin to measure the badges that the page lacks; continue or stop the checks begun before. Called last of all."""
    missing: list[tuple[Asked, Answer]] = st.session_state.pop(_WANTED, [])
    wanted: set[Hashable] = {kept_results.of_asked(asked) for asked, _ in missing}
    checks: _Checks | None = st.session_state.pop(_JOB, None)
    if checks is not None and not (wanted and wanted <= checks.keys):
        checks.job.stop()
        checks = None
    if not missing:
        return
    if checks is not None and checks.job.look().error:
        st.session_state[_JOB] = checks
        st.warning(markdown_sentence(f"The maps could not be checked: {checks.job.look().error}"))
        return
    if checks is None or not checks.job.look().running:  # in the latter case the page did not look for too long
        checks = _begun(missing, wanted)
    checks.drawn = time.monotonic()
    st.session_state[_JOB] = checks
    _watch(checks)


def _begun(missing: Sequence[tuple[Asked, Answer]], wanted: set[Hashable]) -> _Checks:
    checks = _Checks(wanted)
    checks.job = Job(lambda task: _measure(missing, task, checks), connection_of_this_session(), _PATIENCE_SECONDS)
    return checks


@st.fragment(run_every=_POLL_SECONDS)
def _watch(checks: _Checks) -> None:
    """Look at the work, which ends if its page does not look. Draw the page again if it ended too early."""
    if checks.job.look().running:
        return
    if any(kept_results.badges.peek(each) is None for each in checks.keys):
        st.rerun()
    ask_no_more()


def _kept(asked: Asked) -> Badge | None:
    return kept_results.badges.peek(kept_results.of_asked(asked))


def _measure(maps: Sequence[tuple[Asked, Answer]], task: Task, checks: _Checks) -> None:
    """The work: one badge after the other."""
    for done, (asked, result) in enumerate(maps):

        def report(progress: float = done / len(maps), device: str = asked.subject.device) -> None:
            if device == PROCESSOR:  # where the checks do not take turns with maps
                _wait_until_still(checks, task, progress)
                MAPS.give_way(_WAY_SECONDS)
            task.report(progress)

        kept_results.badges.get(
            kept_results.of_asked(asked),
            lambda asked=asked, result=result, report=report: badges.measure(asked, result, report),  # type: ignore[misc]
            lambda ahead: task.report(0.0, ahead_of_this(ahead)),
            asked.subject.device,
        )


def _wait_until_still(checks: _Checks, task: Task, progress: float) -> None:
    """Wait while a page has just been drawn; raises `Stopped` if the work is told to end."""
    end = time.monotonic() + _WAY_SECONDS
    while (now := time.monotonic()) < min(checks.drawn + _STILL_SECONDS, end):
        task.report(progress)
        time.sleep(min(0.1, checks.drawn + _STILL_SECONDS - now))


def _coloured(badge: Badge) -> str:
    """`badges.short_text` in Markdown, each answer on its colour and with its sign."""
    parts = []
    for verdict in badges.verdicts(badge):
        colour, sign = _SIGNS[verdict.level]
        parts.append(f":{colour}-background[{escaped(f'{sign} {verdict.short}')}]")
    rest = escaped(badges.unchecked(badge))
    return " · ".join([*parts, *filter(None, [rest])])


def _curves(removal: RemovalCurves, name: str) -> None:
    figure = chart_options.on_page(figures.score_curves(removal.shares.numpy(), badges.curves(removal), "score"))
    st.plotly_chart(figure, key=key(f"removal.{name}"), config=chart_options.SAVED, alt=_CURVES)
    st.dataframe(
        [{"Curve": line, "Area": round(area, 3)} for line, area in badges.areas(removal).items()],
        hide_index=True, alt="Area under each curve",
    )  # fmt: skip
    st.caption(
        "The score is the explained output. Deletion removes the most positive parts first and should fall early; "
        "insertion puts them back in the same order and should rise early (Petsiuk et al. 2018; Samek et al. 2017). "
        "Areas are mean heights."
    )
