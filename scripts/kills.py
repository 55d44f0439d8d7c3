"""Kills runs of `python -m plugin attribute` at random moments, goes on with them, and compares the outputs.

A table says for each engine, victim and output how many kills there were, and whether the output is that of an unbroken
run. Results in the folder are not computed again, so that this program may be killed itself.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from support.kills import Kills, Run, differences
from support.picture_folders import fill, rows_of

from plugin.datasets.summaries import KINDS, Summary

VICTIMS = ("process", "driver", "actor", "cluster")
OUTPUTS = ("maps.parquet", "maps.zarr", *KINDS)


def unbroken(folder: Path, engine: str, output: str) -> Run:
    """The run that nobody kills, finished."""
    run = planned(folder, engine, output, "unbroken")
    if not run.blocks() or run.start().wait():
        shutil.rmtree(run.out, ignore_errors=True)
        run.finish()
    return run


def planned(folder: Path, engine: str, output: str, name: str) -> Run:
    """A run of the pictures of the folder."""
    options = ("--actors", "2") if engine == "ray" else ()
    if output in KINDS:
        options = ("--summary", output, *options)
    (folder / f"{engine}-{name}").mkdir(exist_ok=True)
    return Run(folder / "pictures", folder / f"{engine}-{name}" / output, engine, options)


def summary_differences(folder: Path, engine: str, kind: str, found: Path) -> list[str]:
    """Arrays of a summary that are not those of the summary of the full output, but for rounding."""
    rows = rows_of(unbroken(folder, engine, "maps.parquet").out)
    expected = Summary(kind).merge([Summary(kind).of_block(rows)])
    different = []
    with np.load(found) as summary:
        for name, values in expected.items():
            same = np.array_equal if values.dtype.kind not in "f" else np.allclose
            if not same(summary[name], values):
                different.append(f"full output: {name}")
    return different


def row(folder: Path, victim: str, output: str, kills: int, seed: int) -> dict[str, object]:
    """The outcome of the kills of one victim."""
    engine = "local" if victim == "process" else "ray"
    expected = unbroken(folder, engine, output).values()
    run = planned(folder, engine, output, f"{victim}-{seed}")
    shutil.rmtree(run.out, ignore_errors=True)
    killed = Kills(run, "driver" if victim == "process" else victim, seed)
    killed.strike(kills, most_blocks=max(2, 200 // (kills + 1)))
    found = run.values()
    names = found["file" if output.endswith(".zarr") else "id"].tolist()
    different = differences(found, expected)
    if output in KINDS:
        different += summary_differences(folder, engine, output, run.out / "_summary.npz")
    return {
        "victim": victim,
        "output": output,
        "kills": killed.count,
        "rows": len(names),
        "distinct": len(set(names)),
        "kept blocks": len(killed.kept),
        "driver alone s": " ".join(f"{seconds:.0f}" for seconds in killed.alone),
        "different": "; ".join(different) or "nothing",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for pictures and outputs; continued if it exists")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=OUTPUTS[:2])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "pictures").exists():
        fill(options.folder / "drawn", options.pictures).rename(options.folder / "pictures")
    failed = False
    for victim in options.victims:
        for output in options.outputs:
            result = options.folder / f"{victim}-{output}-{options.kills}-{options.seed}.json"
            if not result.exists():
                found = row(options.folder, victim, output, options.kills, options.seed)
                result.write_text(json.dumps(found))
            found = json.loads(result.read_text())
            print("  ".join(f"{name}: {value}" for name, value in found.items() if value != ""), flush=True)
            failed |= found["different"] != "nothing" or found["rows"] != found["distinct"]
    raise SystemExit(failed)
