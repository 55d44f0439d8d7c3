"""Many sessions at once on one explorer for a while; prints what happened. See `tests/support/visits.py`."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from support.visits import explorer, visit

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # One thread here and in the server: with another number sums come in another order, which LRP-epsilon amplifies.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with explorer(log) as (address, process):
            found = visit(address, process, options.sessions, options.seconds, options.seed)
        if "Traceback" in log.read_text():
            found.failures.append(log.read_text()[-4000:])
    print(json.dumps(found.summary(), indent=2))
    print("resident MB:", *(round(size / 2**20) for size in found.memory))
    raise SystemExit(bool(found.failures))
