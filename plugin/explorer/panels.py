"""Parts of pages: opening a network and a picture with everything that can go wrong, and showing what came out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from plugin import figures

from . import caches, canvas, checkpoints, controls, downloads, drawings, images, networks, presence, saving, snippets
from .attributions import Question, Result
from .controls import key
from .images import Picture
from .jobs import Job, Task
from .methods import METHODS
from .networks import Subject
from .state import DRAWING, UPLOAD, Settings, fit, markdown_sentence, quoted
from .units import Box

T = TypeVar("T")

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["toImage", "autoScale2d", "select2d", "lasso2d"]}
# Charts that are no maps have no file of ours: their one button saves them as PNG.
SAVED_CHART = {"displaylogo": False, "displayModeBar": True, "modeBarButtons": [["toImage"]],
               "toImageButtonOptions": {"format": "png", "scale": 2}}  # fmt: skip
# Squares and bars are clicked, and have nothing to zoom.
CLICKED_CHART = {"displayModeBar": False}
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Shown:
    """A map on the page.

    Attributes:
        settings: how it is drawn, and of which network.
        subject: the network.
        question: what it answers.
        result: the answer.
        limit: where its colours end.
    """

    settings: Settings
    subject: Subject
    question: Question
    result: Result
    limit: float

    @property
    def label(self) -> str:
        """The method, for people."""
        return METHODS[self.question.method].label

    @property
    def name(self) -> str:
        """Tells the maps of a page apart, and is fit for a file and for a key."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", f"{self.settings.network}-{self.question.method}")


def frame(
    page: str,
    title: str,
    fields: Sequence[str],
    explore: Callable[[Settings, Subject, Picture, NDArray[np.float32]], Settings],
) -> None:
    """Draw what all pages have: the choice of network and picture, the header, and settings that come and go.

    Args:
        page: its name.
        title: its header.
        fields: the settings, besides network and picture, whose widgets do not depend on the network.
        explore: draws the rest for valid settings, a network, a picture and the probabilities `(classes,)`; returns
            the settings with the choices that were left open.
    """
    settings, notes = controls.recall(page, images.samples())
    controls.put(settings, "network", "image")
    with st.sidebar:
        _choices(settings)
    st.header(title)
    subject, picture = open_subject(settings), open_picture(settings)
    if subject and picture:
        settings = replace(settings, picture=picture.digest[:12] if settings.image == UPLOAD else "")
        settings, more = fit(settings, subject.model.classes, subject.layers, subject.channels)
        notes += more
    if notes:
        st.warning("  \n".join(notes))
    if subject and picture:
        controls.put(settings, *fields)
        probabilities = caches.probabilities(subject.identity, picture.digest, subject, picture.image)
        settings = explore(settings, subject, picture, probabilities)
    controls.remember(page, settings)


def network_frame(
    page: str,
    title: str,
    fields: Sequence[str],
    explore: Callable[[Settings, Subject], Settings],
    prepare: Callable[[Settings], Settings] = lambda settings: settings,
) -> None:
    """The same for a page that needs no picture; the one that was chosen elsewhere stays chosen.

    Args:
        page, title, fields: see `frame`.
        explore: draws the rest for valid settings and a network; returns the settings.
        prepare: makes settings of other pages fit for this one.
    """
    settings, notes = controls.recall(page, images.samples())
    settings = prepare(settings)
    controls.put(settings, "network")
    with st.sidebar:
        _network_choice(settings)
    st.header(title)
    if subject := open_subject(settings):
        settings, more = fit(settings, subject.model.classes, subject.layers, subject.channels)
        notes += more
    if notes:
        st.warning("  \n".join(notes))
    if subject:
        controls.put(settings, *fields)
        settings = explore(settings, subject)
    controls.remember(page, settings)


def _choices(settings: Settings) -> None:
    """Widgets for the network with its weights and for the picture."""
    _network_choice(settings)
    _picture_choice(settings)


def _network_choice(settings: Settings) -> None:
    st.selectbox("Network", networks.choices(), key=key("network"))
    if settings.network in networks.architectures():
        with st.expander("Your own weights", expanded=bool(settings.checkpoint)):
            st.file_uploader(
                f"Checkpoint for {settings.network}", checkpoints.EXTENSIONS, key=key(f"weights.{settings.network}"),
                on_change=controls.choose_checkpoint, args=(key(f"weights.{settings.network}"),),
                max_upload_size=checkpoints.MAX_BYTES // 2**20,
                help="Tensors only: safetensors, or a state dict saved by torch.save. Nothing in the file is run.",
            )  # fmt: skip


