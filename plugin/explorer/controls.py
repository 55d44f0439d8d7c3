"""Widgets that pages share, and the settings that live in the URL and in the widgets at once.

A page, in `panels.frame`, calls `recall`, makes the settings fit its network, `put`s them, and only then draws its
widgets, whose return values it does not need: the browser's changes are in the session state before the page runs. At
the end it calls `remember`. Widgets of one field have one key on all pages.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from . import navigation, networks
from .images import digest
from .lrp_rules import RULES
from .state import UPLOAD, Settings, axes, follow, from_query, views

# The session keys of the uploaded picture and of the uploaded checkpoint, each a pair of a name and its bytes.
UPLOADED, CHECKPOINT = "attribute.uploaded", "attribute.checkpoint_file"
# A list shows None as nothing chosen; this is its choice of leaving a class open.
OPEN = -1

LABELS = {
    "class": "Class",
    "neuron": "Neuron",
    "sum": "Sum of channels",
    "positive": "Sum, what speaks for it",
    "negative": "Sum, what speaks against it",
    "colour": "Colour picture",
    "red": "Red channel",
    "green": "Green channel",
    "blue": "Blue channel",
    "own": "Own",
    "unit": "What the unit sees",
    "whole": "Whole picture",
    "shared": "Shared",
    "dcgan-mnist": "DCGAN",
    "gan-mnist": "GAN",
    "pixels": "Pixels",
    "position": "Itself",
    "channel": "Mean of its channel",
}

_LAST, _WRITTEN, _PAGE = "attribute.last", "attribute.written", "attribute.page"


def key(name: str) -> str:
    """The session key of the widget for one field of `Settings`."""
    return f"attribute.{name}"


def recall(page: str, images: Sequence[str]) -> tuple[Settings, list[str]]:
    """The settings of this run: the widgets', or the link's where it is new. And what in the link could not be used.

    Args:
        page: name of the page.
        images: the samples that can be chosen.
    """
    query = st.query_params.to_dict()
    last: Settings | None = st.session_state.get(_LAST)
    if last is not None:
        current = _from_widgets(last)
        # A moved widget wins over a link that differs: the browser may not have seen the last link yet. With no widget
        # moved, a link that differs means that someone went back in the browser's history.
        # The titles at the top lead to the other pages without parameters: what is shown goes along.
        came_over = not query and st.session_state.get(_PAGE) != page
        if current != last or came_over or query == st.session_state.get(_WRITTEN):
            same = networks.family(current.network) == networks.family(last.network)
            followed = follow(current, last, same)
            return followed if same else networks.with_suitable_picture(followed), []
    return from_query(query, networks.choices(), images)


def arrived(page: str) -> bool:
    """Before `recall`: whether this page was not the one that was drawn last."""
    return st.session_state.get(_PAGE) != page


def put(settings: Settings, *names: str) -> None:
    """Set the widgets of these fields, before they are drawn."""
    for name in names:
        value = getattr(settings, name)
        if name == "neuron":
            st.session_state.update({key(f"neuron.{axis}"): index for axis, index in enumerate(value)})
        else:
            st.session_state[key(name)] = list(value) if isinstance(value, tuple) else OPEN if value is None else value


def remember(page: str, settings: Settings) -> None:
    """Keep the settings for the next run, and in the URL."""
    query = settings.to_query()
    st.session_state.update({_LAST: settings, _WRITTEN: query, _PAGE: page})
    st.query_params.from_dict(query)


def change(**changes: Any) -> None:
    """In a callback: change settings that have no widget on this page."""
    st.session_state[_LAST] = replace(st.session_state[_LAST], **changes)


def go_on(path: str, label: str, settings: Settings) -> None:
    """A link to the page with this path that opens with these settings."""
    # Without any parameter it would be as the titles at the top are, which take along what is shown.
    navigation.link(path, label, settings.to_query() or {"network": settings.network})


def link(settings: Settings) -> str:
    """The address that shows these settings again."""
    address = (st.context.url or "/").partition("?")[0]
    return f"{address}?{urlencode(settings.to_query(), safe=',:')}"


def forget_neuron() -> None:
    """Callback: let the next run choose the most active unit."""
    change(neuron=())


def forget_rules() -> None:
    """Callback: give every layer the preset's rule again."""
    change(rules=())


