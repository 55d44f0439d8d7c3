"""Choosing and opening a network and a picture, with everything that can go wrong."""

from functools import partial

import streamlit as st

from plugin.models.pictures import EXTENSIONS, MAX_BYTES

from ..inputs import offered_networks, offered_pictures, uploaded_checkpoint, weight_downloads
from ..inputs.offered_pictures import Picture
from ..inputs.subject import Subject
from ..server.files import SentFile, link_name
from ..settings import DRAWING, UPLOAD, B, Settings
from ..untrusted_text import markdown_sentence, quoted
from . import digit_sheet, kept_results, own_files
from .background_work import work
from .page_state import change, key

# What the labels of each side's widgets end with.
_OF = {"": "", B: " of B"}


def network_choice(settings: Settings, side: str = "") -> None:
    """Widgets for the network and its weights.

    Args:
        settings: of this side.
        side: `settings.B` for B of a comparison.
    """
    st.selectbox(f"Network{_OF[side]}", offered_networks.choices(), key=key(f"{side}network"))
    if settings.network not in offered_networks.architectures():
        return
    uploader = key(f"{side}weights.{settings.network}")
    with st.expander(f"Your own weights{_OF[side]}", expanded=bool(settings.checkpoint)):
        st.file_uploader(
            f"Checkpoint for {settings.network}", uploaded_checkpoint.EXTENSIONS, key=uploader,
            on_change=_choose_checkpoint, args=(uploader, side), max_upload_size=uploaded_checkpoint.MAX_BYTES // 2**20,
            help="Tensors only: safetensors, or a state dict saved by torch.save. Nothing in the file is run.",
        )  # fmt: skip
        if settings.checkpoint:
            st.caption(f"In use: {quoted(settings.checkpoint_name)}")
            again = f"Use the weights of {settings.network} again{_OF[side]}"
            st.button(again, key=key(f"{side}again"), on_click=_drop_checkpoint, args=(side,))


def picture_choice(settings: Settings, side: str = "") -> None:
    """Widgets for the picture, as for the network."""
    # There is one sheet to draw on, which is A's.
    drawing = [] if side else [DRAWING]
    st.selectbox(f"Picture{_OF[side]}", [*offered_pictures.samples(), *drawing, UPLOAD], key=key(f"{side}image"))
    st.file_uploader(
        f"Upload{_OF[side]}", EXTENSIONS, key=key(f"{side}file"), on_change=_choose_upload, args=(side,),
        max_upload_size=MAX_BYTES // 2**20,
    )  # fmt: skip
    given = st.session_state[key(f"{side}file")]
    if settings.image == UPLOAD and given is None and own_files.find(settings.picture):
        st.caption(f"Uploaded before: {quoted(settings.picture_name)}")


def open_subject(settings: Settings, side: str = "") -> Subject | None:
    """The network, or None after saying why there is none. Nothing is downloaded before a button was pressed."""
    name = settings.network
    file: SentFile | None = None
    if settings.checkpoint:
        file = own_files.find(settings.checkpoint)
        if file is None:
            st.info(own_files.request("checkpoint", settings.checkpoint, settings.checkpoint_name))
            return None
    elif needed := weight_downloads.missing(name):
        st.warning(markdown_sentence(needed))
        if (
            work(f"download.{name}", f"Download {name}", partial(weight_downloads.download, name=name), heavy=False)
            is None
        ):
            return None
    try:
        if file is None:
            return kept_results.subject(name)
        return kept_results.subject(name, file.digest, (file.name, file.data))
    except (ValueError, RuntimeError) as error:
        st.error(markdown_sentence(error))
        return None
    finally:
        own_files.show_difference("checkpoint", settings, side)


def open_picture(settings: Settings, side: str = "") -> Picture | None:
    """The sample, the drawing or the upload, or None after saying why there is none."""
    if settings.image == DRAWING:
        digit_sheet.draw(settings.drawing)
        return offered_pictures.drawn(settings.drawing) if settings.drawing else None
    if settings.image != UPLOAD:
        return offered_pictures.sample(settings.image)
    file = own_files.find(settings.picture)
    if file is None:
        wanted = own_files.request("picture", settings.picture, settings.picture_name)
        st.info(wanted or "Upload a picture in the sidebar.")
        return None
    own_files.show_difference("picture", settings, side)
    try:
        return kept_results.upload(file.digest, file.name, file.data)
    except ValueError as error:
        st.error(markdown_sentence(error))
        return None


def _choose_upload(side: str) -> None:
    """Callback of the uploader: show the new picture, or a sample again when it was taken away."""
    file = st.session_state[key(f"{side}file")]
    st.session_state[key(f"{side}image")] = UPLOAD if file is not None else Settings.image
    if file is not None:
        kept = own_files.keep(file)
        change(side, picture=kept.short, picture_name=link_name(kept.name))


def _choose_checkpoint(uploader: str, side: str) -> None:
    """Callback of the uploader of checkpoints: use the weights, or the network's own when they were taken away."""
    file = st.session_state[uploader]
    if file is None:
        _drop_checkpoint(side)
        return
    kept = own_files.keep(file)
    change(side, checkpoint=kept.short, checkpoint_name=link_name(kept.name))


def _drop_checkpoint(side: str) -> None:
    """Callback: use the weights that come with the network."""
    change(side, checkpoint="", checkpoint_name="")
