"""Fixtures of the tests of pages; those that use the real browser skip where there is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM, FOR_MANY_PAGES, launched, looks, new_window, stay, watched

from plugin.explorer.inputs import offered_networks, picture_collections
from plugin.explorer.inputs.folder_predictions import FolderPredictions
from plugin.explorer.inputs.subject import Subject
from plugin.explorer.server import own_paths
from plugin.explorer.widgets import map_badges, open_folders


@pytest.fixture(scope="session")
def window() -> Iterator[Any]:
    """A browser with one profile and one process for all files: the first page alone fetches and compiles scripts."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    looks["polling"] = 100
    with launched(*FOR_MANY_PAGES) as browser:
        window = new_window(browser, viewport={"width": 1400, "height": 1080})
        stay(window)
        yield window


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


@pytest.fixture
def no_paths_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder is named, and no path or prediction is known from another test."""
    monkeypatch.setattr(own_paths, "_folders", [])
    monkeypatch.setattr(open_folders, "_paths", type(open_folders._paths)())
    monkeypatch.setattr(open_folders, "_predictions", type(open_folders._predictions)())


@pytest.fixture(scope="module")
def subject() -> Subject:
    """The network with which pages begin."""
    return offered_networks.open_network("all-cnn-c")


@pytest.fixture
def predictions(subject: Subject, photos: Path) -> FolderPredictions:
    """The values known of the module's `photos` at first: none."""
    return FolderPredictions(subject, picture_collections.of_folder(photos))
