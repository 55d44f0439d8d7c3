"""Many sessions at once on one explorer; prints their findings.

Without options they change settings for a while, see `tests/support/visits.py`; with `--heavy` all of them ask for
heavy work, and `--uploads` files are sent that nobody should open, see `tests/support/heavy_visits.py`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from support.heavy_visits import heavy_visit
from support.visits import explorer, visit

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heavy", type=int, default=0, metavar="SESSIONS", help="that ask for heavy work at once")
    parser.add_argument("--uploads", type=int, default=40, help="of hostile checkpoints, with --heavy")
    options = parser.parse_args()
    # One thread here and in the server: with another number sums come in another order, which LRP-epsilon amplifies.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with explorer(log) as (address, process):
            found: Any = (
                heavy_visit(address, process, options.heavy, options.uploads, options.seed)
                if options.heavy
                else visit(address, process, options.sessions, options.seconds, options.seed)
            )
        if "Traceback" in log.read_text():
            found.failures.append(log.read_text()[-4000:])
    print(json.dumps(found.summary(), indent=2))
    print("resident MB:", *(round(size / 2**20) for size in found.memory))
    raise SystemExit(bool(found.failures))
