"""The pictures that are open on a page: a folder by the path that was typed, uploads, the samples, or a set of images.

Paths are kept for the session, and for the server's life where no other user could ask for them. Links never hold one.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st

from plugin.errors import MissingExtraError
from plugin.models.pictures import EXTENSIONS, MAX_BYTES

from ..choices.settings import COLLECTIONS, FOLDER, UPLOAD, Settings
from ..inputs import image_sets, picture_collections
from ..inputs.folder_predictions import FolderPredictions
from ..inputs.picture_collections import PictureCollection, SampleSource
from ..inputs.subject import Subject
from ..server import own_paths
from ..server.connection import owner_of_files
from ..server.kept_files import SentFile, folder_link_name, link_name, sent
from ..server.untrusted_text import markdown_sentence, quoted
from . import own_files
from .callbacks import uninterrupted
from .page_state import change, key, last_settings, put

_PATHS, _OPEN, _UPLOADS, _NOTE, _PREDICTIONS = (
    key(f"folders.{name}") for name in ("paths", "open", "uploads", "note", "predictions")
)
# The folder whose path stands in the field, and the widgets.
_SHOWN, _TYPED, _FILES = key("folders.shown"), key("folder_path"), key("folder_files")
_MOST_PATHS = 64
# The folders of all sessions, by owner and digest.
_paths: OrderedDict[tuple[str, str], Path] = OrderedDict()
# The latest predictions of all sessions, by owner and name: a reload is a new session. Each holds its network.
_predictions: OrderedDict[tuple[str, str], FolderPredictions] = OrderedDict()
_MOST_PREDICTIONS = 2
_lock = threading.Lock()


def offered(settings: Settings, sets: Collection[str] = ()) -> dict[str, str]:
    """The labels of the collections that can be chosen here: these sets, the one that is chosen, and the user's own."""
    own = {name: label for name, label in COLLECTIONS.items() if name not in image_sets.LABELS}
    if not own_paths.allowed():
        del own[FOLDER]
    return own | {name: COLLECTIONS[name] for name in (*sets, settings.pictures)}


def widgets(settings: Settings) -> None:
    """The widgets for the place of the pictures."""
    if settings.pictures == UPLOAD:
        st.file_uploader(
            "Pictures", EXTENSIONS, accept_multiple_files=True, key=_FILES, on_change=_choose_uploads,
            max_upload_size=MAX_BYTES // 2**20,
        )  # fmt: skip
    elif settings.pictures == FOLDER and own_paths.allowed():
        path = path_of(settings)
        if path is not None and (_TYPED not in st.session_state or st.session_state.get(_SHOWN) != settings.folder):
            st.session_state[_TYPED], st.session_state[_SHOWN] = str(path), settings.folder
        st.text_input(
            "Path of the folder", key=_TYPED, on_change=_choose_folder, placeholder=str(Path.home() / "photos"),
            help="On the server's machine. Subfolders count; those with the name of a class give the labels.",
        )  # fmt: skip
        if path is not None:
            st.button("Read the folder again", key=key("folder_again"), on_click=_choose_folder)
    if note := st.session_state.pop(_NOTE, ""):
        st.error(markdown_sentence(note))


def _collection(settings: Settings, subject: Subject) -> PictureCollection | None:
    """The pictures, or None after a message with the reason."""
    if settings.pictures == UPLOAD:
        files: tuple[SentFile, ...] = st.session_state.get(_UPLOADS, ())
        if not files:
            st.info("Upload pictures in the sidebar.")
            return None
        return picture_collections.of_uploads(files)
    if settings.pictures in image_sets.LABELS:
        try:
            labelled = image_sets.labelled(settings.pictures, subject.model)
            version = image_sets.version(settings.pictures)
            return picture_collections.of_image_set(settings.pictures, labelled, version)
        except (FileNotFoundError, MissingExtraError) as error:
            st.info(markdown_sentence(error))
            return None
    if settings.pictures != FOLDER:
        return picture_collections.of_samples(grey=subject.channels == 1)
    if not own_paths.allowed():
        st.info("This server opens no folders: upload the pictures, or start it with --folder FOLDER.")
        return None
    path = path_of(settings)
    if path is None:
        wanted = f"This link needs the folder {quoted(settings.folder_name)}: type its path" if settings.folder else ""
        st.info(f"{wanted or 'Type the path of a folder'} in the sidebar.")
        return None
    found = _listed(path)
    if found is not None and found.short != settings.folder:
        st.warning(
            f"The folder {quoted(settings.folder_name)} is not as it was when this link was made: files were added, "
            "removed or changed."
        )
    return found


