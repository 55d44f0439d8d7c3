"""Times, memory and results: the report follows from the measurements."""

import json
import statistics
from dataclasses import replace

import pytest
import torch
from torch import nn

from plugin.measuring import cases, measured_networks, required_values, stored_results, timing
from plugin.measuring.cases import Row
from plugin.measuring.peak_memory import FreshProcesses
from plugin.measuring.stored_results import Measurement, Results
from plugin.measuring.timing import Spread, quotients, rounds_within, spread, take_turns, warm_up

MACHINE = {"cpu": "A processor", "cores": 2}


def measured(row, call, floor=1.0, **more):
    return Measurement(row, (floor,) * 3, tuple(call), commit="abc", **more)


def test_floor_and_call_take_turns():
    done = []
    pairs = list(take_turns(lambda: done.append("call"), lambda: done.append("floor"), 3))
    assert done == ["floor", "call"] * 3
    assert len(pairs) == 3
    assert all(seconds >= 0 for pair in pairs for seconds in pair)


def test_both_are_warm_before_anything_is_measured(monkeypatch):
    done = []
    result, _ = warm_up(lambda: done.append("call") or len(done), lambda: done.append("floor"), least=3)
    assert done == ["floor", "call"] * 3
    assert result == 6
    moments = iter(range(100))
    monkeypatch.setattr(timing, "clock", lambda: 10.0 * next(moments))
    assert warm_up(done.clear, done.clear) == (None, 10.0)
    assert next(moments) == 2  # slow calls are run once only


def test_rounds_fit_the_time_but_are_never_too_few():
    assert rounds_within(2.5, 0.5) == 5
    assert rounds_within(2.5, 60.0) == timing.LEAST_ROUNDS
    assert rounds_within(2.5, 0.0) == timing.MOST_ROUNDS


