"""The frame of all pages: the choice of network and picture, the header, and the settings before and after."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from ..choices.fitting import fit
from ..choices.settings import Settings
from ..inputs import offered_pictures
from ..inputs.subject import Subject
from ..maps.questions import Look
from ..server.device_memory import OutOfDeviceMemory
from ..server.turns import PROCESSOR
from ..server.untrusted_text import markdown_sentence
from . import kept_results, open_strip
from .input_choice import device_choice, network_choice, open_picture, open_subject, picture_choice
from .page_state import key, put, recall, remember, show_notes, use_alone


def frame(
    page: str,
    title: str,
    fields: Sequence[str],
    explore: Callable[[Settings, Look, NDArray[np.float32]], Settings],
) -> None:
    """Draw the frame of a page about a network and a picture.

    Args:
        page: its path.
        title: its header.
        fields: the settings, besides network and picture, whose widgets do not depend on the network.
        explore: draws the rest for valid settings, a network that looks at a picture and the probabilities
            `(classes,)`; returns the settings with the choices that were left open.
    """
    settings, notes = recall(page, offered_pictures.samples())
    put(settings, "network", "image", "device")
    with st.sidebar:
        network_choice(settings)
        picture_choice(settings)
        device_choice()
    open_strip.draw(page, settings)
    st.header(title)
    subject, picture = open_subject(settings), open_picture(settings)
    if subject and picture:
        settings, more = fit(settings, subject.model.classes, subject.layers, subject.channels)
        notes += more
    show_notes(page, settings, notes)
    if subject and picture:
        put(settings, *fields)
        look = Look(subject, picture)
        try:
            settings = explore(settings, look, kept_results.probabilities(look))
        except OutOfDeviceMemory as error:
            st.error(markdown_sentence(error))
    remember(page, settings)


def network_frame(
    page: str,
    title: str,
    fields: Sequence[str],
    explore: Callable[[Settings, Subject], Settings],
    offered: str,
    any_device: bool = True,
) -> None:
    """Draw the frame of a page that needs no picture; the picture that was chosen elsewhere stays chosen.

    Args:
        page, title, fields: see `frame`.
        explore: draws the rest for valid settings and a network; returns the settings.
        offered: a network that the page can use alone while the chosen one cannot be opened.
        any_device: whether the page computes on the chosen device; else on the processor.
    """
    settings, notes = recall(page, offered_pictures.samples())
    put(settings, "network", "device")
    with st.sidebar:
        network_choice(settings)
        if any_device:
            device_choice()
    open_strip.draw(page, settings)
    st.header(title)
    if subject := open_subject(settings if any_device else replace(settings, device=PROCESSOR)):
        settings, more = fit(settings, subject.model.classes, subject.layers, subject.channels)
        notes += more
    show_notes(page, settings, notes)
    if subject:
        put(settings, *fields)
        try:
            settings = explore(settings, subject)
        except OutOfDeviceMemory as error:
            st.error(markdown_sentence(error))
    else:
        offer_alone(offered)
    remember(page, settings)


def offer_alone(network: str) -> None:
    """A button that shows another network on this page; the other pages keep theirs."""
    st.button(f"Use {network} on this page alone", key=key("use_alone"), on_click=use_alone, args=(network,))
