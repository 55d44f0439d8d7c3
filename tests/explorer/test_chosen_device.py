"""The device that is chosen: the place of the computation, the queue of work, and errors for want of memory.

The second device of these machines is the processor by its other name, so that all that is chosen by name is real.
"""

import io
import threading
import weakref
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.simulator import opened, programs, run, turn_to, widget
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from plugin import devices
from plugin.explorer.choices.settings import Settings
from plugin.explorer.inputs import offered_networks, offered_pictures
from plugin.explorer.inputs.folder_predictions import FolderPredictions
from plugin.explorer.inputs.picture_collections import of_samples
from plugin.explorer.maps import answers, badges, ledgers, map_names, rendering, sanity_checks, unit_pictures
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.pages.code_space import run_programs, runs
from plugin.explorer.pages.code_space.plans import plan_of
from plugin.explorer.pages.folder.folder_maps import FolderMaps
from plugin.explorer.server.device_memory import OutOfDeviceMemory, guarded
from plugin.explorer.server.jobs import Job
from plugin.explorer.server.meter import Meter
from plugin.explorer.server.turns import JOBS, MAPS, turns_on
from plugin.explorer.widgets import kept_results

pytestmark = pytest.mark.timeout(120)
OTHER = "cpu:0"
CAT = offered_pictures.sample("cat")


@pytest.fixture
def two_devices(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: (OTHER, "cpu"))
    monkeypatch.setattr(devices, "_best", lambda: torch.device("cpu"))


def test_link_to_a_device_that_is_not_there_says_so_and_uses_the_best(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ("cpu",))
    at = opened(device="cuda:7", methods="gradient")
    assert "`cuda:7` is no device of this machine, which has cpu; the default is used" in at.warning[0].value
    assert "device" not in at.query_params
    assert all(box.key != "attribute.device" for box in at.selectbox), "there is nothing to choose"


def test_maps_run_where_one_chooses_and_say_so(two_devices):
    at = opened(methods="lrp-epsilon")
    assert widget(at, "selectbox", "device").options == ["cpu", OTHER]
    assert any(caption.value.endswith(" on cpu") for caption in at.caption)
    assert ".to(" not in programs(at)[0]
    run(widget(at, "selectbox", "device").set_value(OTHER))
    assert at.query_params["device"] == OTHER
    assert any(caption.value.endswith(f" on {OTHER}") for caption in at.caption)
    names = {}
    exec(programs(at)[0].replace("figure.show()", ""), names)
    asked = Look(kept_results.subject("all-cnn-c", None, OTHER), CAT).ask(Question("lrp-epsilon", target=3))
    np.testing.assert_array_equal(names["attribution"], kept_results.result(asked).attribution)
    assert f"model.network.to({OTHER!r})" in programs(at)[0]
    turn_to(at, "lrp")
    run(at)
    assert at.query_params["device"] == OTHER
    turn_to(at, "invariance")
    run(at)
    assert "device" not in at.query_params, "it is measured on the processor"
    assert all(box.key != "attribute.device" for box in at.selectbox)
    at = opened(device=OTHER, methods="gradient")
    assert widget(at, "selectbox", "device").value == OTHER


def test_files_and_results_tell_devices_apart():
    looks = [Look(offered_networks.open_network("all-cnn-c", device=device), CAT) for device in ("cpu", OTHER)]
    question = Question("gradient", target=3)
    asked = [look.ask(question) for look in looks]
    assert len({kept_results.of_asked(each) for each in asked}) == 2
    assert len({kept_results.of_look(look) for look in looks}) == 2
    assert looks[0] != looks[1]
    assert map_names.map_file(asked[0], Settings(), 1.0) != map_names.map_file(asked[1], Settings(), 1.0)
    result = kept_results.result(asked[1])
    file = rendering.npz(result, Settings(), question, CAT, 1.0)
    with np.load(io.BytesIO(file), allow_pickle=False) as arrays:
        assert f'"ran_on": "{OTHER}"' in str(arrays["settings"])


