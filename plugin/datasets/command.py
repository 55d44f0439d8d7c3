"""The command line: `python -m plugin attribute --model NAME --data FOLDER --method NAME --out maps.zarr`."""

import argparse
import sys
from pathlib import Path

from ..attr.methods import METHODS
from ..devices import is_out_of_memory
from ..models import WeightsUnavailable
from .attribute import ENGINES, attribute_dataset
from .ranks import share_of_environment
from .records import Report
from .summaries import KINDS

_SHOWN = 20
# The exit code of a process that did its share while files are left: a job array has failed until none is.
_FILES_LEFT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--model", required=True, help="a bundled or torchvision name, or package.module:factory")
    parser.add_argument("--checkpoint", type=Path, help="weights to load instead: safetensors, or a file of torch.save")
    data = "folder (subfolders count, too), glob, list (.txt, .csv), .parquet, .tar, hf:NAME:SPLIT; a path or a URL"
    parser.add_argument("--data", required=True, help=data)
    parser.add_argument("--method", required=True, choices=METHODS, metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--layer", help="for methods that look at a layer: its name")
    parser.add_argument("--target", type=_target, default="predicted", help="predicted (default), label, or a number")
    out = "a zarr store, or a folder of Parquet files if it ends in .parquet; a path or a URL; continued if it exists"
    parser.add_argument("--out", required=True, help=out)
    parser.add_argument("--no-resume", action="store_true", help="refuse an output that exists instead of going on")
    summary = "instead of every map: mean, per-class, top-k; written to _summary.npz beside Parquet files without maps"
    parser.add_argument("--summary", choices=KINDS, help=summary)
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the maps")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures explained at once")
    parser.add_argument("--block-rows", type=int, help="pictures written together, of a new output")
    parser.add_argument("--workers", type=int, default=4, help="threads that read and decode pictures")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="this process (default), or a Ray cluster")
    parser.add_argument("--actors", type=int, help="with Ray: processes that explain; default: one for each GPU")
    parser.add_argument("--device", help="such as cpu or cuda:1; default: a GPU if there is one")
    stop = "stop when more pictures have no map: a number, or below 1 a share"
    parser.add_argument("--max-errors", type=float, metavar="LIMIT", help=stop)


def _target(text: str) -> str | int:
    if text in ("predicted", "label"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither predicted nor label nor the number of an output")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    sys.path.append(str(Path.cwd()))  # for a factory: `python -m` looks there, an installed command does not
    try:
        report = _attribute(options)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with {options.out}", file=sys.stderr)
        return 130
    except (ValueError, OSError, WeightsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"error: out of memory: lower --batch-size ({options.batch_size}) to go on", file=sys.stderr)
        return 2
    print(_sentences(report))
    # Under torchrun an exit code would end the processes that do the rest; it fails itself if one of them does.
    return _FILES_LEFT if report.left and not share_of_environment().is_supervised else 0


def _attribute(options: argparse.Namespace) -> Report:
    return attribute_dataset(
        options.model,
        options.method,
        options.data,
        options.out,
        options.target,
        checkpoint=options.checkpoint,
        layer=options.layer,
        dtype=options.dtype,
        batch_size=options.batch_size,
        block_rows=options.block_rows,
        workers=options.workers,
        device=options.device,
        max_errors=options.max_errors,
        engine=options.engine,
        actors=options.actors,
        resume=not options.no_resume,
        keep=options.summary or "maps",
    )


def _sentences(report: Report) -> str:
    done = report.maps + len(report.skipped)
    if report.left:
        state = f"has its share; {report.left} files are left to other processes"
    else:
        state = "was finished before" if report.found == done else "is finished"
    lines = [f"{report.path} {state}: {report.maps} maps, {len(report.skipped)} files skipped"]
    lines += [f"  {name}: {reason}" for name, reason in list(report.skipped.items())[:_SHOWN]]
    if len(report.skipped) > _SHOWN:
        lines.append(f"  and {len(report.skipped) - _SHOWN} more: see `error` in the output")
    if report.found < done:
        lines.append(_times(report))
    return "\n".join(lines)


def _times(report: Report) -> str:
    """The time of each step, summed over threads and processes, and the number of files of each actor."""
    whole = sum(report.seconds.values()) or 1.0
    lines = [f"  {name:9}{seconds:10.1f} s {seconds / whole:5.0%}" for name, seconds in report.seconds.items()]
    lines += [f"  {actor}: {count} files" for actor, count in report.actors.items()]
    return "\n".join(["time:", *lines])
