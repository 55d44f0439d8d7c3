"""The Benchmarks page: how long attributions take and how much memory they need, stored and measured here."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st

from plugin.measuring import results
from plugin.measuring.networks import NAMES
from plugin.measuring.results import Results

from .. import benchmarks, controls, images, panels, saving
from ..controls import key
from ..jobs import View
from ..state import Settings, markdown_sentence, quoted

_FLOOR = (
    "The unit is the **floor**: one forward pass of the network and one gradient at its input, measured in turns with "
    "each call. Bars end at the median, whiskers span the quartiles."
)
_NUMBERS = ("Floors", "x Captum", "x zennit", "Memory in floors")


def page() -> None:
    """Draw the page."""
    settings, notes = controls.recall("benchmarks", images.samples())
    files = results.stored()
    if settings.results and settings.results not in files:
        notes.append(f"There are no stored results of {quoted(settings.results)}.")
    if settings.results not in files:
        settings = replace(settings, results=next(iter(files), ""))
    found = _read(files.get(settings.results))
    batches = _batches(found, settings)
    if settings.batch not in batches:
        settings = replace(settings, batch=batches[0])
    controls.put(settings, "results", "measured", "batch")
    with st.sidebar:
        if files:
            st.selectbox("Machine", list(files), key=key("results"))
        st.selectbox("Network", list(NAMES), format_func=NAMES.__getitem__, key=key("measured"))
        st.segmented_control("Images per call", batches, key=key("batch"), required=True)
    st.header("How fast is it, and how much memory does it take?")
    if notes:
        st.warning("  \n".join(notes))
    st.markdown(_FLOOR)
    _stored(found, settings)
    _here(settings)
    with st.expander("Reproduce this view"):
        st.code(controls.link(settings), language=None)
        if found is not None:
            st.code(benchmarks.snippet(settings.measured, settings.batch, settings.results))
        st.code("make bench    # measures, and stores the results\nmake report   # writes the tables", language="bash")
    controls.remember("benchmarks", settings)


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
    return sorted(stored | set(benchmarks.BATCHES))


def _stored(found: Results | None, settings: Settings) -> None:
    st.subheader("Stored results")
    if found is None:
        st.info("No results are stored here. `make bench` in a checkout of the repository measures and stores them.")
    else:
        _charts(found, settings, "stored")


def _here(settings: Settings) -> None:
    st.subheader("Measured here")
    if settings.batch not in benchmarks.BATCHES:
        st.info("So many images per call are for GPUs.")
        return
    label = f"Measure {NAMES[settings.measured]}, batch {settings.batch}, here"
    work = partial(benchmarks.measure, network=settings.measured, batch=settings.batch)

    def draw(view: View[Results]) -> None:
        measured = view.latest
        if measured is not None and measured.measurements:
            _charts(measured, settings, "here")

    st.caption("On this machine's processor, with random weights; other work on it shows in the whiskers.")
    panels.work(f"benchmarks.{settings.measured}.{settings.batch}", label, work, draw)


def _charts(found: Results, settings: Settings, name: str) -> None:
    """Time, time against memory, and the table of one network and batch."""
    measurements = benchmarks.chosen(found, settings.measured, settings.batch)
    st.caption(markdown_sentence(benchmarks.caption(found)))
    if not measurements:
        st.info(f"{NAMES[settings.measured]} with {settings.batch} images per call is not among these results.")
        return
    time, trade = st.columns([3, 2])
    with time:
        st.plotly_chart(
            benchmarks.time_figure(measurements), key=key(f"time.{name}"), config=panels.SAVED_CHART,
            alt=benchmarks.spoken(measurements),
        )  # fmt: skip
    with trade:
        st.plotly_chart(
            benchmarks.trade_figure(measurements), key=key(f"trade.{name}"), config=panels.SAVED_CHART,
            alt="Time against peak memory, both in floors; the table has the numbers",
        )  # fmt: skip
    st.dataframe(
        benchmarks.table(found, measurements), hide_index=True, key=key(f"table.{name}"),
        column_config={number: st.column_config.NumberColumn(format="%.3f") for number in _NUMBERS},
        alt="The same numbers as a table",
    )  # fmt: skip
    file = f"{settings.measured}-{settings.batch}-{name}.npz"
    make = partial(benchmarks.npz, found, measurements)
    saving.button("NPZ", make, file, "application/octet-stream", key(f"NPZ.{name}"))