def _picture_choice(settings: Settings) -> None:
    st.selectbox("Picture", [*images.samples(), DRAWING, UPLOAD], key=key("image"))
    st.file_uploader(
        "Upload", images.EXTENSIONS, key=key("file"), on_change=controls.choose_upload,
        max_upload_size=images.MAX_BYTES // 2**20,
    )  # fmt: skip
    stored = st.session_state.get(controls.UPLOADED)
    if settings.image == UPLOAD and stored is not None and st.session_state[key("file")] is None:
        st.caption(f"Uploaded before: {quoted(stored[0])}")


def open_subject(settings: Settings) -> Subject | None:
    """The network, or None after saying why there is none. Nothing is downloaded before a button was pressed."""
    name, stored = settings.network, None
    if settings.checkpoint:
        stored = st.session_state.get(controls.CHECKPOINT)
        if stored is None or images.digest(stored[1])[:12] != settings.checkpoint:
            st.info(f"This link needs the checkpoint whose SHA-256 starts with {settings.checkpoint}: upload it in the "
                    "sidebar, under the network.")  # fmt: skip
            return None
    elif needed := downloads.missing(name):
        st.warning(markdown_sentence(needed))
        if work(f"download.{name}", f"Download {name}", partial(downloads.download, name=name)) is None:
            return None
    try:
        return caches.subject(name, images.digest(stored[1]) if stored else "", stored)
    except (ValueError, RuntimeError) as error:
        st.error(markdown_sentence(error))
        return None


def open_picture(settings: Settings) -> Picture | None:
    """The sample, the drawing or the upload, or None after saying why there is none."""
    if settings.image == DRAWING:
        canvas.draw(settings.drawing)
        return images.drawn(settings.drawing) if settings.drawing else None
    if settings.image != UPLOAD:
        return images.sample(settings.image)
    stored: tuple[str, bytes] | None = st.session_state.get(controls.UPLOADED)
    if stored is None:
        wanted = f" This link needs the file whose SHA-256 starts with {settings.picture}." if settings.picture else ""
        st.info("Upload a picture in the sidebar." + wanted)
        return None
    name, data = stored
    try:
        return caches.upload(images.digest(data), name, data)
    except ValueError as error:
        st.error(markdown_sentence(error))
        return None


def work(
    name: str, label: str, task: Callable[[Task], T], draw: Callable[..., None] | None = None, start: bool = False
) -> Any:
    """A button that starts long work, then its progress with a button that stops it.

    Args:
        name: of the work, with everything it depends on: another name is other work.
        label: on the button.
        task: the work, see `jobs.Job`. It must not use Streamlit.
        draw: draws what the work has shown so far, a `jobs.View`; called again and again while it runs, and at the end.
        start: whether work that was not done yet starts without a click.

    Returns:
        What it made, or had shown when it was stopped, once it has ended; else None.
    """
    place = key(f"job.{name}")
    job: Job[T] | None = st.session_state.get(place)
    ended = job is not None and not job.look().running
    if job is None or (ended and (job.look().error or not job.look().completed)):
        if job is not None and job.look().error:
            st.error(markdown_sentence(job.look().error))
        button = st.empty()
        clicked = button.button(label, key=key(f"start.{name}"), type="primary")
        if not clicked and not (start and job is None):
            return _drawn(job, draw) if job is not None else None
        button.empty()
        job = st.session_state[place] = Job(task, presence.of_this_session())
        ended = False
    if ended:
        return _drawn(job, draw)
    _watch(name, job, draw)
    return None


def _drawn(job: Job[T], draw: Callable[..., None] | None) -> Any:
    """Draw a job that has ended; what it showed last."""
    view = job.look()
    if draw:
        draw(view)
    return view.latest


def forget_work(kept: str) -> None:
    """Stop all work of a kind but this, and drop what it made.

    Args:
        kept: the name of the work, `kind.what-it-depends-on`; work whose name goes on after it is kept too.
    """
    kind = key(f"job.{kept.partition('.')[0]}.")
    for place in [place for place in st.session_state if str(place).startswith(kind)]:
        if not str(place).startswith(key(f"job.{kept}")):
            st.session_state.pop(place).stop()


@st.fragment(run_every=_POLL_SECONDS)
def _watch(name: str, job: Job[T], draw: Callable[..., None] | None) -> None:
    view = job.look()
    if not view.running:
        st.rerun()
    st.progress(view.progress, view.message or "Starting …")
    st.button("Stop", key=key(f"stop.{name}"), on_click=job.stop)
    if draw:
        draw(view)


