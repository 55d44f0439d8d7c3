"""Widgets for single settings that pages share, and their callbacks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from plugin.heads import OUTPUTS

from ..choices.fitting import views
from ..choices.settings import VIEWS
from ..inputs.layer_outputs import axes
from ..inputs.subject import Subject
from .callbacks import uninterrupted
from .page_state import OPEN, change, key, last_settings, put


def switch(label: str, choices: Mapping[str, str], field: str, note: str | None = None) -> None:
    """Buttons side by side, one of which is pressed, for a field of `Settings`.

    Args:
        label: the label of the group.
        choices: labels by value.
        field: a field of `Settings`.
        note: the help text.
    """
    st.segmented_control(
        label, list(choices), format_func=choices.__getitem__, key=key(field), required=True, help=note
    )


def layer_list(layers: dict[str, tuple[int, ...]], open_choice: str = "") -> None:
    """The layers with their output shapes. Without `open_choice` one of them is chosen."""
    labels = {"": open_choice} if open_choice else {}
    labels |= {name: f"{name}  ({' x '.join(map(str, shape))})" for name, shape in layers.items()}
    st.selectbox("Layer", list(labels), format_func=labels.__getitem__, key=key("layer"))


def neuron_inputs(shape: tuple[int, ...]) -> None:
    """One number input per axis of a layer's output, bounded by its shape."""
    for axis, (column, name, size) in enumerate(zip(st.columns(len(shape)), axes(shape), shape, strict=True)):
        column.number_input(name.capitalize(), 0, size - 1, key=key(f"neuron.{axis}"), help=f"0 to {size - 1}")


def class_list(label: str, names: Sequence[str], open_choice: str, field: str) -> None:
    """A list of classes for a field of `Settings`; the index tells apart classes of one name. Without `open_choice`
    one of them is chosen."""
    labels = ({OPEN: open_choice} if open_choice else {}) | {
        index: f"{name} ({index})" for index, name in enumerate(names)
    }
    st.selectbox(label, list(labels), format_func=labels.__getitem__, key=key(field))


def class_lists(subject: Subject, top: int) -> None:
    """The class that is explained, and the one that is subtracted; `top` is the most probable."""
    names = subject.model.classes
    class_list("Class", names, f"most probable: {names[top]}", "target")
    subtracted_class(subject)


def subtracted_class(subject: Subject) -> None:
    """The class whose output is subtracted, which may be none."""
    class_list(f"Minus the {OUTPUTS[subject.head]} of", subject.model.classes, "nothing", "contrast")


def display(channels: int, opacity: bool = True) -> None:
    """Widgets for the drawing of maps of a network with that many input channels; `opacity` where they lie over the
    picture."""
    st.divider()
    st.selectbox("Show", views(channels), format_func=VIEWS.__getitem__, key=key("view"))
    colours(opacity)


def colours(opacity: bool = True) -> None:
    """Widgets for the percentile at which the colours of maps end, and for their opacity over the picture."""
    st.slider("Colours end at percentile", 50.0, 100.0, step=0.5, format="%.1f", key=key("percentile"))
    if opacity:
        st.slider("Opacity over the picture", 0.0, 1.0, step=0.05, key=key("opacity"))


@uninterrupted
def forget_neuron() -> None:
    """Callback: let the next run choose the most active unit."""
    change(neuron=())


@uninterrupted
def choose_bar(chart: str) -> None:
    """Callback of the bars drawn under the session key `chart`: explain the class of the clicked bar."""
    clicked = clicked_mark(chart)
    if clicked is not None:
        st.session_state[key("target")] = clicked
        st.session_state[key("explain")] = "class"


@uninterrupted
def choose_unit(chart: str, units: Sequence[tuple[int, ...]]) -> None:
    """Callback of the squares drawn under the session key `chart`, which stand for `units`: take the clicked one."""
    clicked = clicked_mark(chart)
    if clicked is not None and 0 <= clicked < len(units):
        put(replace(last_settings(), neuron=units[clicked]), "neuron")


def clicked_mark(chart: str) -> int | None:
    """The custom data of the mark that was clicked last."""
    points = st.session_state[chart].selection.points
    if not points or "customdata" not in points[0]:
        return None
    chosen = points[0]["customdata"]
    return int(chosen[0] if isinstance(chosen, list) else chosen)
