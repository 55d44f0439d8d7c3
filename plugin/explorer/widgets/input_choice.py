"""Choosing and opening a network and a picture, with a message for each error."""

from functools import partial

import streamlit as st

from plugin import devices
from plugin.models import OtherArchitecture
from plugin.models.pictures import EXTENSIONS, MAX_BYTES

from ..choices.settings import DRAWING, UPLOAD, Settings
from ..inputs import offered_networks, offered_pictures, weight_downloads
from ..inputs.offered_pictures import Picture
from ..inputs.own_weights import OwnWeights
from ..inputs.subject import Subject
from ..server.kept_files import OwnFile, link_name
from ..server.untrusted_text import markdown_sentence, quoted
from . import digit_sheet, file_choice, kept_results, own_files, own_weights_choice, saved_network_choice
from .background_work import work
from .file_choice import OF, Wanted
from .page_state import change, key, open_weights_as


def network_choice(settings: Settings, side: str = "") -> None:
    """Widgets for the network and its weights.

    Args:
        settings: of this side.
        side: `settings.B` for B of a comparison.
    """
    choices = offered_networks.choices()
    if settings.network not in choices:  # one that was typed
        choices = settings.network, *choices
    st.selectbox(f"Network{OF[side]}", choices, key=key(f"{side}network"))
    if settings.network in offered_networks.architectures():
        own_weights_choice.draw(settings, side)
    saved_network_choice.draw(side)


def device_choice() -> None:
    """The widget for the device; a machine with a single one shows none."""
    best, names = str(devices.choose_device()), devices.available()
    if len(names) > 1:
        others = [name for name in names if name != best]
        st.selectbox("Computed on", ["", *others], format_func=lambda name: name or best, key=key("device"))


def picture_choice(settings: Settings, side: str = "") -> None:
    """Widgets for the picture; arguments as for `network_choice`."""
    # There is one sheet to draw on, which is A's.
    drawing = [] if side else [DRAWING]
    st.selectbox(f"Picture{OF[side]}", [*offered_pictures.samples(), *drawing, UPLOAD], key=key(f"{side}image"))
    wanted = Wanted(f"Upload{OF[side]}", f"picture{OF[side]}", EXTENSIONS, MAX_BYTES, MAX_BYTES)
    file_choice.draw(f"{side}file", wanted, partial(_use_picture, side))
    given = st.session_state[key(f"{side}file")]
    if settings.image == UPLOAD and given is None and own_files.find(settings.picture):
        st.caption(f"Opened before: {quoted(settings.picture_name)}")


def open_subject(settings: Settings, side: str = "") -> Subject | None:
    """The network, or None after a message with the reason. Nothing is downloaded before a button was pressed."""
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
        return kept_results.subject(name, weights, settings.runs_on)
    except OtherArchitecture as error:
        st.error(markdown_sentence(error))
        st.button(
            f"Open as {error.architecture} with {error.classes} classes",
            key=key(f"{side}open_as"), on_click=open_weights_as, args=(error.architecture, side),
        )  # fmt: skip
        return None
    except (ValueError, RuntimeError) as error:
        st.error(markdown_sentence(error))
        return None
    finally:
        for kind in ("checkpoint", "class_names"):
            own_files.show_difference(kind, settings, side)


def open_picture(settings: Settings, side: str = "") -> Picture | None:
    """The sample, the drawing or the upload, or None after a message with the reason."""
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
    own_files.show_difference("picture", settings, side)
    try:
        return kept_results.own_picture(file)
    except ValueError as error:
        st.error(markdown_sentence(error))
        return None


def _use_picture(side: str, file: OwnFile | None) -> None:
    """Callback: show the new picture, or a sample again when it was taken away."""
    st.session_state[key(f"{side}image")] = UPLOAD if file is not None else Settings.image
    if file is not None:
        change(side, picture=file.short, picture_name=link_name(file.name))
