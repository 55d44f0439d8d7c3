"""Peak memory of an attribution above the network's, as a multiple of the floor's."""

import pytest
from benchmark_rows import memory_rows

from plugin.measuring.cases import Row
from plugin.measuring.peak_memory import peak_on_gpu


@pytest.mark.parametrize(("network", "method", "device", "batch", "implementation"), memory_rows())
def test_attribution_memory(network, method, device, batch, implementation, session, fresh_processes) -> None:
    session.check_time()
    row = Row(network, method, implementation, batch if session.timed else min(batch, 2), device)
    try:
        if device == "cuda":
            peak, floor_peak = peak_on_gpu(row, small=not session.timed)
        else:
            peak, floor_peak = fresh_processes.peak(row), fresh_processes.floor_peak(row)
    except RuntimeError as error:
        if session.timed:
            session.put(row, memory_error=str(error))
        raise
    assert floor_peak >= 0
    if session.timed:
        measurement = session.put(row, peak_bytes=peak, floor_peak_bytes=floor_peak, memory_error="")
        session.say(row, f"{peak / 2**20:.0f} MB, {measurement.memory_ratio or 0:.3f} floors")
