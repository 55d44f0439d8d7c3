"""A visitor faster than the server loses nothing: neither a file nor a choice.

Needs Playwright's Python package and Debian's chromium; skips without them.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from support.browser import PATIENCE_MS, ROOT, server, settle
from torchvision.models import resnet18

from plugin import models

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.timeout(600)
_CHECKPOINT, _PICTURE = (
    "[class*='st-key-attribute-weights'] input[type=file]",
    ".st-key-attribute-file input[type=file]",
)


class Gates:
    """The gates of the server, see `support.gated_explorer`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self, gate: str) -> None:
        for file in ("reached", "asked"):
            (self.folder / f"{gate}.{file}").unlink(missing_ok=True)
        (self.folder / f"{gate}.closed").touch()

    def open(self, gate: str) -> None:
        (self.folder / f"{gate}.closed").unlink()

    def wait(self, page: Any, file: str) -> None:
        """Wait until the server has made a file."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not (self.folder / file).exists():
            assert time.monotonic() < deadline, f"there is no {file}"
            page.wait_for_timeout(20)  # the page's messages go on meanwhile


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Gates]]:
    folder = tmp_path_factory.mktemp("gates")
    script = str(ROOT / "tests/support/gated_explorer.py")
    with server(folder / "log.txt", script, GATES=str(folder), PYTHONPATH=str(ROOT)) as (address, _):
        yield address, Gates(folder)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A checkpoint of a ResNet-18 with seven classes, and a photograph."""
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "mine.pt")
    models.sample_images()["astronaut"].save(tmp_path / "koala.png")
    return tmp_path


class SlowLine:
    """The connection of a page with its server, on which the server's messages can be held back."""

    def __init__(self, page: Any) -> None:
        self.held: list[bytes] | None = None
        self.passed: list[ForwardMsg] = []
        page.route_web_socket("**/_stcore/stream", self._connect)

    def _connect(self, browser: Any) -> None:
        self.browser = browser
        server = browser.connect_to_server()
        browser.on_message(server.send)
        server.on_message(self._send)

    def _send(self, message: bytes) -> None:
        # A file is not sent before the server has said where to.
        read = ForwardMsg.FromString(message)
        if self.held is None or read.WhichOneof("type") == "file_urls_response":
            self.passed.append(read)
            self.browser.send(message)
        else:
            self.held.append(message)

    def hold(self) -> None:
        """Hold back the messages from now on."""
        self.held = []

    def release(self) -> None:
        """Send those that were held back, and all others at once."""
        held, self.held = self.held or [], None
        for message in held:
            self.browser.send(message)


def pick(page: Any, label: str, option: str) -> None:
    """An entry of a list, without waiting for anything to come of it."""
    page.get_by_role("combobox", name=label, exact=True).click()
    page.get_by_role("combobox", name=label, exact=True).fill(option)
    page.get_by_role("option", name=option, exact=True).click()


def opened(page: Any, text: str) -> None:
    """Wait for the line that names the open file."""
    sync_api.expect(page.get_by_text("Open: network")).to_have_text(f"Open: {text}", timeout=PATIENCE_MS)
    settle(page)


def test_files_and_choices_stay_when_the_page_is_asked_for_meanwhile(
    page: Any, served: tuple[str, Gates], files: Path
) -> None:
    address, gates = served
    line = SlowLine(page)
    page.goto(f"{address}attribute?methods=gradient")
    settle(page)
    page.get_by_text("Your own weights", exact=True).click()

    # The checkpoint is still being read when another picture is chosen.
    gates.close("mine.pt")
    page.set_input_files(_CHECKPOINT, files / "mine.pt")
    gates.wait(page, "mine.pt.reached")
    pick(page, "Picture", "coffee")
    gates.wait(page, "mine.pt.asked")
    gates.open("mine.pt")
    opened(page, "network all-cnn-c, weights mine.pt, picture coffee")

    # The list of networks still shows the one before when a picture is sent.
    gates.close("resnet18")
    line.hold()
    page.get_by_role("button", name="Open as resnet18").click()
    gates.wait(page, "resnet18.reached")
    page.set_input_files(_PICTURE, files / "koala.png")
    gates.wait(page, "resnet18.asked")
    line.release()
    gates.open("resnet18")
    opened(page, "network resnet18, weights mine.pt, picture koala.png")
    sync_api.expect(page.get_by_role("combobox", name="Network")).to_have_value("resnet18")

    # To go back to the network before is a choice as any other.
    pick(page, "Network", "all-cnn-c")
    opened(page, "network all-cnn-c, picture koala.png")


@pytest.mark.slow
def test_link_is_followed_while_the_page_is_drawn_again(page: Any, served: tuple[str, Gates]) -> None:
    address, gates = served
    page.goto(f"{address}deconvnet?network=mnist-classifier&image=digit-3&layer=body.relu2&neuron=5.3.3")
    settle(page)
    gates.close("mnist-classifier")
    pick(page, "Picture", "digit-5")
    gates.wait(page, "mnist-classifier.reached")
    page.get_by_role("link", name="Attribute this unit").click()
    gates.wait(page, "mnist-classifier.asked")
    gates.open("mnist-classifier")
    title = page.get_by_role("heading", level=2)
    sync_api.expect(title).to_have_text("Which pixels led to this prediction?", timeout=PATIENCE_MS)
    settle(page)
    assert "explain=neuron" in page.url
    assert "neuron=5.3.3" in page.url


def test_badges_come_without_another_run_of_the_page(page: Any, served: tuple[str, Gates]) -> None:
    """A run drops the files that are on their way to a visitor."""
    address, _ = served
    line = SlowLine(page)
    page.goto(f"{address}attribute?network=mnist-classifier&image=digit-3&methods=gradient,deconvnet")
    badges = page.get_by_text("Depends on the weights:")
    sync_api.expect(badges).to_have_count(2, timeout=PATIENCE_MS)

    def ended() -> set[str]:
        return {name for message in line.passed for name in message.stop_auto_rerun.fragment_ids}

    begun = {message.auto_rerun.fragment_id for message in line.passed if message.HasField("auto_rerun")}
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while begun - ended():
        assert time.monotonic() < deadline, "the browser asks on"
        page.wait_for_timeout(100)
    assert len(begun) == 3
    runs = [message for message in line.passed if message.HasField("new_session")]
    assert len([run for run in runs if not run.metadata.run.fragment_ids]) == 1
