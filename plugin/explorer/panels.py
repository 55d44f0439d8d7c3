"""Parts of pages: opening a network and a picture with everything that can go wrong, and showing what came out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from plugin import figures, models

from . import caches, controls, drawings, images, networks, snippets
from .attributions import Question, Result
from .controls import key
from .images import Picture
from .methods import METHODS
from .networks import Subject
from .state import UPLOAD, Settings, fit, markdown_sentence, quoted

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["toImage", "autoScale2d", "select2d", "lasso2d"]}


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
    samples = list(models.sample_images())
    settings, notes = controls.recall(page, networks.choices(), samples)
    controls.put(settings, "network", "image", *fields)
    with st.sidebar:
        st.selectbox("Network", networks.choices(), key=key("network"))
        st.selectbox("Picture", [*samples, UPLOAD], key=key("image"))
        st.file_uploader(
            "Upload", images.EXTENSIONS, key=key("file"), on_change=controls.choose_upload,
            max_upload_size=images.MAX_BYTES // 2**20,
        )  # fmt: skip
        stored = st.session_state.get(controls.UPLOADED)
        if settings.image == UPLOAD and stored is not None and st.session_state[key("file")] is None:
            st.caption(f"Uploaded before: {quoted(stored[0])}")
    st.header(title)
    subject, picture = open_subject(settings.network), open_picture(settings)
    if subject and picture:
        settings = replace(settings, picture=picture.digest[:12] if settings.image == UPLOAD else "")
        settings, more = fit(settings, subject.model.classes, subject.layers)
        notes += more
    if notes:
        st.warning("  \n".join(notes))
    if subject and picture:
        probabilities = caches.probabilities(settings.network, picture.digest, subject, picture.image)
        settings = explore(settings, subject, picture, probabilities)
    controls.remember(page, settings)


def open_subject(name: str) -> Subject | None:
    """The network, or None after saying why there is none. Nothing is downloaded before a button was pressed."""
    needed = networks.missing_download(name)
    if needed:
        st.warning(markdown_sentence(needed))
        if not st.button(f"Download {name}", type="primary"):
            return None
    try:
        return caches.subject(name)
    except (ValueError, RuntimeError) as error:
        st.error(markdown_sentence(error))
        return None


def open_picture(settings: Settings) -> Picture | None:
    """The sample or the upload, or None after saying why there is none."""
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
    given.image(
        ImageOps.pad(picture.image.convert("RGBA"), (512, 512), color=(0, 0, 0, 0), centering=(0, 0)), width="stretch"
    )
    visible = subject.model.visible(picture.image)
    seen.caption(f"What the network sees, {visible.width} x {visible.height}")
    # Enlarged here, because a browser would blur the pixels.
    factor = max(1, 256 // visible.width)
    enlarged = visible.resize((visible.width * factor, visible.height * factor), Image.Resampling.NEAREST)
    seen.image(enlarged, width="stretch")
    # A new name for every choice forgets the last click: a second click on the same bar would otherwise only undo it.
    chart = key(f"bars.{subject.model.name}.{picture.digest[:12]}.{chosen}")
    bars.caption("Most probable classes: click a bar to explain it")
    bars.plotly_chart(
        figures.top_k_bars(probabilities, subject.model.classes, chosen=chosen),
        key=chart,
        on_select=partial(controls.choose_bar, chart),
        selection_mode="points",
        config={"displayModeBar": False},
        alt="Bars of the most probable classes",
    )


def map_column(
    settings: Settings,
    question: Question,
    result: Result,
    picture: Picture,
    visible: Image.Image,
    limit: float,
    height: int,
) -> None:
    """One map with what it took, and its files."""
    label = METHODS[question.method].label
    name = "-".join([settings.network, settings.image, question.method])
    st.markdown(f"**{label}**")
    figure = drawings.figure(result, settings, limit, visible, height)
    st.plotly_chart(figure, key=key(f"map.{question.method}"), config=CHART, alt=f"{label} of the picture")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(drawings.cost(result), help="Wall-clock time and peak memory of this map, measured when computed.")
        png = partial(drawings.png, result, settings, limit, visible)
        npz = partial(drawings.npz, result, settings, question, picture, limit)
        for kind, data, mime in (("PNG", png, "image/png"), ("NPZ", npz, "application/octet-stream")):
            st.download_button(
                kind, data, f"{name}.{kind.lower()}", mime, key=key(f"{kind}.{question.method}"), on_click="ignore"
            )


def reproduce(
    settings: Settings, picture: Picture, answers: dict[str, Question], limits: dict[str, float], subject: Subject
) -> None:
    """The link to this view, and the program of each map.

    Args:
        settings: what is shown.
        picture: what the network saw.
        answers: the questions that were answered, by the keys of their methods.
        limits: where the colours of each map end.
        subject: the network.
    """
    with st.expander("Reproduce this view"):
        st.caption("Link")
        st.code(controls.link(settings), language=None)
        for tab, name in zip(st.tabs([METHODS[name].label for name in answers]), answers, strict=True):
            tab.code(snippets.snippet(settings, answers[name], picture, limits[name], subject.model))
