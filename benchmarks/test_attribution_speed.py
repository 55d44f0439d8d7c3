"""Attribution against the floor, Captum and zennit."""

import pytest
from benchmark_rows import time_rows
from benchmark_session import compared_with_ours, synchronising

from plugin.measuring import cases
from plugin.measuring.cases import Row


@synchronising
@pytest.mark.parametrize(("network", "method", "device", "batch", "implementation"), time_rows())
def test_attribution_speed(network, method, device, batch, implementation, session, measure) -> None:
    session.check_time()
    row = Row(network, method, implementation, batch if session.timed else min(batch, 2), device)
    small = not session.timed
    refusal = cases.unsupported(row)
    try:
        with cases.prepared(row, small) as case:
            measure(row, case, compared_with_ours(row, case, small))
    except Exception as error:  # one that fails is a result like the others
        if session.timed:
            session.put(row, error=refusal or f"{type(error).__name__}: {error}", call_seconds=(), floor_seconds=())
            session.say(row, refusal or f"failed: {error}")
        if not refusal:
            raise
        pytest.skip(refusal)
    assert not refusal, f"{row} works after all: it is no longer true that {refusal}"
