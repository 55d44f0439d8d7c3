"""What widgets call back is done to its end, also where a part of the page asks for another run meanwhile."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.runtime.scriptrunner import RerunData, RerunException

from plugin import explorer
from plugin.explorer.widgets.callbacks import uninterrupted

ROOT = Path(explorer.__file__).parent
_CALLED_BACK = ("on_click", "on_change", "on_select")


def callbacks() -> Iterator[tuple[Path, str, ast.expr]]:
    """Every callback that a page gives to a widget: the file, the line, and what is given."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg in _CALLED_BACK and not isinstance(keyword.value, ast.Constant):
                    yield path, f"{path.relative_to(ROOT)}:{keyword.value.lineno}", keyword.value


@pytest.mark.parametrize(("path", "given"), [pytest.param(p, v, id=place) for p, place, v in callbacks()])
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
    """State that ends a callback as Streamlit's does, when it is asked after a request of a part of the page."""

    def __init__(self, requests: list[RerunData]) -> None:
        super().__init__()
        self.requests = requests

    def __setitem__(self, name: str, value: Any) -> None:
        if self.requests:
            raise RerunException(self.requests.pop(0))
        super().__setitem__(name, value)


def test_requests_of_the_browser_wait_for_the_end_of_a_callback() -> None:
    session = Session([])

    @uninterrupted
    def choose(network: str, picture: str) -> None:
        session["network"] = network
        if len(asked) > 0:
            session.requests.append(asked.pop())
        session["picture"] = picture

    asked = [RerunData(query_string="the timer's"), RerunData(query_string="the user's")]
    with pytest.raises(RerunException) as last:
        choose("resnet18", picture="koala")
    assert session == {"network": "resnet18", "picture": "koala"}
    assert last.value.rerun_data.query_string == "the timer's"
    choose("vgg16", picture="koala")
    assert session["network"] == "vgg16"


def test_other_errors_of_a_callback_are_its_own() -> None:
    @uninterrupted
    def fails() -> None:
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        fails()
