"""Callbacks of widgets that are carried out to their end.

While a callback runs, a part of the page may ask again, as one that watches some work does each second. Streamlit then
ends the callback at its next look at `st.session_state`, without a word: a file that was sent or a network that was
chosen is lost.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from streamlit.runtime.scriptrunner import RerunException

P = ParamSpec("P")
# Each interruption takes another request of the browser.
_MOST_INTERRUPTIONS = 20


def uninterrupted(callback: Callable[P, None]) -> Callable[P, None]:
    """A decorator for what widgets call back, which may be called again and again with the same effect.

    The run that the browser asked for comes after it.
    """

    @wraps(callback)
    def called(*args: P.args, **kwargs: P.kwargs) -> None:
        asked: RerunException | None = None
        for _ in range(_MOST_INTERRUPTIONS):
            try:
                callback(*args, **kwargs)
                break
            except RerunException as request:
                asked = request
        if asked is not None:
            raise asked

    return called
