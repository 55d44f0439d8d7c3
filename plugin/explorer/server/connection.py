"""Whether the browser that asked for something is still connected: what is made for it alone can end otherwise."""

from collections.abc import Callable
from functools import partial

from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx


def connection_of_this_session() -> Callable[[], bool]:
    """A function for threads beside the page: whether the session whose page is drawn now has its browser.

    Without a server, as in Streamlit's simulator, it always has.
    """
    context = get_script_run_ctx()
    if context is None or not runtime.exists():
        return lambda: True
    return partial(runtime.get_instance().is_active_session, context.session_id)
