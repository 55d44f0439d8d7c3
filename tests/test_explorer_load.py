"""Several sessions at once: right maps, bounded memory, and work that ends with its page.

A short version of `load.py`; `LOAD_SESSIONS=10 LOAD_SECONDS=120 pytest tests/test_explorer_load.py` is the long one.
"""

import contextlib
import io
import os
import time
import urllib.request
from collections.abc import Container
from pathlib import Path

import numpy as np
import pytest
import torch
from load import OWN, explorer, visit
from sessions import PATIENCE_SECONDS, Session

from plugin.explorer import attributions, code_space, images, networks
from plugin.explorer.attributions import Question
from plugin.explorer.state import MOST_STEPS, Settings

SESSIONS, SECONDS = int(os.environ.get("LOAD_SESSIONS", "3")), float(os.environ.get("LOAD_SECONDS", "8"))
# How much the server may grow, warm, while all its caches fill: maps of 224 x 224 pixels are 0.6 MB each.
MOST_GROWTH = 500 * 2**20

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("server") / "log.txt"


@pytest.fixture(scope="module")
def served(log):
    """The explorer: its address and the identifier of its process."""
    with explorer(log) as found:
        yield found


def test_sessions_see_the_right_maps_and_memory_stays_bounded(served, log):
    report = visit(*served, SESSIONS, SECONDS)
    assert report.failures == []
    assert "Traceback" not in log.read_text()
    assert report.maps >= SESSIONS
    assert report.memory[-1] - report.memory[0] < MOST_GROWTH


def test_file_stays_until_it_is_fetched_while_others_draw_their_pages(served):
    address, _ = served
    session, other = Session(address, "attribute"), Session(address, "attribute")
    url = session.ready("NPZ.all-cnn-c-gradient")
    for _ in range(3):
        other.look_again()
    with np.load(io.BytesIO(urllib.request.urlopen(url, timeout=PATIENCE_SECONDS).read())) as arrays:
        np.testing.assert_array_equal(arrays["map"], session.maps()["all-cnn-c-gradient"])
    session.close()
    other.close()


def test_page_that_is_closed_while_images_come_about_ends_the_work(served):
    address, process = served
    others = ticks(process)
    query = {"network": OWN, "generator": "pixels", "runs": "4", "steps": str(MOST_STEPS), "stop_at": "1"}
    session = Session(address, "code-space", query)
    worker = busiest_thread(process, others)
    session.look_again()
    assert [button.label for button in session.find("button")].count("Stop") == 1
    assert worker.is_dir()
    session.close()
    deadline = time.monotonic() + 120
    while worker.is_dir():  # shorter than the patience of a job that nobody looks at
        assert time.monotonic() < deadline, "the work goes on although its page was closed"
        time.sleep(0.1)


def ticks(process: int) -> dict[Path, int]:
    """The processor time of each thread of a process so far, in hundredths of a second."""
    found = {}
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            found[task] = int(fields[11]) + int(fields[12])
    return found


def busiest_thread(process: int, others: Container[Path]) -> Path:
    """The first new thread of a process that has computed for half a second and goes on."""
    deadline, before = time.monotonic() + 120, ticks(process)
    while True:
        time.sleep(0.2)
        now = ticks(process)
        for task, spent in now.items():
            if task not in others and spent >= 50 and spent > before.get(task, spent):
                return task
        assert time.monotonic() < deadline, "nothing is computed"
        before = now


def test_runs_have_modules_of_their_own_that_share_the_weights():
    subject = networks.open_network(networks.DIGITS)
    plan = code_space.plan_of(Settings(network=networks.DIGITS, image="digit-3", target=3, runs=1, steps=1), subject)
    shown, twin = subject.model.network, code_space.maximizer_of(plan, subject).networks[-1]
    assert {id(module) for module in twin.modules()}.isdisjoint(id(module) for module in shown.modules())
    for name, weight in shown.state_dict(keep_vars=True).items():
        assert twin.state_dict(keep_vars=True)[name] is weight
    # What pages read from the network by hooks is not touched by runs that go on at the same time.
    layer = "body.relu4"
    seen = []
    hook = shown.get_submodule(layer).register_forward_hook(lambda *_: seen.append(True))
    with torch.no_grad():
        twin(torch.zeros(1, *subject.input_shape))
    hook.remove()
    assert seen == []
    result = attributions.compute(subject, images.sample("digit-3").image, Question("gradient", target=3))
    assert result.attribution.any()
