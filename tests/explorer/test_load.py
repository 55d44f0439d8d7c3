"""Several sessions at once: right maps, bounded memory, and work that ends with its page.

A short version of `scripts/load.py`; with `LOAD_SESSIONS=10 LOAD_SECONDS=120` it is the long one.
"""

import contextlib
import io
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Container
from pathlib import Path

import numpy as np
import pytest
import torch
from support.browser import ROOT
from support.sessions import PATIENCE_SECONDS, Session
from support.visits import OWN, explorer, visit

from plugin import models
from plugin.explorer.choices.settings import MOST_STEPS, Settings
from plugin.explorer.inputs import offered_networks, offered_pictures
from plugin.explorer.inputs.subject import Subject
from plugin.explorer.maps import answers
from plugin.explorer.maps.questions import Question
from plugin.explorer.pages.code_space.plans import plan_of
from plugin.explorer.pages.code_space.runs import maximize
from plugin.explorer.server.jobs import Job

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
    report = visit(*served, SESSIONS, SECONDS)  # type: ignore[call-arg]
    assert report.failures == []
    assert "Traceback" not in log.read_text()
    assert report.maps >= SESSIONS
    assert report.memory[-1] - report.memory[0] < MOST_GROWTH


def test_no_session_meets_a_library_that_another_one_is_loading():
    """Plotly looks for pandas among the modules, and takes one that is half loaded."""
    script = (
        "import plugin.explorer.app\n"
        "from _plotly_utils.optional_imports import get_module\n"
        "print(get_module('pandas', should_load=False).Series.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.stdout == "Series\n", done.stderr


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


@pytest.mark.slow
def test_page_that_is_closed_while_images_come_about_ends_the_work(served):
    address, process = served
    others = ticks(process)
    query = {"network": OWN, "generator": "pixels", "runs": "4", "steps": str(MOST_STEPS), "stop_at": "1"}
    session = Session(address, "code-space", query)
    session.press_labelled("Maximise with")
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


def test_pages_and_runs_share_one_network_that_nobody_touches():
    subject = offered_networks.open_network(offered_networks.DIGITS)
    network, picture = subject.model.network, offered_pictures.sample("digit-3").image
    question, layer = Question("guided-backprop", target=3), "body.relu4"
    alone = answers.compute(subject, picture, question).attribution, answers.responses(subject, picture, layer)
    images = run_alone(subject)
    before = {name: (weight.clone(), weight._version) for name, weight in network.state_dict(keep_vars=True).items()}
    job = Job(lambda task: maximize(task, plan_of(RUNS, subject), subject))
    seen = 0
    while job.look().running or not seen:
        np.testing.assert_array_equal(answers.compute(subject, picture, question).attribution, alone[0])
        np.testing.assert_array_equal(answers.responses(subject, picture, layer), alone[1])
        seen += 1
    torch.testing.assert_close(job.wait(60).result.result.images, images, atol=1e-5, rtol=0)
    for name, weight in network.state_dict(keep_vars=True).items():
        assert weight._version == before[name][1]
        torch.testing.assert_close(weight, before[name][0], atol=0, rtol=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


RUNS = Settings(network=offered_networks.DIGITS, image="digit-3", target=3, generator="gan-mnist", runs=4, steps=12)


def run_alone(subject):
    """The images of the runs when nothing else is computed."""
    job = Job(lambda task: maximize(task, plan_of(RUNS, subject), subject))
    return job.wait(120).result.result.images


@pytest.mark.parametrize("inplace", [False, True])
def test_response_of_a_layer_is_not_what_comes_after_it(inplace):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU(inplace), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).requires_grad_(False)
    subject = Subject("own", models.load(network), {}, "")
    picture = offered_pictures.sample("cat").image
    found = answers.responses(subject, picture, "0")
    np.testing.assert_array_equal(found, network[0](subject.model.preprocess(picture))[0].numpy())
    assert found.min() < 0
