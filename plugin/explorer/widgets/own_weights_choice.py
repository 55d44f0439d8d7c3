"""Weights of the user's own for a network: the checkpoint, the names of its classes, and the preprocessing."""

from functools import partial
from typing import Any

import streamlit as st

from plugin import models
from plugin.models import Preprocessing, class_name_files

from ..choices.links import Form
from ..choices.settings import MEAN, MOST_PIXELS, OWN_WEIGHTS, STD, Settings
from ..inputs import own_weights
from ..inputs.own_weights import OwnWeights
from ..server.kept_files import SHORT, OwnFile, digest, link_name
from ..server.untrusted_text import quoted
from . import file_choice, own_files
from .callbacks import uninterrupted
from .file_choice import OF, Wanted
from .page_state import change, key

_NUMBERS = {"mean": MEAN, "std": STD}
_REFUSED = "attribute.preprocessing.refused"


def draw(settings: Settings, side: str = "") -> None:
    """Draw the widgets for a network that takes a checkpoint; `side` is `settings.B` for B of a comparison."""
    network, of = settings.network, OF[side]
    with st.expander(f"Your own weights{of}", expanded=bool(settings.checkpoint)):
        checkpoint = Wanted(
            f"Checkpoint for {network}{of}", f"checkpoint{of}", own_weights.EXTENSIONS, own_weights.MAX_BYTES, None,
            "Tensors only: safetensors, a file of torch.save, or the weights of a program of torch.export. Nothing in "
            "the file is run.",
        )  # fmt: skip
        file_choice.draw(f"{side}weights.{network}", checkpoint, partial(_use_checkpoint, side))
        if settings.checkpoint:
            st.caption(f"In use: {quoted(settings.checkpoint_name)}")
            again = f"Use the weights of {network} again{of}"
            st.button(again, key=key(f"{side}again"), on_click=_drop_checkpoint, args=(side,))
    if settings.checkpoint:
        with st.expander(f"Its classes and its pictures{of}"):
            _names(settings, side)
            _preprocessing(settings, side)


def opened(settings: Settings) -> OwnWeights | None:
    """The weights that the settings name, or None after asking for the file. Without names the classes are numbered."""
    file = own_files.find(settings.checkpoint)
    if file is None:
        st.info(own_files.request("checkpoint", settings.checkpoint, settings.checkpoint_name))
        return None
    names = own_files.find(settings.class_names)
    if settings.class_names and names is None:
        st.info(own_files.request("class_names", settings.class_names, settings.class_names_name))
    return OwnWeights(file, names, settings.resize, settings.crop, settings.mean, settings.std)


def _names(settings: Settings, side: str) -> None:
    most = class_name_files.MAX_BYTES
    names = Wanted(
        f"Names of the classes{OF[side]}", f"list of names{OF[side]}", class_name_files.EXTENSIONS, most, most,
        "A text file with a name a line, a table of numbers and names, or JSON: a list of names, or an object of both.",
    )  # fmt: skip
    file_choice.draw(f"{side}class_names.{settings.network}", names, partial(_use_names, side))
    if settings.class_names:
        st.caption(f"In use: {quoted(settings.class_names_name)}")
        again = f"Number the classes again{OF[side]}"
        st.button(again, key=key(f"{side}number"), on_click=_use_names, args=(side, None))


def _preprocessing(settings: Settings, side: str) -> None:
    """The widgets for the preprocessing of pictures."""
    own = models.preprocessing_of(settings.network)
    used = Preprocessing(
        settings.resize or own.resize, settings.crop or own.crop, settings.mean or own.mean, settings.std or own.std
    )
    # Other widgets for other values: values that are typed and not used yet stay.
    form = key(f"{side}preprocessing.{digest(repr(used).encode())[:SHORT]}")
    with st.form(form, border=False):
        st.number_input("Shorter side scaled to, in pixels", 1, MOST_PIXELS, used.resize, key=f"{form}.resize")
        st.number_input("Side of the central square, in pixels", 1, MOST_PIXELS, used.crop, key=f"{form}.crop")
        st.text_input("Mean of red, green and blue, from 0 to 1", MEAN.write(used.mean), key=f"{form}.mean")
        st.text_input("Their standard deviations", STD.write(used.std), key=f"{form}.std")
        st.form_submit_button(
            "Use for its pictures", key=f"{form}.use", on_click=_use_preprocessing, args=(side, form, own)
        )  # fmt: skip
    if refused := st.session_state.pop(_REFUSED, ""):
        st.error(refused)


@uninterrupted
def _use_preprocessing(side: str, form: str, own: Preprocessing) -> None:
    """Callback: use the preprocessing in the form; the network's own values are left out of the link."""
    given: dict[str, Any] = {name: st.session_state[f"{form}.{name}"] for name in ("resize", "crop")}
    try:
        given |= {name: _read(st.session_state[f"{form}.{name}"], _NUMBERS[name], name) for name in _NUMBERS}
    except ValueError as error:
        st.session_state[_REFUSED] = str(error)
        return
    change(side, **{
        name: getattr(Settings, name) if value == getattr(own, name) else value for name, value in given.items()
    })  # fmt: skip


def _read(text: str, form: Form, name: str) -> Any:
    try:
        return form.read(text.replace(" ", ""))
    except ValueError as error:
        raise ValueError(
            f"The {name} {quoted(text)} {error}: pixels are from 0 to 1, so divide values for 0 to 255 by 255."
        ) from error


def _use_checkpoint(side: str, file: OwnFile | None) -> None:
    """Callback: use the weights, or the network's own when they were taken away."""
    if file is None:
        _drop_checkpoint(side)
    else:
        change(side, checkpoint=file.short, checkpoint_name=link_name(file.name))


@uninterrupted
def _drop_checkpoint(side: str) -> None:
    """Callback: use the weights that come with the network."""
    change(side, **{name: getattr(Settings, name) for name in OWN_WEIGHTS})


@uninterrupted
def _use_names(side: str, file: OwnFile | None) -> None:
    """Callback: name the classes as a file says, or number them."""
    change(side, class_names=file.short if file else "", class_names_name=link_name(file.name) if file else "")
