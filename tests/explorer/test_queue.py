"""Heavy work takes turns, the page says so, and a value that several want is made once."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
from support.simulator import opened, run

from plugin.explorer.inputs import offered_networks, offered_pictures
from plugin.explorer.maps import answers
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.server import turns
from plugin.explorer.server.jobs import Job
from plugin.explorer.server.kept_values import KeptValues
from plugin.explorer.server.turns import MAPS, Turns
from plugin.explorer.widgets import kept_results

pytestmark = pytest.mark.timeout(120)


class Crowd:
    """Counts how many are at work at once, and in which order they come."""

    def __init__(self):
        self.now, self.most, self.order, self.lock = 0, 0, [], threading.Lock()

    def work(self, name, seconds=0.01):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(name)
        time.sleep(seconds)
        with self.lock:
            self.now -= 1
        return name


def at_once(jobs):
    """Run them in a thread each, and wait for all."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_checks_give_way_to_maps_and_not_for_ever():
    queue, begun, end, passed = Turns(2), threading.Event(), threading.Event(), threading.Event()

    def draw_a_map():
        with queue.turn():
            begun.set()
            end.wait(60)

    drawing = threading.Thread(target=draw_a_map, daemon=True)
    drawing.start()
    begun.wait(60)
    with queue.turn():  # not for a turn of its own, but for that of the other
        queue.give_way(0.01)
    threading.Thread(target=lambda: (queue.give_way(60), passed.set()), daemon=True).start()
    assert not passed.wait(0.2)
    end.set()
    assert passed.wait(30)
    drawing.join(60)
    with queue.turn():
        queue.give_way(60)


@pytest.mark.parametrize("most", [1, 3])
def test_so_many_work_at_a_time(most):
    queue, crowd = Turns(most), Crowd()

    def job(name):
        with queue.turn():
            crowd.work(name)

    at_once([partial(job, name) for name in range(20)])
    assert crowd.most == most
    assert sorted(crowd.order) == list(range(20))


def test_who_comes_first_goes_first_and_is_told_how_many_are_before():
    queue, crowd, heard = Turns(1), Crowd(), {}

    def job(name):
        with queue.turn(lambda ahead: heard.setdefault(name, ahead)):
            crowd.work(name)
            deadline = time.monotonic() + 30
            while not name and len(heard) < 3 and time.monotonic() < deadline:  # all others wait for the first
                time.sleep(0.001)

    threads = []
    for name in range(4):
        threads.append(threading.Thread(target=job, args=(name,), daemon=True))
        threads[-1].start()
        deadline = time.monotonic() + 30
        while name and len(queue._waiting) < name and time.monotonic() < deadline:
            time.sleep(0.001)
        if not name:
            while not crowd.order:
                time.sleep(0.001)
    for thread in threads:
        thread.join(30)
    assert crowd.order == [0, 1, 2, 3]
    assert heard == {1: 1, 2: 2, 3: 3}
    assert turns.ahead_of_this(1) == "Waiting for its turn: 1 other is before this …"
    assert "2 others are" in turns.ahead_of_this(2)


def test_who_leaves_the_queue_or_fails_leaves_room():
    queue, go_on = Turns(1), threading.Event()

    def leave(ahead):
        raise KeyboardInterrupt

    def holder():
        with queue.turn():
            go_on.wait(30)

    thread = threading.Thread(target=holder, daemon=True)
    thread.start()
    while not queue._working:
        time.sleep(0.001)
    with pytest.raises(KeyboardInterrupt), queue.turn(leave):
        pass
    assert not queue._waiting
    go_on.set()
    thread.join(30)
    with pytest.raises(ZeroDivisionError), queue.turn():
        1 / 0  # noqa: B018
    with queue.turn(), queue.turn():  # inside another of the same thread
        pass
    assert not queue._working


def test_job_waits_for_its_turn_says_so_and_can_be_stopped_meanwhile():
    queue, go_on = Turns(1), threading.Event()
    first = Job(lambda task: go_on.wait(30), turns=queue)
    while not queue._working:
        time.sleep(0.001)
    second, third = (Job(lambda task: "done", turns=queue) for _ in range(2))
    deadline = time.monotonic() + 30
    while not second.look().message and time.monotonic() < deadline:
        time.sleep(0.01)
    assert second.look().message.startswith("Waiting for its turn")
    second.stop()
    view = second.wait(30)
    assert not view.running
    assert not view.completed
    go_on.set()
    assert third.wait(30).result == "done"
    assert first.wait(30).completed


