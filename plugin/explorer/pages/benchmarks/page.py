"""The Benchmarks page: how long attributions take and how much memory they need, stored and measured here."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st

from plugin.measuring import results
from plugin.measuring.networks import NAMES
from plugin.measuring.results import Results

from ...inputs import offered_pictures
from ...server.download_button import download_button
from ...server.jobs import View
from ...settings import Settings
from ...untrusted_text import markdown_sentence, quoted
from ...widgets import chart_options, open_strip, page_state
from ...widgets.background_work import work
from ...widgets.page_state import key
from . import benchmark_charts, measuring_here

_FLOOR = (
    "The unit is the **floor**: one forward pass of the network and one gradient at its input, measured in turns with "
    "each call. Bars end at the median, whiskers span the quartiles."
)
_NUMBERS = ("Floors", "x Captum", "x zennit", "Memory in floors")


def draw() -> None:
    """Draw the page."""
    settings, notes = page_state.recall("benchmarks", offered_pictures.samples())
    files = results.stored()
    if settings.results and settings.results not in files:
        notes.append(f"There are no stored results of {quoted(settings.results)}.")
    if settings.results not in files:
        settings = replace(settings, results=next(iter(files), ""))
    found = _read(files.get(settings.results))
    batches = _batches(found, settings)
    if settings.batch not in batches:
        settings = replace(settings, batch=batches[0])
    page_state.put(settings, "results", "measured", "batch")
    with st.sidebar:
        if files:
            st.selectbox("Machine", list(files), key=key("results"))
        st.selectbox("Network", list(NAMES), format_func=NAMES.__getitem__, key=key("measured"))
        st.segmented_control("Images per call", batches, key=key("batch"), required=True)
    open_strip.draw("benchmarks", settings)
    st.header("How fast is it, and how much memory does it take?")
    page_state.show_notes(notes)
    st.markdown(_FLOOR)
    _stored(found, settings)
    _here(settings)
    with st.expander("Reproduce this view"):
        st.code(page_state.link(settings), language=None)
        if found is not None:
            st.code(benchmark_charts.program(settings.measured, settings.batch, settings.results))
        st.code("make bench    # measures, and stores the results\nmake report   # writes the tables", language="bash")
    page_state.remember("benchmarks", settings)


def _read(path: Path | None) -> Results | None:
    if path is None:
        return None
    try:
        return Results.read(path)
    except (OSError, ValueError) as error:
        st.error(markdown_sentence(error))
        return None


def _batches(found: Results | None, settings: Settings) -> list[int]:
    stored = {m.row.batch for m in found or () if m.row.network == settings.measured}
    return sorted(stored | set(measuring_here.BATCHES))


def _stored(found: Results | None, settings: Settings) -> None:
    st.subheader("Stored results")
    if found is None:
        st.info("No results are stored here. `make bench` in a checkout of the repository measures and stores them.")
    else:
        _charts(found, settings, "stored")


def _here(settings: Settings) -> None:
    st.subheader("Measured here")
    if settings.batch not in measuring_here.BATCHES:
        st.info("So many images per call are for GPUs.")
        return
    label = f"Measure {NAMES[settings.measured]}, batch {settings.batch}, here"
    task = partial(measuring_here.measure, network=settings.measured, batch=settings.batch)

    def show(view: View[Results]) -> None:
        measured = view.latest
        if measured is not None and measured.measurements:
            _charts(measured, settings, "here")

    st.caption("On this machine's processor, with random weights; other work on it shows in the whiskers.")
    work(f"benchmarks.{settings.measured}.{settings.batch}", label, task, show)


def _charts(found: Results, settings: Settings, name: str) -> None:
    """Time, time against memory, and the table of one network and batch."""
    measurements = benchmark_charts.chosen(found, settings.measured, settings.batch)
    st.caption(markdown_sentence(benchmark_charts.caption(found)))
    if not measurements:
        st.info(f"{NAMES[settings.measured]} with {settings.batch} images per call is not among these results.")
        return
    time, trade = st.columns([3, 2])
    with time:
        st.plotly_chart(
            chart_options.on_page(benchmark_charts.time_figure(measurements)), key=key(f"time.{name}"),
            config=chart_options.SAVED,
            alt=benchmark_charts.spoken(measurements),
        )  # fmt: skip
    with trade:
        st.plotly_chart(
            chart_options.on_page(benchmark_charts.trade_figure(measurements)), key=key(f"trade.{name}"),
            config=chart_options.SAVED,
            alt="Time against peak memory, both in floors; the table has the numbers",
        )  # fmt: skip
    st.dataframe(
        benchmark_charts.table(found, measurements), hide_index=True, key=key(f"table.{name}"),
        column_config={number: st.column_config.NumberColumn(format="%.3f") for number in _NUMBERS},
        alt="The same numbers as a table",
    )  # fmt: skip
    file = f"{settings.measured}-{settings.batch}-{name}.npz"
    results_of = {"stored": "the stored results", "here": "what was measured here"}[name]
    make = partial(benchmark_charts.npz, found, measurements)
    download_button(f"NPZ of {results_of}", make, file, key(f"NPZ.{name}"))