def test_spread_is_median_and_quartiles():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert spread(values) == Spread(2.0, statistics.median(values), 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    assert sorted(quotients([2.0, 4.0], [1.0, 2.0])) == [1.0, 2.0, 2.0, 4.0]


def test_ratios_pair_each_call_with_the_floor_before_it():
    measurement = Measurement(Row("vgg16", "lrp-epsilon"), (1.0, 2.0, 4.0), (1.5, 3.0, 6.0))
    assert measurement.ratio == Spread(1.5, 1.5, 1.5)  # the machine was four times slower at the end
    assert Measurement(Row("vgg16", "lrp-epsilon")).ratio is None
    assert replace(measurement, floor_peak_bytes=10, peak_bytes=11).memory_ratio == pytest.approx(1.1)


@pytest.mark.parametrize("small", [True, False])
def test_floor_is_one_gradient_for_each_target(small):
    network = measured_networks.build("mobilenet_v2", small=True)
    images = measured_networks.images(2, small=True)
    count = 1 if small else 3
    leaf = images.clone().requires_grad_()
    network(leaf)[:, cases.TARGET if count == 1 else count - 1].sum().backward()
    torch.testing.assert_close(cases.floor(network, images, count), leaf.grad, rtol=0, atol=0)
    assert not images.requires_grad


@pytest.mark.parametrize("name", measured_networks.NAMES)
def test_small_networks_have_the_kinds_of_layers_of_the_large_ones(name):
    with torch.device("meta"):
        from torchvision import models

        large = models.get_model(name, weights=None)
    small = measured_networks.build(name, small=True)
    kinds = [{type(module) for module in model.modules()} for model in (small, large)]
    assert kinds[0] == kinds[1]
    assert sum(weight.numel() for weight in small.parameters()) < 5e6
    images = measured_networks.images(2, small=True)
    assert small(images).abs().min() > 0
    assert torch.equal(small(images), measured_networks.build(name, small=True)(images))
    assert not any(weight.requires_grad for weight in small.parameters())


def test_peers_leave_nothing_on_the_network_of_the_floor():
    row = Row("resnet50", "lrp-epsilon", "zennit")
    with cases.prepared(row, small=True) as case:
        case.call()
        before = case.floor()
    network = cases._network("resnet50", "cpu", True, own=False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    with cases.prepared(replace(row, implementation="ours"), small=True) as case:
        # Not bit for bit: the last bits of a convolution depend on where in memory its operands lie.
        torch.testing.assert_close(case.floor(), before, rtol=1e-4, atol=1e-6)


def test_a_map_that_is_another_one_is_noticed():
    row = Row("vgg16", "guided-backprop", "captum")
    ours = cases.reference(replace(row, implementation="ours"), True)
    assert cases.difference(row, ours, True) == 0
    assert cases.difference(row, 1.5 * ours, True) == pytest.approx(0.5)
    assert cases.difference(row, ours * torch.nan, True) == float("inf")
    assert 1e29 < cases.difference(row, 1e30 * ours, True) < 1e31  # whose squares no float32 holds
    captums = replace(row, method="lrp-epsilon")
    with cases.prepared(captums, small=True) as case:  # its stabiliser is smaller, and so is ours for the comparison
        assert cases.difference(captums, case.call(), True) < 1e-5
    assert cases.tolerance(row) < 1e-4
    assert cases.tolerance(replace(row, network="mobilenet_v2")) is None


@pytest.mark.slow
def test_memory_of_fresh_processes_grows_with_the_batch_and_errors_are_told(capfd):
    with FreshProcesses(small=True) as processes:
        one, many = (processes.peak(Row("resnet50", "lrp-epsilon", batch=batch)) for batch in (1, 128))
        floor = processes.floor_peak(Row("resnet50", "lrp-epsilon", batch=128))
        with pytest.raises(RuntimeError, match="Captum has no lrp-epsilon-gamma-box"):
            processes.peak(Row("vgg16", "lrp-epsilon-gamma-box", "captum"))
    images = 128 * 3 * measured_networks.SMALL_SIDE**2 * 4
    assert many > one + images
    assert 0.2 < floor / many < 5


def test_results_survive_writing_and_reading(tmp_path):
    found = Results(MACHINE)
    row = Row("vgg16", "lrp-epsilon", "zennit", 16)
    found.put(row, "abc", floor_seconds=(0.123456789,), call_seconds=(0.25,), difference=1.2345e-5, remark="slow")
    found.put(Row("vit_b_16", "lrp-epsilon", "captum"), "abc", error="no rule")
    path = tmp_path / "0.1.0" / "machine-cpu.json"
    found.write(path)
    again = Results.read(path)
    assert again.machine == MACHINE
    assert [m.row for m in again] == [m.row for m in found]
    assert again.get(row).floor_seconds == (0.12346,)
    assert again.get(row).difference == 1.2e-5
    assert list(again)[1].error == "no rule"
    again.write(path)
    assert Results.read(path).measurements == again.measurements
    assert [file.name for file in path.parent.iterdir()] == ["machine-cpu.json"]


def test_passes_over_time_and_memory_meet_in_one_row_of_one_commit():
    found, row = Results(MACHINE), Row("vgg16", "lrp-epsilon")
    found.put(row, "abc", call_seconds=(1.0,), floor_seconds=(1.0,))
    found.put(row, "abc", peak_bytes=5, floor_peak_bytes=4)
    assert found.get(row).call_seconds == (1.0,)
    found.put(row, "def", peak_bytes=6, floor_peak_bytes=4)
    assert found.get(row).call_seconds == ()


@pytest.mark.parametrize("text", ["", "[]", '{"rows": 3}', '{"machine": {}, "rows": [{"network": "vgg16"}]}'])
def test_other_files_are_refused(text, tmp_path):
    path = tmp_path / "machine-cpu.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"machine-cpu\.json holds no results"):
        Results.read(path)


def test_newest_version_is_shown(tmp_path):
    assert stored_results.stored(tmp_path) == {}
    for version in ("0.9.0", "0.10.0", "0.11.0"):
        (tmp_path / version).mkdir()
    for version in ("0.9.0", "0.10.0"):
        Results(MACHINE).write(tmp_path / version / "machine-cpu.json")
    assert stored_results.stored(tmp_path) == {"machine-cpu": tmp_path / "0.10.0" / "machine-cpu.json"}


def test_machine_facts_name_no_person_and_fit_a_file_name():
    import platform

    facts = json.dumps(stored_results.machine_facts("cpu"))
    assert torch.__version__.split("+")[0] in facts
    assert platform.node() not in facts
    path = stored_results.result_path("cpu")
    assert path.name.endswith("-cores-cpu.json")
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_targets_are_judged_by_medians_in_the_same_run():
    found = Results(MACHINE)
    ours, theirs = Row("vgg16", "lrp-epsilon"), Row("vgg16", "lrp-epsilon", "zennit")
    for row, call in ((ours, [1.0, 1.1, 1.2]), (theirs, [2.0, 2.2, 2.4])):
        found.measurements[row] = measured(row, call)
    (against_floor,) = [t for t in required_values.TARGETS if t.methods == ("lrp-epsilon",) and t.most == 1.10]
    (finding,) = required_values.findings(found, against_floor)
    assert finding.value == pytest.approx(Spread(1.05, 1.1, 1.15))
    assert finding.reached == (finding.value.median <= 1.1)
    (against_zennit,) = [
        t
        for t in required_values.TARGETS
        if t.methods == ("lrp-epsilon",) and t.against == "zennit" and t.device == "cpu"
    ]
    (finding,) = required_values.findings(found, against_zennit)
    assert finding.value.median == pytest.approx(0.5)
    assert required_values.findings(found, replace(against_zennit, networks=("resnet50",))) == []
    found.measurements[theirs] = Measurement(theirs, error="it failed")
    assert required_values.findings(found, against_zennit) == []


def test_compiled_is_judged_against_the_compiled_floor():
    found = Results(MACHINE)
    for method, seconds, floor in (("lrp-0", 0.5, 1.0), ("lrp-epsilon", 0.6, 2.0)):  # the floor was launched slower
        row = Row("vgg16", method, "compiled", 1, "cuda")
        found.measurements[row] = measured(row, [seconds] * 3, floor)
    (target,) = [t for t in required_values.TARGETS if t.against == "compiled floor"]
    (finding,) = required_values.findings(found, target)
    assert finding.value.median == pytest.approx(1.2)
    assert required_values.reached([finding]) == (1, 1)


def test_memory_is_judged_against_floor_and_captum():
    found = Results(MACHINE)
    for name, peak in (("ours", 105), ("captum", 100)):
        row = Row("vgg16", "deconvnet", name)
        found.measurements[row] = Measurement(row, floor_peak_bytes=100, peak_bytes=peak)
    verdicts = {
        target.against: [finding.reached for finding in required_values.findings(found, target)]
        for target in required_values.TARGETS
        if target.measure == "memory" and target.device == "cpu"
    }
    assert verdicts == {"floor": [True], "captum": [False]}


def test_stored_results_tell_what_a_peer_cannot_do_in_the_same_words():
    for path in stored_results.stored(stored_results.FOLDER).values():
        for measurement in Results.read(path):
            reason = cases.unsupported(measurement.row)
            assert not (reason and measurement.error) or measurement.error == reason, measurement.row


def test_what_a_peer_cannot_do_is_known_and_true():
    row = Row("mobilenet_v2", "lrp-epsilon", "captum")
    assert "ReLU6" in cases.unsupported(row)
    assert not cases.unsupported(replace(row, method="deconvnet"))
    with pytest.raises(TypeError, match="ReLU6"), cases.prepared(row, small=True) as case:
        case.call()
    assert isinstance(measured_networks.build("vgg16", small=True), nn.Module)
