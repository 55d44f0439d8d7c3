"""The settings that live in the URL and in the widgets at once.

A page, in `page_frame`, calls `recall`, makes the settings fit its network, `put`s them, and only then draws its
widgets, whose return values it does not need: the browser's changes are in the session state before the page runs. At
the end it calls `remember`. Widgets of one field have one key on all pages.

The pages share their settings. A page may have settings of its own, because it cannot use the network of the others or
because a link brought it another one: it is *alone* then, and the others keep theirs. The choice of a network or a
picture applies to all pages.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from ..choices.fitting import OF_CLASSES, alone_with, follow, with_suitable_picture, with_weights
from ..choices.settings import INPUTS, OWN_OF_B, OWN_WEIGHTS, B, Settings, from_query
from ..inputs import offered_networks
from ..server import connection
from . import callbacks, navigation, own_files
from .callbacks import uninterrupted

# A list shows None as nothing chosen; this is its choice of leaving a class open.
OPEN = -1

_LAST, _PAGE = "attribute.last", "attribute.page"
# Settings of pages that are alone, by their path; the last settings of each network.
_ALONE, _LEFT = "attribute.alone", "attribute.left"
# The links on the page that can be seen, and those of the run that draws it anew.
_OFFERED, _COMING = "attribute.offered", "attribute.coming"
# Pages that were shown without any parameter, each with the network and picture that it had.
_PLAIN = "attribute.plain"
# Notes on values in the link of a page that could not be used, with the settings that were taken instead.
_NOTES = "attribute.notes"
# The settings before the callbacks since the browser last sent its values.
_REPLACED = "attribute.replaced"
# The parameter of a link to a page that is alone.
_ALONE_PARAMETER = "alone"
# The settings that have a meaning for one network only.
_OF_NETWORK = (*OF_CLASSES, "layer", "neuron", "rules")


def key(name: str) -> str:
    """The session key of the widget for one field of `Settings`."""
    return f"attribute.{name}"


def recall(page: str, images: Sequence[str]) -> tuple[Settings, list[str]]:
    """The settings of this run: the widgets', or those of a new link. And notes on its values that could not be used.

    Args:
        page: its path.
        images: the samples that can be chosen.
    """
    query = st.query_params.to_dict()
    before: str | None = st.session_state.get(_PAGE)
    notes: list[str] = []
    # A link is read when a session begins, when the user goes back in the browser's history, and when a link is
    # followed that a page has offered. Any other address is older than the view: the browser has not seen the new one
    # yet, or has dropped the parameters, as it does for the titles at the top. The view is kept then. A title leaves an
    # address without parameters in the history, too, which nobody has seen as a view.
    moved = False
    offered = st.session_state.setdefault(_OFFERED, set())
    if before is not None:
        called = callbacks.called_back()
        late = _drop_late_values(before, otherwise=called or page != before)
        if not late and not called:  # the browser knows of all values
            st.session_state.pop(_REPLACED, None)
        moved = _take_widgets(before)
    # A changed number and a click on a link arrive together: the link was seen before the change.
    followed = (page, tuple(sorted(query.items()))) in offered and (page != before or not moved)
    seen = bool(query) or (page, _inputs(settings_of(page))) in st.session_state.get(_PLAIN, ())
    if before is None or (connection.went_through_history() and seen) or followed:
        notes = _take_link(page, query, images)
        offered.clear()  # followed once; then the address is older than the view
    st.session_state[_COMING] = set()
    if before not in (None, page):
        # Among them are those that the page before has set and not drawn. Streamlit would keep their values, and give
        # them back as soon as a page that draws them is left.
        _forget_widgets()
    # Kept at once: this run may be cut short by the next one.
    st.session_state[_PAGE] = page
    callbacks.surround(_around_callback)
    return settings_of(page), notes


def settings_of(page: str) -> Settings:
    """The settings of a page: its own if it is alone, else those of all pages."""
    found: Settings = _alone().get(page) or shared()
    return found


def shared() -> Settings:
    """The settings of the pages that are not alone."""
    found: Settings = st.session_state.get(_LAST) or Settings()
    return found


def is_alone(page: str) -> bool:
    """Whether a page has settings of its own."""
    return page in _alone()


def put(settings: Settings, *names: str) -> None:
    """Set the widgets of these fields, before they are drawn."""
    for name in names:
        value = getattr(settings, name)
        if name == "neuron":
            st.session_state.update({key(f"neuron.{axis}"): index for axis, index in enumerate(value)})
        elif name == "b":
            # No widget shows the file that is chosen.
            st.session_state.update({key(B + part): own for part, own in value if part in OWN_OF_B})
        else:
            st.session_state[key(name)] = list(value) if isinstance(value, tuple) else OPEN if value is None else value


def remember(page: str, settings: Settings) -> None:
    """Keep the settings for the next run, and in the URL."""
    _keep(page, settings)
    noted_on, _, noted = st.session_state.get(_NOTES, ("", None, ()))
    if noted_on == page:  # choices that were open are made now
        st.session_state[_NOTES] = page, settings, noted
    query = _query(page, settings, is_alone(page))
    if not query:
        st.session_state.setdefault(_PLAIN, set()).add((page, _inputs(settings)))
    # Until now the links of the page before were visible.
    st.session_state[_OFFERED] = st.session_state[_COMING]
    st.query_params.from_dict(query)


def last_settings() -> Settings:
    """In a callback: the settings of the run before."""
    return settings_of(st.session_state[_PAGE])


def change(side: str = "", **changes: Any) -> None:
    """In a callback: change settings that have no widget on this page; `side` is `settings.B` for those of B."""
    last = last_settings()
    if side:
        changes = {"b": tuple({**dict(last.b), **changes}.items())}
    _choose(st.session_state[_PAGE], replace(last, **changes))


@uninterrupted
def open_weights_as(network: str, side: str = "") -> None:
    """In a callback: open the checkpoint that was given for one network as another's, on all pages; `side` as for
    `change`."""
    if side:
        change(side, network=network)
        st.session_state[key(f"{side}network")] = network
        return
    last = last_settings()
    if last.network != network:
        st.session_state.setdefault(_LEFT, {})[last.network] = with_weights(last, Settings())
    chosen = follow(replace(last, network=network), last, same_classes=False)
    _choose(st.session_state[_PAGE], with_suitable_picture(with_weights(chosen, last)))
    _forget_widgets()


def open_network(network: str, side: str = "") -> None:
    """In a callback: open a network on all pages; `side` as for `change`."""
    if side:
        change(side, network=network, **{name: getattr(Settings, name) for name in OWN_WEIGHTS})
        st.session_state[key(f"{side}network")] = network
        return
    last = last_settings()
    known: dict[str, Settings] = st.session_state.setdefault(_LEFT, {})
    left = known.get(network)
    if last.network != network:
        known[last.network] = last
    chosen = follow(replace(last, network=network), last, same_classes=False, left=left)
    _choose(st.session_state[_PAGE], with_suitable_picture(chosen, left))
    _forget_widgets()


@uninterrupted
def use_alone(network: str) -> None:
    """In a callback: show another network on this page alone."""
    page = st.session_state[_PAGE]
    _alone()[page] = alone_with(last_settings(), network)
    _forget_widgets()


@uninterrupted
def join() -> None:
    """In a callback: use the settings of the other pages on this page."""
    _alone().pop(st.session_state[_PAGE], None)
    _forget_widgets()


def go_on(path: str, label: str, settings: Settings) -> None:
    """A link to the page with this path that opens with these settings, there alone if their network or picture is not
    that of the pages."""
    _offer(path, label, settings, alone=_inputs(settings) != _inputs(shared()))


def choose_on(path: str, label: str, settings: Settings) -> None:
    """A link that chooses its picture or network, as the sidebar does, for all pages; if this page is alone, for the
    linked page alone."""
    _offer(path, label, settings, alone=is_alone(st.session_state[_PAGE]))


def _offer(path: str, label: str, settings: Settings, alone: bool) -> None:
    if path in navigation.pages():
        # Without any parameter it would act like the titles at the top, which keep the view.
        query = _query(path, settings, alone) or {"network": settings.network}
        for offered in (_OFFERED, _COMING):
            st.session_state[offered].add((path, tuple(sorted(query.items()))))
        navigation.link(path, label, query)


def title() -> str:
    """The title of the page that is drawn now."""
    return navigation.pages()[st.session_state[_PAGE]].title


def link(settings: Settings) -> str:
    """The address that shows these settings again on the page that is drawn now."""
    page = st.session_state[_PAGE]
    address = (st.context.url or "/").partition("?")[0]
    return f"{address}?{urlencode(_query(page, settings, is_alone(page)), safe=',:')}"


def show_notes(page: str, settings: Settings, notes: Sequence[str]) -> None:
    """Show the notes on a link until something is changed: a page may be drawn again by itself.

    Args:
        page: its path.
        settings: of this run, without the values of the link that could not be used.
        notes: those of this run; none if it read no link.
    """
    noted_on, noted_with, noted = st.session_state.get(_NOTES, ("", None, ()))
    if not notes and (noted_on, noted_with) == (page, settings):
        notes = noted
    st.session_state[_NOTES] = page, settings, tuple(notes)
    if notes:
        st.warning("  \n".join(notes))


def _alone() -> dict[str, Settings]:
    found: dict[str, Settings] = st.session_state.setdefault(_ALONE, {})
    return found


def _keep(page: str, settings: Settings) -> None:
    if is_alone(page):
        _alone()[page] = settings
    else:
        st.session_state[_LAST] = settings


def _choose(page: str, settings: Settings) -> None:
    """Take the user's changes on a page: a network or a picture for all pages."""
    if _inputs(settings) != _inputs(settings_of(page)):
        _alone().pop(page, None)
    _keep(page, settings)


