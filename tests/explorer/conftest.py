"""A real browser for the tests of pages; those that use it are skipped where there is none."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import launched, watched

from plugin.explorer.widgets import map_badges


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    """A browser with one profile, so that only the first page has to fetch the scripts."""
    with launched() as browser:
        yield browser.new_context(viewport={"width": 1400, "height": 1080})


@pytest.fixture
def page(window: Any) -> Iterator[Any]:
    """A page of which every error in the console is one of the test."""
    with watched(window.new_page()) as page:
        yield page


@pytest.fixture(autouse=True)
def checks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages in the simulator begin no checks of their maps, which would take the cores from the tests after them.

    A test with the mark `checks` has them.
    """
    if "checks" not in request.keywords:
        monkeypatch.setattr(map_badges, "check", lambda: None)
