"""The Benchmarks page and its charts."""

import io
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from support import simulator
from support.simulator import run

from plugin import devices
from plugin.explorer.pages.benchmarks import benchmark_charts, measuring_here
from plugin.explorer.server.jobs import Job, Stopped
from plugin.measuring import measured_networks, stored_results
from plugin.measuring.cases import Row
from plugin.measuring.stored_results import Measurement, Results

opened = partial(simulator.opened, "benchmarks")
OURS, CAPTUM = Row("vgg16", "lrp-epsilon"), Row("vgg16", "lrp-epsilon", "captum")
BROKEN = Row("vgg16", "lrp-epsilon-gamma-box", "zennit")


@pytest.fixture
def example():
    """Times that nobody measured, in a file that no page shows but those of this test."""
    machine = stored_results.machine_facts("cpu")
    rows = (
        Measurement(OURS, (1.0, 1.0), (1.0, 1.2), 100, 105, commit="abc"),
        Measurement(CAPTUM, (2.0, 2.0), (4.4, 4.4), 100, 200, commit="abc"),
        Measurement(BROKEN, error="ValueError: no rule for <b>this</b>", commit="abc"),
        Measurement(Row("vgg16", "lrp-epsilon", "ours", 64, "cpu"), (1.0,), (1.0,), commit="abc"),
    )
    return Results(machine, {measurement.row: measurement for measurement in rows})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty place for stored results."""
    monkeypatch.setattr(stored_results.stored, "__defaults__", (tmp_path,))
    return tmp_path


def charts(at, name):
    return [chart.proto for chart in at.get("plotly_chart") if name in chart.proto.id]


def test_page_says_that_nothing_is_stored(folder):
    at = opened()
    assert "No results are stored here" in at.info[0].value
    assert not at.get("plotly_chart")
    assert any(button.label.startswith("Measure VGG-16, batch 1") for button in at.button)
    assert at.query_params == {}


def test_page_shows_stored_results_and_links_to_them(folder, example):
    example.write(folder / "0.1.0" / "small-cpu.json")
    example.write(folder / "0.1.0" / "large-cpu.json")
    at = opened()
    assert len(charts(at, "time.stored")) == len(charts(at, "trade.stored")) == 1
    assert "LRP epsilon by Captum 2.20" in charts(at, "time.stored")[0].alt
    table = at.dataframe[0].value
    assert list(table["By"]) == ["this package", "Captum", "zennit"]
    assert table["x Captum"][0] == pytest.approx(0.5)
    assert table["Memory x baseline"][1] == 2
    assert "no rule" in table["Remark"][2]
    run(at.selectbox(key="attribute.results").set_value("small-cpu"))
    run(at.selectbox(key="attribute.measured").set_value("resnet50"))
    assert "is not among these results" in at.info[0].value
    assert at.query_params == {"results": "small-cpu", "measured": "resnet50"}
    at = opened(**at.query_params)
    assert at.selectbox(key="attribute.results").value == "small-cpu"
    assert at.selectbox(key="attribute.measured").value == "resnet50"
    at = opened(batch="64")
    assert len(charts(at, "time.stored")) == 1
    assert not any(button.label.startswith("Measure") for button in at.button)


def test_stored_results_come_as_a_file_and_as_a_program(folder, example):
    example.write(folder / "0.1.0" / "small-cpu.json")
    at = opened()
    (program,) = [block.value for block in at.code if "benchmark_charts.chosen(" in block.value]
    names = {}
    exec(program.replace(".show()", ""), names)
    with np.load(io.BytesIO(benchmark_charts.npz(names["found"], names["measurements"])), allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["x_baseline"], list(at.dataframe[0].value["x baseline"]))
        assert list(arrays["By"]) == ["this package", "Captum", "zennit"]
        assert "torch" in str(arrays["versions"])


def test_hostile_link_and_damaged_file_get_sentences(folder, example):
    at = opened(results="../../etc", measured="<script>", batch="-3")
    assert at.warning[0].value.count("The link's") == 3
    (folder / "0.1.0").mkdir()
    (folder / "0.1.0" / "machine-cpu.json").write_text("{}")
    at = opened(results="other-cpu", batch="3")
    assert "no stored results of `other-cpu`" in at.warning[0].value
    assert "holds no results" in at.error[0].value


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_measuring_here_shows_what_it_finds_on_any_device(device, folder, monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ("cpu:0", "cpu"))
    monkeypatch.setattr(devices, "_best", lambda: torch.device("cpu"))
    monkeypatch.setattr(measuring_here.measure, "__defaults__", (True,))
    monkeypatch.setattr(measuring_here, "_ROW_SECONDS", 0.0)
    rows = measuring_here.rows_to_measure("vgg16", 1, device)
    assert {row.device for row in rows} == {device}
    compiled = [row for row in rows if row.implementation == "compiled"]
    monkeypatch.setattr(measuring_here, "rows_to_measure", lambda *_: [*rows[:2], *compiled[:2]])
    at = opened(device=device)
    (start,) = [button for button in at.button if button.label.startswith("Measure")]
    run(start.click())
    job = at.session_state[f"attribute.job.benchmarks.{device}.vgg16.1"]
    assert job.wait(100).completed
    run(at)
    assert len(charts(at, "time.here")) == len(charts(at, "compiled.here")) == 1
    assert len(charts(at, "trade.here")) == (device == "cpu"), "there is a counter of its memory"
    table = at.dataframe[0].value
    ours, floor = "this package", "this package, compiled"
    assert set(zip(table["Method"], table["By"], strict=True)) == {
        ("LRP-0", floor), ("Guided backprop", ours), ("Guided backprop", "Captum"), ("Guided backprop", floor),
    }  # fmt: skip
    by = table.set_index(["Method", "By"])
    assert (by["x baseline"] > 0).all()
    assert by["x compiled baseline"].notna().sum() == 2, "compiled calls stand beside compiled ones"
    assert by["Memory x baseline"].notna().sum() == (2 if device == "cpu" else 0)
    assert {*by["Remark"]} == {"", "mode 'graph'"}
    assert "this package, compiled" not in charts(at, "time.here")[0].alt
    assert "Times, x compiled baseline: LRP-0 by this package, compiled 1.00" in charts(at, "compiled.here")[0].alt
    run(at.selectbox(key="attribute.measured").set_value("resnet50"))
    assert not charts(at, "time.here")
    run(at.selectbox(key="attribute.measured").set_value("vgg16"))
    assert len(charts(at, "time.here")) == 1, "measurements stay"


def test_row_without_memory_is_a_result_and_the_others_follow(monkeypatch):
    monkeypatch.setattr(measuring_here, "_ROW_SECONDS", 0.0)
    rows = measuring_here.rows_to_measure("mobilenet_v2", 1, "cpu:0")[:2]
    monkeypatch.setattr(measuring_here, "rows_to_measure", lambda *_: rows)
    warm_up = measuring_here.warm_up

    def full(call, floor):
        monkeypatch.setattr(measuring_here, "warm_up", warm_up)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(measuring_here, "warm_up", full)
    found = Job(lambda task: measuring_here.measure(task, "mobilenet_v2", 1, "cpu:0", small=True)).wait(100).result
    first, second = (found.get(row) for row in rows)
    assert "too little memory left on cpu:0" in first.error
    assert second.ratio is not None


def test_compiled_calls_are_compared_with_the_baseline_where_there_is_no_compiled_one(folder, example):
    example.put(replace(OURS, implementation="compiled"), "abc", floor_seconds=(1.0,), call_seconds=(0.7,))
    example.write(folder / "0.1.0" / "small-cpu.json")
    assert charts(opened(), "compiled.stored")[0].alt == "Times, x baseline: LRP epsilon by this package, compiled 0.70"
    floor = replace(OURS, method="lrp-0", implementation="compiled")
    example.put(floor, "abc", floor_seconds=(1.0,), call_seconds=(0.5,))
    example.write(folder / "0.1.0" / "small-cpu.json")
    assert "LRP epsilon by this package, compiled 1.40" in charts(opened(), "compiled.stored")[0].alt


def test_two_machines_stand_side_by_side(folder, example):
    for name in ("small-cpu", "large-cpu", "third-cpu"):
        example.write(folder / "0.1.0" / f"{name}.json")
    at = opened(results="small-cpu", results_beside="third-cpu")
    assert len(charts(at, "time.stored")) == len(charts(at, "time.beside")) == 1
    assert len(at.dataframe) == 2
    assert at.query_params == {"results": "small-cpu", "results_beside": "third-cpu"}
    assert len([block for block in at.code if "'third-cpu'" in block.value]) == 1
    beside = at.selectbox(key="attribute.results_beside")
    assert beside.options == ["no other", "large-cpu", "third-cpu"]
    run(beside.set_value(""))
    assert not charts(at, "time.beside")
    at = opened(results="small-cpu", results_beside="small-cpu")
    assert len(at.dataframe) == 1, "a machine is not compared with itself"
    at = opened(results_beside="lost-cpu")
    assert "no stored results of `lost-cpu`" in at.warning[0].value


def test_measuring_stops_and_keeps_what_it_found(monkeypatch):
    monkeypatch.setattr(measuring_here, "_ROW_SECONDS", 0.0)
    monkeypatch.setattr(measuring_here, "_memory", lambda *_: {})
    found, more = threading.Event(), threading.Event()

    class Task:
        def report(self, progress, message="", partial=None):
            self.shown = partial
            if partial is not None and len(partial.measurements) == 1:
                found.set()
                more.wait(60)
                raise Stopped

    task = Task()
    job = Job(lambda _: measuring_here.measure(task, "mobilenet_v2", 1, "cpu", small=True))
    assert found.wait(60)
    other = Job(lambda outer: measuring_here.measure(outer, "mobilenet_v2", 1, "cpu", small=True))
    assert not measuring_here._measuring.acquire(blocking=False)  # the second waits: it would disturb the first
    other.stop()
    assert not other.wait(60).completed
    more.set()
    assert not job.wait(60).completed
    assert len(task.shown.measurements) == 1
    assert measuring_here._measuring.acquire(timeout=60)
    measuring_here._measuring.release()


def test_measuring_stops_between_the_times_and_the_memory_of_a_row(monkeypatch):
    """Each takes seconds for a network as it is."""
    timed = threading.Event()
    monkeypatch.setattr(measuring_here, "_measured", lambda *_: timed.set() or {})
    monkeypatch.setattr(measuring_here, "_memory", lambda *_: pytest.fail("it goes on to the memory"))

    class Task:
        def report(self, progress, message="", partial=None):
            if timed.is_set():
                raise Stopped

    with pytest.raises(Stopped):
        measuring_here.measure(Task(), "mobilenet_v2", 1, "cpu", small=True)


def test_rows_are_what_the_installed_peers_can_do(monkeypatch):
    names = {(row.method, row.implementation) for row in measuring_here.rows_to_measure("mobilenet_v2", 1)}
    assert ("deconvnet", "captum") in names
    assert ("lrp-epsilon", "captum") not in names  # no rule for ReLU6
    assert ("lrp-epsilon-gamma-box", "captum") not in names
    assert {row.implementation for row in measuring_here.rows_to_measure("vit_b_16", 1)} == {"ours", "compiled"}
    monkeypatch.setattr(measuring_here, "find_spec", lambda name: None)
    assert "zennit" not in {row.implementation for row in measuring_here.rows_to_measure("vgg16", 1)}


def test_charts_hold_the_medians(example):
    measurements = benchmark_charts.chosen(example, "vgg16", 1)
    assert [m.row for m in measurements] == [OURS, CAPTUM, BROKEN]
    bars = {bar.name: bar for bar in benchmark_charts.time_figure(measurements).data}
    assert bars["this package"].x == (1.1,)
    assert bars["Captum"].x == (2.2,)
    assert bars["this package"].error_x.array[0] == pytest.approx(0.05)
    only_compiled = replace(measurements[0], row=Row("vgg16", "lrp-0", "compiled"))
    axis = benchmark_charts.time_figure([only_compiled, *measurements]).layout.yaxis
    assert axis.categoryarray[0] == "LRP-0"  # in the methods' order, not in that of the implementations
    dots = {dot.name: dot for dot in benchmark_charts.trade_figure(measurements).data}
    assert (dots["Captum"].x, dots["Captum"].y) == ((2.2,), (2.0,))
    assert "zennit" not in dots
    assert set(benchmark_charts.COLOURS) >= {row.implementation for row in measuring_here.rows_to_measure("vgg16", 1)}
    assert set(measured_networks.NAMES) == {"vgg16", "resnet50", "mobilenet_v2", "vit_b_16"}