class Watched(nn.Module):
    """Notes where its inputs are."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, set()

    def forward(self, images):
        self.seen.add(images.device.type)
        return self.network(images)


def predicted(look):
    predictions = FolderPredictions(look.subject, of_samples(grey=False))
    predictions.predict({row: pixels for row, pixels in predictions.read([0]) if pixels is not None})


def maximised(look):
    settings = Settings(generator="pixels", runs=1, steps=2)
    runs.maximize(SimpleNamespace(report=lambda *_: None), plan_of(settings, look.subject), look.subject)


ASKED = Question("lrp-epsilon", target=3)
RESULT = answers.Answer(np.ones((3, 32, 32), np.float32), 0.0, None)
WORK = {
    "logits": lambda look: answers.outputs(look.subject, CAT.image),
    "responses": lambda look: answers.responses(look.subject, CAT.image, "network.features.relu5"),
    "map": lambda look: answers.compute(look.subject, CAT.image, ASKED),
    "ledger": lambda look: ledgers.compute(look.subject, CAT.image, ASKED),
    "check": lambda look: sanity_checks.check(look.subject, CAT.image, ASKED, 1),
    "badge": lambda look: badges.measure(look.ask(ASKED), RESULT),
    "unit": lambda look: unit_pictures.excitations(
        look.subject, CAT.image, "network.features.relu5", (0, 4, 4), [RESULT]
    ),
    "folder": predicted,
    "maximisation": maximised,
}


class ValuesAreOne(TorchDispatchMode):
    """Answers requests for a value of "meta", such as whether all are finite."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1.0
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("work", WORK)
def test_inputs_come_to_the_device_of_the_network(work, monkeypatch):
    """On "meta", which has no values: whatever needs them fails there, and has asked the network before."""
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr("plugin.devices._computes", lambda device: True)
    # The other network's pictures are normalised by torchvision's transform, which reads the deviations.
    name = offered_networks.DIGITS if work == "maximisation" else "all-cnn-c"
    subject = offered_networks.open_network(name, device="meta")
    watched = Watched(subject.model.network)
    subject = replace(subject, model=replace(subject.model, network=watched))
    with suppress(ValueError, RuntimeError, NotImplementedError), ValuesAreOne():
        WORK[work](Look(subject, CAT))
    assert watched.seen == {"meta"}


def test_a_gpu_has_one_queue_and_the_processor_does_not_wait_for_it():
    queue = turns_on("a GPU", MAPS)
    assert turns_on("a GPU", JOBS) is queue
    assert turns_on("another GPU", MAPS) is not queue
    assert turns_on("cpu", MAPS) is MAPS
    at_work, go_on = threading.Event(), threading.Event()

    def hold(task):
        at_work.set()
        go_on.wait(60)

    first = Job(hold, turns=queue, device="a GPU")
    assert at_work.wait(60)
    second = Job(lambda task: "there", turns=turns_on("a GPU", MAPS), device="a GPU")
    assert kept_results.badges.get("here", lambda: "made") == "made"  # while the GPU is busy
    assert Job(lambda task: "here", turns=turns_on("cpu", JOBS)).wait(60).result == "here"
    assert second.look().running
    go_on.set()
    assert first.wait(60).completed
    assert second.wait(60).result == "there"


class Full(nn.Module):
    """A network for which there is no memory at first."""

    def __init__(self, network, error, times=1):
        super().__init__()
        self.network, self.error, self.left, self.held = network, error, times, []

    def forward(self, images):
        if self.left:
            self.left -= 1
            kept = images * 2
            self.held.append(weakref.ref(kept))
            raise self.error
        return self.network(images)


def full(error, times=1):
    subject = offered_networks.open_network("all-cnn-c", device=OTHER)
    network = Full(subject.model.network, error, times)
    return replace(subject, model=replace(subject.model, network=network), identity=f"full {id(network)}")


ERRORS = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation"),
    "processor": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 8 GB, max allowed: 9 GB)"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_without_memory_there_is_one_sentence_and_then_the_device_is_usable(kind, two_devices, monkeypatch):
    freed, subject = [], full(ERRORS[kind])
    network = subject.model.network
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(network.held[0]()))
    asked = Look(subject, CAT).ask(Question("gradient", target=3))
    sentence = (
        f"There is too little memory left on {OTHER}: take a smaller picture or fewer runs, or choose another device."
    )
    with pytest.raises(OutOfDeviceMemory) as caught:
        kept_results.result(asked)
    assert str(caught.value) == sentence
    assert freed == [None], "cached blocks are freed when nothing holds their tensors any more"
    assert kept_results.result(asked).attribution.any()
    assert not turns_on(OTHER, MAPS)._working


