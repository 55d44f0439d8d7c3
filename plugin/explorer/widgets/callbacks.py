"""Callbacks of widgets that are carried out to their end.

As soon as the browser asks for another run, Streamlit ends the one before at its next look at `st.session_state`,
without a word and also within a callback. The next run does not call back again, as it has the widget's new value
already: a file that was sent or a network that was chosen would be lost. So each callback is noted before it begins,
without a look at the state, and the run that finds one cut short carries it out.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import ParamSpec

import streamlit as st
from streamlit.runtime.scriptrunner import RerunException, StopException

P = ParamSpec("P")
_CALLS = "attribute.calls"


@dataclass
class _Calls:
    """The callbacks of a session.

    Attributes:
        unfinished: those that were cut short, in order; one that runs now is among them.
        made: whether one was called since `called_back` was asked.
        around: makes the context in which they are called.
    """

    unfinished: list[Callable[[], None]] = field(default_factory=list)
    made: bool = False
    around: Callable[[], AbstractContextManager[None]] = nullcontext

    def carry_out(self, call: Callable[[], None]) -> None:
        """Call, and note if the run ends meanwhile."""
        self.made = True
        try:
            with self.around():
                call()
        except (RerunException, StopException):
            raise
        except BaseException:
            self._forget(call)
            raise
        self._forget(call)

    def _forget(self, call: Callable[[], None]) -> None:
        if call in self.unfinished:  # else the next run was faster
            self.unfinished.remove(call)


def uninterrupted(callback: Callable[P, None]) -> Callable[P, None]:
    """A decorator for callbacks of widgets, which must have the same effect when they are called again."""

    @wraps(callback)
    def called(*args: P.args, **kwargs: P.kwargs) -> None:
        # Unlike a look at one value, a copy of all of them does not end the run.
        calls: _Calls = st.session_state.to_dict()[_CALLS]
        call = partial(callback, *args, **kwargs)
        calls.unfinished.append(call)
        calls.carry_out(call)

    return called


def carry_out() -> None:
    """Carry out the callbacks that were cut short: at the start of each run, before a widget is drawn."""
    calls: _Calls = st.session_state.setdefault(_CALLS, _Calls())
    for call in tuple(calls.unfinished):
        calls.carry_out(call)


def surround(around: Callable[[], AbstractContextManager[None]]) -> None:
    """Call back in contexts that `around` makes, from now on."""
    st.session_state[_CALLS].around = around


def called_back() -> bool:
    """Whether a widget has called back since this was asked last."""
    calls: _Calls = st.session_state[_CALLS]
    made, calls.made = calls.made, False
    return made