def test_value_that_many_want_is_made_once_and_the_oldest_goes():
    crowd, values = Crowd(), KeptValues(2, Turns(4))
    at_once([partial(values.get, "a", partial(crowd.work, "a")) for _ in range(8)])
    assert crowd.order.count("a") <= 4  # no more than could begin before the first had ended
    made = len(crowd.order)
    assert values.get("a", partial(crowd.work, "a")) == "a"
    assert len(crowd.order) == made
    for name in ("b", "a", "c"):
        values.get(name, partial(crowd.work, name))
    values.get("a", partial(crowd.work, "a"))
    assert crowd.order[made:] == ["b", "c"]
    values.get("b", partial(crowd.work, "b"))
    assert crowd.order[made:] == ["b", "c", "b"]
    with pytest.raises(ZeroDivisionError):
        values.get("d", lambda: 1 / 0)
    assert values.get("d", lambda: "made now") == "made now"


def test_twenty_sessions_at_once_do_not_compute_twenty_maps_in_parallel(monkeypatch):
    crowd = Crowd()
    look = Look(offered_networks.open_network("all-cnn-c"), offered_pictures.sample("cat"))
    compute = answers.compute

    def counted(subject, image, question):
        crowd.work(question)
        return compute(subject, image, question)

    monkeypatch.setattr(answers, "compute", counted)
    questions = [Question("gradient", layer="features.relu1", neuron=(0, 3, place)) for place in range(20)]
    at_once([partial(kept_results.result, look.ask(question)) for question in questions])
    assert crowd.most <= MAPS.most < 20
    assert {*crowd.order} == {*questions}


def test_page_says_that_it_waits(monkeypatch):
    # A picture that nobody has looked at: values that are kept need not wait.
    picture = replace(offered_pictures.sample("rocket"), digest="of this test alone")
    look = Look(offered_networks.open_network("all-cnn-c"), picture)
    queue_free, seen = threading.Event(), []

    def holder():
        with MAPS.turn():
            queue_free.wait(60)

    holders = [threading.Thread(target=holder, daemon=True) for _ in range(MAPS.most)]
    for thread in holders:
        thread.start()
    while len(MAPS._working) < MAPS.most:
        time.sleep(0.001)

    class Placeholder:
        def info(self, text):
            seen.append(text)
            queue_free.set()

        def empty(self):
            seen.append("")

    monkeypatch.setattr(kept_results.st, "empty", Placeholder)
    kept_results.probabilities(look)
    assert seen[0] == turns.ahead_of_this(MAPS.most)
    assert seen[-1] == ""


def test_two_runs_of_one_session_wait_for_one_another(monkeypatch):
    from plugin.explorer.widgets import background_work

    queue, go_on = Turns(1), threading.Event()
    monkeypatch.setattr(background_work, "JOBS", queue)
    blocker = Job(lambda task: go_on.wait(60), turns=queue)
    while not queue._working:
        time.sleep(0.001)
    at = opened("code-space", network="mnist-classifier", generator="gan-mnist", runs="2", steps="2")
    (start,) = [button for button in at.button if button.label.startswith("Maximise with")]
    run(start.click())
    (name,) = [name for name in at.session_state._state._state.filtered_state if ".job." in name]
    deadline = time.monotonic() + 30
    while not at.session_state[name].look().message and time.monotonic() < deadline:
        time.sleep(0.01)
    assert at.session_state[name].look().message == turns.ahead_of_this(1)
    go_on.set()
    assert at.session_state[name].wait(60).completed
    assert blocker.wait(30).completed


def test_pytorch_and_all_pages_are_imported_when_the_server_starts():
    program = """
import sys
import streamlit.web.cli as cli
from plugin.explorer.__main__ import main
from plugin.explorer.app import PAGES
cli.main = lambda arguments: print(
    "torch" in sys.modules, "gan" in sys.modules, all(page.module in sys.modules for page in PAGES)
)
main([])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["True"] * 3, found.stderr


def test_jobs_end_before_the_process_does():
    """A thread that computes while Python shuts down would make PyTorch abort the process."""
    program = """
from plugin.explorer.server.jobs import Job
import threading

begun = threading.Event()

def work(task):
    try:
        while True:
            begun.set()
            task.report(0.5)
    finally:
        print("cleaned up", flush=True)

job = Job(work)
begun.wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "cleaned up\n"