def _inputs(settings: Settings) -> tuple[str, ...]:
    """The network and the picture in settings."""
    used = settings.used(())
    return tuple(getattr(settings, name) if name in used else "" for name in INPUTS if not name.endswith("_name"))


def _query(page: str, settings: Settings, alone: bool) -> dict[str, str]:
    query = settings.to_query(navigation.pages()[page].uses)
    return query | {_ALONE_PARAMETER: "1"} if alone else query


@contextmanager
def _around_callback() -> Iterator[None]:
    """Before a callback, note the settings that it may change; after it, take the widgets' values that it has set."""
    page = st.session_state[_PAGE]
    late = _drop_late_values(page, otherwise=True)
    if not late:
        st.session_state[_REPLACED] = settings_of(page)
    yield
    _take_widgets(page)


def _drop_late_values(page: str, otherwise: bool) -> bool:
    """Reset the widgets whose values the browser sent before it knew those that a callback had set.

    Such a value is the one from before the callback, and arrives with another change, for which the browser asks. By
    itself it is a choice.

    Args:
        page: the page that was drawn last.
        otherwise: whether something else than the widgets' values was changed, too.

    Returns:
        Whether there were any.
    """
    last, replaced = settings_of(page), st.session_state.get(_REPLACED)
    if replaced is None:
        return False
    current = _from_widgets(last)
    changed = [field.name for field in fields(Settings) if getattr(current, field.name) != getattr(last, field.name)]
    late = [name for name in changed if getattr(current, name) == getattr(replaced, name)]
    if not late or not (otherwise or len(changed) > 1):
        return False
    put(last, *late)
    return True


