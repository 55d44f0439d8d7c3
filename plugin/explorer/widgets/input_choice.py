"""Choosing and opening a network and a picture, with everything that can go wrong."""

from functools import partial

import streamlit as st

from plugin.models.pictures import EXTENSIONS, MAX_BYTES

from ..inputs import offered_networks, offered_pictures, uploaded_checkpoint, weight_downloads
from ..inputs.offered_pictures import Picture, digest
from ..inputs.subject import Subject
from ..settings import DRAWING, UPLOAD, Settings
from ..untrusted_text import markdown_sentence, quoted
from . import digit_sheet, kept_results
from .background_work import work
from .page_state import change, key

# The session keys of the uploaded picture and of the uploaded checkpoint, each a pair of a name and its bytes. They are
# kept outside the uploaders, which other pages cannot read.
_UPLOADED, _CHECKPOINT = "attribute.uploaded", "attribute.checkpoint_file"


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


def picture_choice(settings: Settings) -> None:
    """Widgets for the picture."""
    st.selectbox("Picture", [*offered_pictures.samples(), DRAWING, UPLOAD], key=key("image"))
    st.file_uploader(
        "Upload", EXTENSIONS, key=key("file"), on_change=_choose_upload, max_upload_size=MAX_BYTES // 2**20
    )
    stored = st.session_state.get(_UPLOADED)
    if settings.image == UPLOAD and stored is not None and st.session_state[key("file")] is None:
        st.caption(f"Uploaded before: {quoted(stored[0])}")


def open_subject(settings: Settings) -> Subject | None:
    """The network, or None after saying why there is none. Nothing is downloaded before a button was pressed."""
    name, stored = settings.network, None
    if settings.checkpoint:
        stored = st.session_state.get(_CHECKPOINT)
        if stored is None or digest(stored[1])[:12] != settings.checkpoint:
            st.info(f"This link needs the checkpoint whose SHA-256 starts with {settings.checkpoint}: upload it in the "
                    "sidebar, under the network.")  # fmt: skip
            return None
    elif needed := weight_downloads.missing(name):
        st.warning(markdown_sentence(needed))
        if work(f"download.{name}", f"Download {name}", partial(weight_downloads.download, name=name)) is None:
            return None
    try:
        return kept_results.subject(name, digest(stored[1]) if stored else "", stored)
    except (ValueError, RuntimeError) as error:
        st.error(markdown_sentence(error))
        return None


def open_picture(settings: Settings) -> Picture | None:
    """The sample, the drawing or the upload, or None after saying why there is none."""
    if settings.image == DRAWING:
        digit_sheet.draw(settings.drawing)
        return offered_pictures.drawn(settings.drawing) if settings.drawing else None
    if settings.image != UPLOAD:
        return offered_pictures.sample(settings.image)
    stored: tuple[str, bytes] | None = st.session_state.get(_UPLOADED)
    if stored is None:
        wanted = f" This link needs the file whose SHA-256 starts with {settings.picture}." if settings.picture else ""
        st.info("Upload a picture in the sidebar." + wanted)
        return None
    name, data = stored
    try:
        return kept_results.upload(digest(data), name, data)
    except ValueError as error:
        st.error(markdown_sentence(error))
        return None


def _choose_upload() -> None:
    """Callback of the uploader: show the new picture, or a sample again when it was taken away."""
    file = st.session_state[key("file")]
    st.session_state[key("image")] = UPLOAD if file is not None else Settings.image
    st.session_state[_UPLOADED] = None if file is None else (file.name, file.getvalue())


def _choose_checkpoint(uploader: str) -> None:
    """Callback of the uploader of checkpoints: use the weights, or the network's own when they were taken away."""
    file = st.session_state[uploader]
    st.session_state[_CHECKPOINT] = None if file is None else (file.name, file.getvalue())
    change(checkpoint="" if file is None else digest(file.getvalue())[:12])