def test_jobs_without_memory_end_with_the_sentence():
    def work(task):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation")

    queue = turns_on(OTHER, JOBS)
    assert Job(work, turns=queue, device=OTHER).wait(60).error.startswith(f"There is too little memory left on {OTHER}")
    assert Job(lambda task: "done", turns=queue, device=OTHER).wait(60).result == "done"


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes"), guarded("cpu"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_page_says_that_there_is_no_memory(two_devices, monkeypatch):
    network = full(ERRORS["CUDA"], times=1)
    monkeypatch.setattr(offered_networks, "open_network", lambda *_: network)
    at = opened(device=OTHER, methods="gradient", network="model-c")
    assert "There is too little memory left on cpu" in at.error[0].value
    run(at)
    assert not at.error
    assert any(caption.value.endswith(f" on {OTHER}") for caption in at.caption)


def test_a_batch_that_is_too_large_is_asked_one_by_one():
    predictions = FolderPredictions(full(ERRORS["CUDA"]), of_samples(grey=False))
    predictions.predict(dict(predictions.read([0, 1])))
    assert predictions.findings().known[:2].all()


class Allocator:
    """A device's module with a clock of its own: work is done when one waits for it."""

    def __init__(self):
        self.now, self.waiting, self.allocated = 0.0, 0.0, 100
        self.highest, self.asked = defaultdict(lambda: 900), set()

    def synchronize(self, device=None):
        self.asked.add(device)
        self.now, self.waiting = self.now + self.waiting, 0.0

    def reset_peak_memory_stats(self, device):
        self.asked.add(device)
        self.highest[device] = self.allocated

    def memory_allocated(self, device):
        return self.allocated

    def max_memory_allocated(self, device):
        return self.highest[device]


@pytest.fixture
def allocator(monkeypatch):
    found = Allocator()
    monkeypatch.setattr(torch, "get_device_module", lambda device: found)
    monkeypatch.setattr("plugin.explorer.server.meter.time.perf_counter", lambda: found.now)
    return found


@pytest.mark.parametrize("name", ["cuda:1", "xpu:0"])
def test_memory_and_time_of_a_gpu_are_its_own(name, allocator):
    device = torch.device(name)
    allocator.waiting = 5.0  # of somebody else, before
    with Meter(device) as meter, Meter(torch.device("cpu")):
        allocator.waiting, allocator.highest[device] = 2.0, 160
    assert (meter.seconds, meter.peak_bytes) == (2.0, 60)
    assert allocator.asked == {device}


def test_memory_of_apples_gpus_is_what_the_driver_gave(allocator, monkeypatch):
    driver = [300]
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: driver[0])
    with Meter(torch.device("mps")) as meter:
        allocator.waiting, driver[0] = 1.0, 1300
    assert (meter.seconds, meter.peak_bytes) == (1.0, 1000)


def test_other_devices_are_timed_without_memory(allocator):
    with Meter(torch.device("hpu")) as meter:
        allocator.waiting = 1.0
    assert (meter.seconds, meter.peak_bytes) == (1.0, None)


def test_work_on_a_gpu_takes_memory_of_the_processor_and_not_the_other_way_round(allocator):
    def measured(device):
        with Meter(torch.device(device)):
            pass

    gpu = torch.device("cuda:1")
    with Meter(torch.device("cpu")) as here, Meter(gpu) as there:
        allocator.highest[gpu] = 110
        for device in ("cpu", "cuda:0"):
            thread = threading.Thread(target=measured, args=(device,))
            thread.start()
            thread.join(60)
    assert here.peak_bytes is None
    assert there.peak_bytes == 10


def test_programs_and_command_lines_name_another_device(two_devices):
    maps = FolderMaps("all-cnn-c", "all-cnn-c", "", "photos", "gradient", "", "out.zarr")
    assert "--device" not in maps.command
    assert replace(maps, device=OTHER).command.endswith(f"--device {OTHER}")
    subject = offered_networks.open_network(offered_networks.DIGITS, device=OTHER)
    for generator in ("pixels", "gan-mnist"):
        plan = plan_of(Settings(network=subject.name, generator=generator, runs=1, steps=2), subject)
        outcome = runs.maximize(SimpleNamespace(report=lambda *_: None), plan, subject)
        assert outcome.device == OTHER
        assert f", device={OTHER!r})" in run_programs.program(outcome, subject)
        here = replace(outcome, plan=replace(plan, device="cpu"))
        assert "device" not in run_programs.program(here, subject)