def _take_widgets(page: str) -> bool:
    """Take the widgets' values of the page that was drawn last. Returns whether one has changed."""
    last = settings_of(page)
    current = _from_widgets(last)
    if current == last:
        return False
    known: dict[str, Settings] = st.session_state.setdefault(_LEFT, {})
    left = known.get(current.network) if current.network != last.network else None
    same = offered_networks.family(current.network) == offered_networks.family(last.network)
    own_classes = last.checkpoint or (left is not None and left.checkpoint)
    followed = follow(current, last, same and not own_classes, left)
    if current.network != last.network:
        known[last.network] = last
    _choose(page, followed if same else with_suitable_picture(followed, left))
    return True


def _take_link(page: str, query: Mapping[str, str], images: Sequence[str]) -> list[str]:
    """Take the settings of a link: those that the page uses, and those that it names. Returns notes on values that
    could not be used."""
    linked, notes = from_query(query, offered_networks.choices(), images)
    alone = query.get(_ALONE_PARAMETER) == "1"
    base = settings_of(page) if alone else shared()
    taken = linked.used(navigation.pages()[page].uses) | query.keys()
    if (linked.network, linked.checkpoint) != (base.network, base.checkpoint):
        taken |= {*_OF_NETWORK}
    names = [field.name for field in fields(Settings) if field.name in taken]
    settings = replace(base, **{name: getattr(linked, name) for name in names})
    if alone:
        _alone()[page] = settings
    else:
        _alone().pop(page, None)
        st.session_state[_LAST] = settings
    own_files.expect(settings)
    _forget_widgets()
    return notes


def _forget_widgets() -> None:
    """Forget the widgets' values, which are those of other settings."""
    names = [key(field.name) for field in fields(Settings)]
    parts = [str(name) for name in st.session_state if str(name).startswith((key("neuron."), key(B)))]
    for name in (*names, *parts):
        st.session_state.pop(name, None)


def _from_widgets(last: Settings) -> Settings:
    """The settings with the widgets' values; fields without a widget on the page keep their values."""
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(Settings)):
        value = st.session_state.get(key(name), getattr(last, name))
        values[name] = tuple(value) if isinstance(value, list) else None if value == OPEN else value
    values["neuron"] = tuple(st.session_state.get(key(f"neuron.{axis}"), i) for axis, i in enumerate(last.neuron))
    values["b"] = tuple((name, st.session_state.get(key(B + name), value)) for name, value in last.b)
    return Settings(**values)
