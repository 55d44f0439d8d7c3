"""What all pages have: the choice of network and picture, the header, and settings that come and go."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from ..fitting import fit
from ..inputs import offered_pictures
from ..inputs.subject import Subject
from ..maps.questions import Look
from ..settings import UPLOAD, Settings
from . import kept_results
from .input_choice import network_choice, open_picture, open_subject, picture_choice
from .page_state import put, recall, remember, show_notes


def frame(
    page: str,
    title: str,
    fields: Sequence[str],
    explore: Callable[[Settings, Look, NDArray[np.float32]], Settings],
) -> None:
    """Draw the frame of a page about a network and a picture.

    Args:
        page: its name.
        title: its header.
        fields: the settings, besides network and picture, whose widgets do not depend on the network.
        explore: draws the rest for valid settings, a network that looks at a picture and the probabilities
            `(classes,)`; returns the settings with the choices that were left open.
    """
    settings, notes = recall(page, offered_pictures.samples())
    put(settings, "network", "image")
    with st.sidebar:
        network_choice(settings)
        picture_choice(settings)
    st.header(title)
    subject, picture = open_subject(settings), open_picture(settings)
    if subject and picture:
        settings = replace(settings, picture=picture.digest[:12] if settings.image == UPLOAD else "")
        settings, more = fit(settings, subject.model.classes, subject.layers, subject.channels)
        notes += more
    show_notes(notes)
    if subject and picture:
        put(settings, *fields)
        look = Look(subject, picture)
        settings = explore(settings, look, kept_results.probabilities(look))
    remember(page, settings)


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
    settings, notes = recall(page, offered_pictures.samples())
    settings = prepare(settings)
    put(settings, "network")
    with st.sidebar:
        network_choice(settings)
    st.header(title)
    if subject := open_subject(settings):
        settings, more = fit(settings, subject.model.classes, subject.layers, subject.channels)
        notes += more
    show_notes(notes)
    if subject:
        put(settings, *fields)
        settings = explore(settings, subject)
    remember(page, settings)
