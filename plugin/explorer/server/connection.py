"""The browser of a session, and whether it is still connected: work for it alone can end when it is not."""

import hashlib
from collections.abc import Callable
from functools import partial

import streamlit as st
from streamlit import config, runtime
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_run_context import ThreadState

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_COOKIE = "_streamlit_xsrf"


def connection_of_this_session() -> Callable[[], bool]:
    """A function for threads beside the page: whether the session whose page is drawn now has its browser.

    Without a server, as in Streamlit's simulator, it always has.
    """
    context = get_script_run_ctx()
    if context is None or not runtime.exists():
        return lambda: True
    return partial(runtime.get_instance().is_active_session, context.session_id)


def went_through_history() -> bool:
    """Whether this run shows a page because someone went back or forward in the browser's history."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def comes_from_a_phone() -> bool:
    """Whether the browser's `User-Agent` has the word for a narrow screen."""
    return "Mobi" in st.context.headers.get("User-Agent", "")


def ask_no_more() -> None:
    """Stop the automatic reruns of the fragment that runs now.

    Otherwise only a run of the whole page would stop them, and with each such run Streamlit drops the answers that wait
    to be sent, such as the file for a click on its button.
    """
    context, fragment = get_script_run_ctx(), ThreadState.get().fragment_id
    if context is not None and fragment is not None:
        message = ForwardMsg()
        message.stop_auto_rerun.fragment_ids.append(fragment)
        context.enqueue(message)


def serves_this_machine_only() -> bool:
    """Whether the server is bound to the loopback interface: its users sit at this machine."""
    return config.get_option("server.address") in _LOOPBACK


def owner_of_files() -> str | None:
    """The owner for whom this session's files outlive it: all sessions of a server that serves this machine only, else
    the browser; None where the browser is not known."""
    if serves_this_machine_only():
        return ""
    return browser_of(st.context.cookies.get(_COOKIE, ""))


def browser_of(cookie: str) -> str | None:
    """A name for the browser that has this cookie against forged requests; None if it has none.

    The cookie is `2|mask|masked token|time`; only the browser and the server know the token.
    """
    try:
        version, mask, masked, _ = cookie.strip("\"'").split("|")
        key, text = bytes.fromhex(mask), bytes.fromhex(masked)
    except ValueError:
        return None
    token = bytes(byte ^ key[place % len(key)] for place, byte in enumerate(text)) if key else b""
    return hashlib.sha256(token).hexdigest() if version == "2" and len(token) >= 16 else None