def overview(subject: Subject, picture: Picture, probabilities: NDArray[np.float32], chosen: int | None) -> None:
    """The picture, what the network sees of it, and the most probable classes, whose bars can be clicked.

    Args:
        subject: the network.
        picture: as it was given.
        probabilities: `(classes,)`.
        chosen: the class that is explained, if one is.
    """
    given, seen, bars = st.columns([1, 1, 2])
    given.caption("Picture")
    # In a transparent square, so that an upright picture does not push the maps off the screen.
    given.image(caches.square(picture.digest, picture.image), width="stretch", alt="The picture as it was given")
    visible = subject.model.visible(picture.image)
    seen.caption(f"What the network sees, {visible.width} x {visible.height}")
    # Enlarged here, because a browser would blur the pixels.
    factor = max(1, 256 // visible.width)
    enlarged = visible.resize((visible.width * factor, visible.height * factor), Image.Resampling.NEAREST)
    seen.image(enlarged, width="stretch", alt="The part of the picture that the network sees, at its resolution")
    # A new name for every choice forgets the last click: a second click on the same bar would otherwise only undo it.
    chart = key(f"bars.{subject.identity[:80]}.{picture.digest[:12]}.{chosen}")
    bars.caption("Most probable classes: click a bar to explain it")
    bars.plotly_chart(
        figures.top_k_bars(probabilities, subject.model.classes, chosen=chosen),
        key=chart,
        on_select=partial(controls.choose_bar, chart),
        selection_mode="points",
        config=CLICKED_CHART,
        alt=_spoken(probabilities, subject.model.classes),
    )


def _spoken(probabilities: NDArray[np.float32], classes: Sequence[str]) -> str:
    """The bars in words."""
    first = [int(index) for index in np.argsort(-probabilities, kind="stable")[:3]]
    shares = ", ".join(f"{classes[index]} {probabilities[index]:.0%}" for index in first)
    return f"Bars of the most probable classes: {shares}"


def map_column(
    shown: Shown,
    picture: Picture,
    height: int,
    note: str = "",
    focus: Box | None = None,
    more: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """One map with what it took, and its files.

    Args:
        shown: the map.
        picture: what the network saw.
        height: of the figure in pixels.
        note: Markdown beneath it.
        focus: the rows and columns to which the figure is zoomed; None shows all.
        more: arrays that its NPZ file holds too.
    """
    settings, question, result, limit = shown.settings, shown.question, shown.result, shown.limit
    visible = shown.subject.model.visible(picture.image) if question.needs_picture else None
    st.markdown(f"**{shown.label}**")
    figure = drawings.figure(result, settings, limit, visible, height)
    if focus:
        figures.focused(figure, *focus)
    st.plotly_chart(
        figure, key=key(f"map.{shown.name}"), config=CHART, alt=drawings.alternative(shown.label, result, settings)
    )
    if not result.attribution.any():
        note = caches.zero_reason(shown.subject.identity, picture.digest, question, shown.subject, picture.image)
    if note:
        st.caption(note)
    file = f"{shown.name}-{settings.image}"
    st.caption(drawings.cost(result), help=drawings.COST)
    with st.container(horizontal=True):
        png = partial(drawings.png, result, settings, limit, visible)
        npz = partial(drawings.npz, result, settings, question, picture, limit, more)
        for kind, data, mime in (("PNG", png, "image/png"), ("NPZ", npz, "application/octet-stream")):
            saving.button(kind, data, f"{file}.{kind.lower()}", mime, key(f"{kind}.{shown.name}"))


def reproduce(settings: Settings, picture: Picture, maps: Sequence[Shown], ledger: bool = False) -> None:
    """The maps in numbers, the link to this view, and the program of each map, with its `ledger` on request."""
    several = len({shown.settings.network for shown in maps}) > 1
    with st.expander("The maps in numbers"):
        st.dataframe(
            [
                {
                    "Map": shown.label,
                    **({"Network": shown.settings.network} if several else {}),
                    **drawings.numbers(shown.result, shown.settings),
                }
                for shown in maps
            ],
            hide_index=True, alt="Sum, positive share and strongest pixels of each map",
        )  # fmt: skip
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(controls.link(settings), language=None)
        labels = [f"{shown.settings.network}: {shown.label}" if several else shown.label for shown in maps]
        for tab, shown in zip(st.tabs(labels), maps, strict=True):
            tab.code(snippets.snippet(shown.settings, shown.question, picture, shown.limit, shown.subject, ledger))
