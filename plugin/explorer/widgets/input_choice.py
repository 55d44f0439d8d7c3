"""Choosing and opening a network and a picture, with everything that can go wrong."""

from functools import partial

import streamlit as st

from plugin.models import OtherArchitecture
from plugin.models.pictures import EXTENSIONS, MAX_BYTES

from ..inputs import offered_networks, offered_pictures, weight_downloads
from ..inputs.offered_pictures import Picture
from ..inputs.own_weights import OwnWeights
from ..inputs.subject import Subject
from ..server.files import OwnFile, link_name
from ..settings import DRAWING, UPLOAD, Settings
from ..untrusted_text import markdown_sentence, quoted
from . import digit_sheet, file_choice, kept_results, own_files, own_weights_choice
from .background_work import work
from .file_choice import Wanted
from .page_state import change, key, open_weights_as

_PICTURE = Wanted("Upload", "picture", EXTENSIONS, MAX_BYTES, MAX_BYTES)


def network_choice(settings: Settings) -> None:
    """Widgets for the network and its weights."""
    st.selectbox("Network", offered_networks.choices(), key=key("network"))
    if settings.network in offered_networks.architectures():
        own_weights_choice.draw(settings)


def picture_choice(settings: Settings) -> None:
    """Widgets for the picture."""
    st.selectbox("Picture", [*offered_pictures.samples(), DRAWING, UPLOAD], key=key("image"))
    file_choice.draw("file", _PICTURE, _use_picture)
    if settings.image == UPLOAD and st.session_state[key("file")] is None and own_files.find(settings.picture):
        st.caption(f"Opened before: {quoted(settings.picture_name)}")


def open_subject(settings: Settings) -> Subject | None:
    """The network, or None after saying why there is none. Nothing is downloaded before a button was pressed."""
    name = settings.network
    weights: OwnWeights | None = None
    if settings.checkpoint:
        weights = own_weights_choice.opened(settings)
        if weights is None:
            return None
    elif needed := weight_downloads.missing(name):
        st.warning(markdown_sentence(needed))
        if (
            work(f"download.{name}", f"Download {name}", partial(weight_downloads.download, name=name), heavy=False)
            is None
        ):
            return None
    try:
        return kept_results.subject(name, weights)
    except OtherArchitecture as error:
        st.error(markdown_sentence(error))
        st.button(
            f"Open as {error.architecture} with {error.classes} classes",
            key=key("open_as"), on_click=open_weights_as, args=(error.architecture,),
        )  # fmt: skip
        return None
    except (ValueError, RuntimeError) as error:
        st.error(markdown_sentence(error))
        return None
    finally:
        for kind in ("checkpoint", "class_names"):
            own_files.show_difference(kind, settings)


def open_picture(settings: Settings) -> Picture | None:
    """The sample, the drawing or the upload, or None after saying why there is none."""
    if settings.image == DRAWING:
        digit_sheet.draw(settings.drawing)
        return offered_pictures.drawn(settings.drawing) if settings.drawing else None
    if settings.image != UPLOAD:
        return offered_pictures.sample(settings.image)
    file = own_files.find(settings.picture)
    if file is None:
        wanted = own_files.request("picture", settings.picture, settings.picture_name)
        st.info(wanted or "Open a picture in the sidebar.")
        return None
    own_files.show_difference("picture", settings)
    try:
        return kept_results.own_picture(file)
    except ValueError as error:
        st.error(markdown_sentence(error))
        return None


def _use_picture(file: OwnFile | None) -> None:
    """Callback: show the new picture, or a sample again when it was taken away."""
    st.session_state[key("image")] = UPLOAD if file is not None else Settings.image
    if file is not None:
        change(picture=file.short, picture_name=link_name(file.name))
