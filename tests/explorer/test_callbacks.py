"""Callbacks of widgets are carried out to their end, also where the browser asks for another run meanwhile."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from plugin import explorer
from plugin.explorer.widgets import callbacks
from plugin.explorer.widgets.callbacks import uninterrupted

ROOT = Path(explorer.__file__).parent
_CALLED_BACK = ("on_click", "on_change", "on_select")


def given_callbacks() -> Iterator[tuple[Path, str, ast.expr]]:
    """Every callback that a page gives to a widget: the file, the line, and the callback."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg in _CALLED_BACK and not isinstance(keyword.value, ast.Constant):
                    yield path, f"{path.relative_to(ROOT)}:{keyword.value.lineno}", keyword.value


@pytest.mark.parametrize(("path", "given"), [pytest.param(p, v, id=place) for p, place, v in given_callbacks()])
def test_every_callback_is_done_to_its_end(path: Path, given: ast.expr) -> None:
    if isinstance(given, ast.Call):  # partial(callback, ...)
        given = given.args[0]
    text = ast.unparse(given)
    if text == "job.stop":  # looks at nothing of the session
        return
    names = text.split(".")
    found: Any = importlib.import_module(".".join(["plugin.explorer", *path.relative_to(ROOT).with_suffix("").parts]))
    for name in names:
        found = getattr(found, name)
    assert found.__code__ is uninterrupted(lambda: None).__code__, f"{text} is not @uninterrupted"


class Session(dict[str, Any]):
    """State that ends a callback as Streamlit's does, when it is changed after another run was asked for."""

    ended = False

    def __setitem__(self, name: str, value: Any) -> None:
        if self.ended:
            raise StopException
        super().__setitem__(name, value)

    def to_dict(self) -> dict[str, Any]:
        return self


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    """The state of a session that has drawn its first page."""
    session = Session()
    monkeypatch.setattr(st, "session_state", session)
    callbacks.carry_out()
    return session


def test_next_run_carries_out_a_callback_that_was_cut_short(session: Session) -> None:
    @uninterrupted
    def choose(network: str, picture: str) -> None:
        session["network"] = network
        session.ended = network in asked
        session["picture"] = picture

    asked = ["resnet18"]
    with pytest.raises(StopException):
        choose("resnet18", picture="koala")
    assert "picture" not in session
    # The run after it is cut short, too.
    session.ended = False
    with pytest.raises(StopException):
        callbacks.carry_out()
    session.ended, asked = False, []
    callbacks.carry_out()
    assert (session["network"], session["picture"]) == ("resnet18", "koala")
    choose("vgg16", picture="cat")
    session["network"] = "chosen since"
    callbacks.carry_out()
    assert (session["network"], session["picture"]) == ("chosen since", "cat")


def test_pages_learn_once_that_a_widget_has_called_back(session: Session) -> None:
    assert not callbacks.called_back()
    uninterrupted(lambda: None)()
    assert callbacks.called_back()
    assert not callbacks.called_back()


def test_other_errors_of_a_callback_are_its_own(session: Session) -> None:
    @uninterrupted
    def fails() -> None:
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        fails()
    callbacks.carry_out()