def choose_rules(layers: Sequence[str], table: str) -> None:
    """Callback of the table drawn under the session key `table`, whose rows are `layers`: take the edited rules."""
    rules = dict(st.session_state[_LAST].rules)
    for row, changes in st.session_state[table]["edited_rows"].items():
        # Rows of constants have no rule to change, and neither has one a rule that is no row of the list.
        if changes.get("rule") in RULES:
            rules[layers[row]] = changes["rule"]
    change(rules=tuple(rules.items()))


def choose_bar(chart: str) -> None:
    """Callback of the bars drawn under the session key `chart`: explain the class of the clicked bar."""
    clicked = _clicked(chart)
    if clicked is not None:
        st.session_state[key("target")] = clicked
        st.session_state[key("explain")] = "class"


def choose_unit(chart: str, units: Sequence[tuple[int, ...]]) -> None:
    """Callback of the squares drawn under the session key `chart`, which stand for `units`: take the clicked one."""
    clicked = _clicked(chart)
    if clicked is not None and 0 <= clicked < len(units):
        put(replace(st.session_state[_LAST], neuron=units[clicked]), "neuron")


def _clicked(chart: str) -> int | None:
    """The custom data of the mark that was clicked last."""
    points = st.session_state[chart].selection.points
    if not points or "customdata" not in points[0]:
        return None
    chosen = points[0]["customdata"]
    return int(chosen[0] if isinstance(chosen, list) else chosen)


def choose_upload() -> None:
    """Callback of the uploader: show the new picture, or a sample again when it was taken away.

    The file is kept outside the widget, which other pages cannot read.
    """
    file = st.session_state[key("file")]
    st.session_state[key("image")] = UPLOAD if file is not None else Settings.image
    st.session_state[UPLOADED] = None if file is None else (file.name, file.getvalue())


def choose_checkpoint(uploader: str) -> None:
    """Callback of the uploader of checkpoints: use the weights, or the network's own when they were taken away."""
    file = st.session_state[uploader]
    st.session_state[CHECKPOINT] = None if file is None else (file.name, file.getvalue())
    change(checkpoint="" if file is None else digest(file.getvalue())[:12])


def layer_list(layers: dict[str, tuple[int, ...]]) -> None:
    """The layers with their output shapes."""
    shapes = {name: " x ".join(map(str, shape)) for name, shape in layers.items()}
    st.selectbox("Layer", list(shapes), format_func=lambda name: f"{name}  ({shapes[name]})", key=key("layer"))


def neuron_inputs(shape: tuple[int, ...]) -> None:
    """One number input per axis of a layer's output, bounded by its shape."""
    for axis, (column, name, size) in enumerate(zip(st.columns(len(shape)), axes(shape), shape, strict=True)):
        column.number_input(name.capitalize(), 0, size - 1, key=key(f"neuron.{axis}"), help=f"0 to {size - 1}")


def class_list(label: str, names: Sequence[str], open_choice: str, field: str) -> None:
    """A list of classes for a field of `Settings`; the index tells apart classes of one name."""
    labels = {OPEN: open_choice} | {index: f"{name} ({index})" for index, name in enumerate(names)}
    st.selectbox(label, list(labels), format_func=labels.__getitem__, key=key(field))


def class_lists(names: Sequence[str], top: int) -> None:
    """The class that is explained, and the one whose logit is subtracted; `top` is the most probable."""
    class_list("Class", names, f"most probable: {names[top]}", "target")
    class_list("Minus the logit of", names, "nothing", "contrast")


def display(channels: int, opacity: bool = True) -> None:
    """How maps of a network with that many input channels are drawn; `opacity` where they lie over the picture."""
    st.divider()
    st.selectbox("Show", views(channels), format_func=LABELS.__getitem__, key=key("view"))
    st.slider("Colours end at percentile", 50.0, 100.0, step=0.5, format="%.1f", key=key("percentile"))
    if opacity:
        st.slider("Opacity over the picture", 0.0, 1.0, step=0.05, key=key("opacity"))


def _from_widgets(last: Settings) -> Settings:
    """The settings with the widgets' values; fields without a widget on the page keep what they were."""
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(Settings)):
        value = st.session_state.get(key(name), getattr(last, name))
        values[name] = tuple(value) if isinstance(value, list) else None if value == OPEN else value
    values["neuron"] = tuple(st.session_state.get(key(f"neuron.{axis}"), i) for axis, i in enumerate(last.neuron))
    return Settings(**values)
