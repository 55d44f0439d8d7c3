"""The memory shown beside a map: the amount that its own computation added, or nothing."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from plugin.explorer.server.meter import Meter

CPU = torch.device("cpu")


def hold(megabytes: int) -> None:
    """Need so much memory for a moment."""
    torch.ones(megabytes, 2**18).sum()


def measured(megabytes: int) -> Meter:
    with Meter(CPU) as meter:
        hold(megabytes)
    return meter


def about(megabytes: int) -> object:
    return pytest.approx(megabytes * 2**20, rel=0.2)


def test_memory_is_what_the_work_itself_added() -> None:
    hold(256)  # a higher peak, of before
    assert measured(64).peak_bytes in (None, about(64))
    with Meter(CPU) as outer:
        hold(128)
        assert measured(64).peak_bytes in (None, about(64)), "work inside work is measured too"
    assert outer.peak_bytes in (None, about(128))


def test_memory_is_not_told_while_others_are_measured() -> None:
    with Meter(CPU) as meter, ThreadPoolExecutor() as pool:
        assert pool.submit(measured, 8).result().peak_bytes is None
        hold(8)
    assert meter.peak_bytes is None
    assert meter.seconds > 0


@pytest.mark.parametrize(("peak", "told"), [(900, None), (1000, 300)])
def test_where_the_peak_cannot_be_forgotten_only_a_new_one_is_told(peak, told, monkeypatch) -> None:
    readings = {"VmRSS": 700, "VmHWM": 900}
    monkeypatch.setattr("plugin.explorer.server.meter._forget_peak", lambda: False)
    monkeypatch.setattr("plugin.explorer.server.meter._resident", readings.get)
    with Meter(CPU) as meter:
        readings["VmHWM"] = peak
    assert meter.peak_bytes == told
