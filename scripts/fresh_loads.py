"""Each page of the explorer by its address, again and again, in fresh sessions over a slow line on a slow machine.

`python scripts/fresh_loads.py` prints for each page how many loads ended on the view of its address, and how many
seconds they took. See `tests/support/fresh_loads.py`.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from support.browser import launched, served
from support.fresh_loads import LINE, SLOWER, Loads, fresh_loads
from support.views import VIEWS


def told(loads: Loads) -> str:
    """The loads of a page in a line."""
    right, most = len(loads.seconds), len(loads.seconds) + len(loads.failures)
    parts = [f"{loads.view.name}: {right} of {most} right"]
    if right:
        least, middle, longest = min(loads.seconds), statistics.median(loads.seconds), max(loads.seconds)
        parts.append(f"seconds {least:.1f} / {middle:.1f} / {longest:.1f}")
    return ", ".join([*parts, f"load average {os.getloadavg()[0]:.1f}", *loads.failures])


def main() -> int:
    """Load and print. Returns the exit code: 1 if a load went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=30, help="of each page")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="of the views: " + ", ".join(v.name for v in VIEWS))
    options = parser.parse_args()
    wrong = 0
    kilobytes, latency = LINE["downloadThroughput"] // 1000, LINE["latency"]
    print(f"{kilobytes} kB/s, {latency} ms latency, processor slowed {SLOWER} times; least / median / most", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "log.txt", "-m", "plugin.explorer") as address,
        launched() as browser,
    ):
        for view in (view for view in VIEWS if options.only is None or view.name in options.only):
            # One profile: the scripts of Streamlit are fetched once, as for a person who comes again.
            window = browser.new_context(viewport={"width": 1280, "height": 900})
            found = fresh_loads(window, address, view, options.loads)
            window.close()
            wrong += len(found.failures)
            print(told(found), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
