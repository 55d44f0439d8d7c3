"""Choosing and opening a network and a picture, with everything that can go wrong."""

from functools import partial

import streamlit as st

from plugin.models.pictures import EXTENSIONS, MAX_BYTES

from ..inputs import offered_networks, offered_pictures, uploaded_checkpoint, weight_downloads
from ..inputs.offered_pictures import Picture
from ..inputs.subject import Subject
from ..server.files import SentFile, link_name
from ..settings import DRAWING, UPLOAD, Settings
from ..untrusted_text import markdown_sentence, quoted
from . import digit_sheet, kept_results, own_files
from .background_work import work
from .page_state import change, key


def network_choice(settings: Settings) -> None:
    """Widgets for the network and its weights."""
    st.selectbox("Network", offered_networks.choices(), key=key("network"))
    if settings.network not in offered_networks.architectures():
        return
    uploader = key(f"weights.{settings.network}")
    with st.expander("Your own weights", expanded=bool(settings.checkpoint)):
        st.file_uploader(
            f"Checkpoint for {settings.network}", uploaded_checkpoint.EXTENSIONS, key=uploader,
            on_change=_choose_checkpoint, args=(uploader,), max_upload_size=uploaded_checkpoint.MAX_BYTES // 2**20,
            help="Tensors only: safetensors, or a state dict saved by torch.save. Nothing in the file is run.",
        )  # fmt: skip
        if settings.checkpoint:
            st.caption(f"In use: {quoted(settings.checkpoint_name)}")
            st.button(f"Use the weights of {settings.network} again", on_click=_drop_checkpoint)


def picture_choice(settings: Settings) -> None:
    """Widgets for the picture."""
    st.selectbox("Picture", [*offered_pictures.samples(), DRAWING, UPLOAD], key=key("image"))
    st.file_uploader(
        "Upload", EXTENSIONS, key=key("file"), on_change=_choose_upload, max_upload_size=MAX_BYTES // 2**20
    )
    if settings.image == UPLOAD and st.session_state[key("file")] is None and own_files.find(settings.picture):
        st.caption(f"Uploaded before: {quoted(settings.picture_name)}")


def open_subject(settings: Settings) -> Subject | None:
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
        own_files.show_difference("checkpoint", settings)


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
        st.info(wanted or "Upload a picture in the sidebar.")
        return None
    own_files.show_difference("picture", settings)
    try:
        return kept_results.upload(file.digest, file.name, file.data)
    except ValueError as error:
        st.error(markdown_sentence(error))
        return None


def _choose_upload() -> None:
    """Callback of the uploader: show the new picture, or a sample again when it was taken away."""
    file = st.session_state[key("file")]
    st.session_state[key("image")] = UPLOAD if file is not None else Settings.image
    if file is not None:
        kept = own_files.keep(file)
        change(picture=kept.short, picture_name=link_name(kept.name))


def _choose_checkpoint(uploader: str) -> None:
    """Callback of the uploader of checkpoints: use the weights, or the network's own when they were taken away."""
    file = st.session_state[uploader]
    if file is None:
        _drop_checkpoint()
        return
    kept = own_files.keep(file)
    change(checkpoint=kept.short, checkpoint_name=link_name(kept.name))


def _drop_checkpoint() -> None:
    """Callback: use the weights that come with the network."""
    change(checkpoint="", checkpoint_name="")
