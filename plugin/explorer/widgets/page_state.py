"""The settings that live in the URL and in the widgets at once.

A page, in `page_frame`, calls `recall`, makes the settings fit its network, `put`s them, and only then draws its
widgets, whose return values it does not need: the browser's changes are in the session state before the page runs. At
the end it calls `remember`. Widgets of one field have one key on all pages.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from ..fitting import follow, with_suitable_picture
from ..inputs import offered_networks
from ..settings import Settings, from_query
from . import navigation

# A list shows None as nothing chosen; this is its choice of leaving a class open.
OPEN = -1

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
        came_over = not query and arrived(page)
        if current != last or came_over or query == st.session_state.get(_WRITTEN):
            same = offered_networks.family(current.network) == offered_networks.family(last.network)
            followed = follow(current, last, same)
            return followed if same else with_suitable_picture(followed), []
    return from_query(query, offered_networks.choices(), images)


def arrived(page: str) -> bool:
    """Before `recall`: whether this page was not the one that was drawn last."""
    return bool(st.session_state.get(_PAGE) != page)


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


def last_settings() -> Settings:
    """In a callback: the settings of the run before."""
    settings: Settings = st.session_state[_LAST]
    return settings


def change(**changes: Any) -> None:
    """In a callback: change settings that have no widget on this page."""
    st.session_state[_LAST] = replace(last_settings(), **changes)


def go_on(path: str, label: str, settings: Settings) -> None:
    """A link to the page with this path that opens with these settings."""
    # Without any parameter it would be as the titles at the top are, which take along what is shown.
    navigation.link(path, label, settings.to_query() or {"network": settings.network})


def link(settings: Settings) -> str:
    """The address that shows these settings again."""
    address = (st.context.url or "/").partition("?")[0]
    return f"{address}?{urlencode(settings.to_query(), safe=',:')}"


def show_notes(notes: Sequence[str]) -> None:
    """What in a link could not be used, if anything."""
    if notes:
        st.warning("  \n".join(notes))


def _from_widgets(last: Settings) -> Settings:
    """The settings with the widgets' values; fields without a widget on the page keep what they were."""
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(Settings)):
        value = st.session_state.get(key(name), getattr(last, name))
        values[name] = tuple(value) if isinstance(value, list) else None if value == OPEN else value
    values["neuron"] = tuple(st.session_state.get(key(f"neuron.{axis}"), i) for axis, i in enumerate(last.neuron))
    return Settings(**values)
