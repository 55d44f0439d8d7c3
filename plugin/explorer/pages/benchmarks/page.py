"""The Benchmarks page: how long attributions take and how much memory they need, stored and measured here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st

from plugin.measuring import stored_results
from plugin.measuring.cases import IMPLEMENTATIONS
from plugin.measuring.measured_networks import NAMES
from plugin.measuring.stored_results import Measurement, Results
from plugin.measuring.timing import Spread

from ...choices.settings import Settings
from ...inputs import offered_pictures
from ...server.download_button import download_button
from ...server.jobs import JobView
from ...server.untrusted_text import escaped, markdown_sentence, quoted
from ...widgets import chart_options, open_strip, page_state
from ...widgets.background_work import work
from ...widgets.input_choice import device_choice
from ...widgets.page_state import key
from . import benchmark_charts, measuring_here

_BASELINE = (
    "The unit is the **baseline**: one forward pass of the network and one gradient at its input, measured in turns "
    "with each call. Bars end at the median, whiskers span the quartiles. **Compiled** calls stand beside the compiled "
    "baseline: LRP-0, which is the gradient times the picture."
)
_NUMBERS = ("x baseline", "x Captum", "x zennit", "x compiled baseline", "Memory x baseline")


def draw() -> None:
    """Draw the page."""
    settings, notes = page_state.recall("benchmarks", offered_pictures.samples())
    files = stored_results.stored()
    settings = _with_known_results(settings, list(files), notes)
    shown = {name: found for name in _machines(settings) if (found := _read(files[name])) is not None}
    batches = _batches(shown.values(), settings)
    if settings.batch not in batches:
        settings = replace(settings, batch=batches[0])
    page_state.put(settings, "results", "results_beside", "measured", "batch", "device")
    with st.sidebar:
        _widgets(settings, list(files), batches)
    open_strip.draw("benchmarks", settings)
    st.header("How fast is it, and how much memory does it take?")
    page_state.show_notes("benchmarks", settings, notes)
    st.markdown(_BASELINE)
    _stored(shown, settings)
    _here(settings)
    with st.expander("Reproduce this view"):
        st.code(page_state.link(settings), language=None)
        for name in shown:
            st.code(benchmark_charts.program(settings.measured, settings.batch, name))
        st.code("make bench    # measures, and stores the results\nmake report   # writes the tables", language="bash")
    page_state.remember("benchmarks", settings)


def _with_known_results(settings: Settings, known: Sequence[str], notes: list[str]) -> Settings:
    """The settings with machines whose results are stored; `notes` get a sentence for each that is not."""
    for name in _machines(settings):
        if name not in known:
            notes.append(f"There are no stored results of {quoted(name)}.")
    first = settings.results if settings.results in known else next(iter(known), "")
    second = settings.results_beside if settings.results_beside in {*known} - {first} else ""
    return replace(settings, results=first, results_beside=second)


def _machines(settings: Settings) -> list[str]:
    return [name for name in (settings.results, settings.results_beside) if name]


def _widgets(settings: Settings, machines: Sequence[str], batches: Sequence[int]) -> None:
    if machines:
        st.selectbox("Machine", machines, key=key("results"))
    if len(machines) > 1:
        others = ["", *(name for name in machines if name != settings.results)]
        st.selectbox("Beside it", others, format_func=lambda name: name or "no other", key=key("results_beside"))
    st.selectbox("Network", list(NAMES), format_func=NAMES.__getitem__, key=key("measured"))
    st.segmented_control("Images per call", batches, key=key("batch"), required=True)
    device_choice()


def _read(path: Path) -> Results | None:
    try:
        return Results.read(path)
    except (OSError, ValueError) as error:
        st.error(markdown_sentence(error))
        return None


def _batches(shown: Iterable[Results], settings: Settings) -> list[int]:
    stored = {m.row.batch for found in shown for m in found if m.row.network == settings.measured}
    return sorted(stored | set(measuring_here.batches(settings.runs_on)))


def _stored(shown: Mapping[str, Results], settings: Settings) -> None:
    st.subheader("Stored results")
    if not shown:
        st.info("No results are stored here. `make bench` in a checkout of the repository measures and stores them.")
        return
    beside = len(shown) > 1
    columns = st.columns(2) if beside else [st.container()]
    for column, (machine, found), name in zip(columns, shown.items(), ("stored", "beside"), strict=False):
        with column:
            if beside:
                st.markdown(f"**{escaped(machine)}**")
            _charts(found, settings, name, machine if beside else "the stored results", beside)


def _here(settings: Settings) -> None:
    st.subheader("Measured here")
    device = settings.runs_on
    offered = measuring_here.batches(device)
    if settings.batch not in offered:
        numbers = " or ".join(map(str, offered))
        st.info(f"{settings.batch} images per call are not measured on {device}: choose {numbers}.")
        return
    label = f"Measure {NAMES[settings.measured]}, batch {settings.batch}, here"
    task = partial(measuring_here.measure, network=settings.measured, batch=settings.batch, device=device)

    def show(view: JobView[Results]) -> None:
        measured = view.latest
        if measured is not None and measured.measurements:
            _charts(measured, settings, "here", "the results measured here")

    st.caption(f"On {device} of this machine, with random weights; other work on it shows in the whiskers.")
    work(f"benchmarks.{device}.{settings.measured}.{settings.batch}", label, task, show, device=device)


def _charts(found: Results, settings: Settings, name: str, called: str, narrow: bool = False) -> None:
    """The results of one network and batch size: eager calls beside each other, then compiled ones.

    Args:
        found: all results of a machine.
        settings: which network and batch.
        name: tells the results of a page apart.
        called: the name of the results in the label of their file.
        narrow: whether charts stand below each other.
    """
    measurements = benchmark_charts.chosen(found, settings.measured, settings.batch)
    st.caption(markdown_sentence(benchmark_charts.caption(found)))
    if not measurements:
        st.info(f"{NAMES[settings.measured]} with {settings.batch} images per call is not among these results.")
        return
    eager = [measurement for measurement in measurements if not benchmark_charts.is_compiled(measurement)]
    compiled = [measurement for measurement in measurements if benchmark_charts.is_compiled(measurement)]
    remembered = any(measurement.memory_ratio for measurement in measurements)
    time, trade = (st.container(), st.container()) if narrow or not remembered else st.columns([3, 2])
    with time:
        _times(eager, benchmark_charts.over_baseline, "x baseline", f"time.{name}")
    if remembered:
        trade.plotly_chart(
            chart_options.on_page(benchmark_charts.trade_figure(measurements)), key=key(f"trade.{name}"),
            config=chart_options.SAVED,
            alt="Time against peak memory, both as multiples of the baseline; the table has the numbers",
        )  # fmt: skip
    if compiled:
        st.markdown(f"**{IMPLEMENTATIONS['compiled'].capitalize()}**")
        _times(compiled, *benchmark_charts.of_compiled(found, compiled), f"compiled.{name}")
    st.dataframe(
        benchmark_charts.table(found, measurements), hide_index=True, key=key(f"table.{name}"),
        column_config={number: st.column_config.NumberColumn(format="%.3f") for number in _NUMBERS},
        alt="The same numbers as a table",
    )  # fmt: skip
    file = f"{settings.measured}-{settings.batch}-{name}.npz"
    make = partial(benchmark_charts.npz, found, measurements)
    download_button(f"NPZ of {called}", make, file, key(f"NPZ.{name}"))


def _times(
    measurements: Sequence[Measurement], time: Callable[[Measurement], Spread | None], unit: str, name: str
) -> None:
    st.plotly_chart(
        chart_options.on_page(benchmark_charts.time_figure(measurements, time, unit)), key=key(name),
        config=chart_options.SAVED, alt=benchmark_charts.spoken(measurements, time, unit),
    )  # fmt: skip