def predictions_of(settings: Settings, subject: Subject) -> FolderPredictions | None:
    """The predictions for the pictures, which a reload keeps; this session drops those for others. None after a message
    with the reason."""
    collection = _collection(settings, subject)
    if collection is None:
        return None
    name = f"{collection.state}.{subject.identity}.{subject.device}"
    kept: tuple[str, FolderPredictions] | None = st.session_state.get(_PREDICTIONS)
    if kept is None or kept[0] != name:
        kept = st.session_state[_PREDICTIONS] = name, _shared_predictions(name, subject, collection)
    return kept[1]


def _shared_predictions(name: str, subject: Subject, collection: PictureCollection) -> FolderPredictions:
    """The predictions of this name that another session of the owner has made, or new ones."""
    owner = owner_of_files()
    if owner is None:
        return FolderPredictions(subject, collection)
    with _lock:
        if (owner, name) not in _predictions:
            _predictions[owner, name] = FolderPredictions(subject, collection)
        _predictions.move_to_end((owner, name))
        while len(_predictions) > _MOST_PREDICTIONS:
            _predictions.popitem(last=False)
        return _predictions[owner, name]


def with_picture(settings: Settings, predictions: FolderPredictions, row: int) -> Settings | None:
    """The settings with this picture in place of the one that is open; None if it was not read, or is broken."""
    source, record = predictions.collection.source, predictions.collection.records[row]
    if not (short := predictions.digest(row)):
        return None
    if isinstance(source, SampleSource):
        return replace(settings, image=record.place)
    own_files.offer(short, partial(source.file, record))
    return replace(settings, image=UPLOAD, picture=short, picture_name=link_name(record.id.rpartition("/")[2]))


def path_of(settings: Settings) -> Path | None:
    """The path of the folder that the settings name; None if it is not known."""
    if settings.pictures != FOLDER or not settings.folder:
        return None
    known: dict[str, Path] = st.session_state.get(_PATHS, {})
    owner = owner_of_files()
    with _lock:
        shared = None if owner is None else _paths.get((owner, settings.folder))
    return known.get(settings.folder) or shared


def _listed(path: Path) -> PictureCollection | None:
    """The pictures that the folder held when this session last read it; None after a message with the reason."""
    opened: tuple[Path, PictureCollection] | None = st.session_state.get(_OPEN)
    if opened is not None and opened[0] == path:
        return opened[1]
    try:
        return _read(own_paths.resolved_folder(str(path)))
    except (ValueError, OSError) as error:
        st.error(markdown_sentence(error))
        return None


def _read(path: Path) -> PictureCollection:
    """List a folder, and keep its path."""
    found = picture_collections.of_folder(path)
    st.session_state[_OPEN] = path, found
    st.session_state.setdefault(_PATHS, {})[found.short] = path
    owner = owner_of_files()
    if owner is not None:
        with _lock:
            _paths[owner, found.short] = path
            while len(_paths) > _MOST_PATHS:
                _paths.popitem(last=False)
    return found


@uninterrupted
def _choose_folder() -> None:
    """Callback of the field and of the button: list the folder."""
    try:
        path = own_paths.resolved_folder(st.session_state[_TYPED])
        found = _read(path)
    except (ValueError, OSError) as error:
        st.session_state[_NOTE] = str(error)
        return
    _open(pictures=FOLDER, folder=found.short, folder_name=folder_link_name(path.name))


@uninterrupted
def _choose_uploads() -> None:
    """Callback of the uploader: take the files, up to the limits."""
    files = [sent(file.name, file.getvalue()) for file in st.session_state[_FILES]]
    st.session_state[_UPLOADS], st.session_state[_NOTE] = picture_collections.accepted(files)
    _open(pictures=UPLOAD)


def _open(**changes: str) -> None:
    """Open a collection from its first page on."""
    change(sheet=1, **changes)
    put(last_settings(), "sheet")
