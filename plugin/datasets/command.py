"""The command line: `python -m plugin attribute --model NAME --data FOLDER --method NAME --out maps.zarr`."""

import argparse
import sys
from pathlib import Path

import torch

from ..attr.methods import METHODS
from ..models import WeightsUnavailable
from .attribute import Report, attribute_folder

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--model", required=True, help="a bundled or torchvision name, or package.module:factory")
    parser.add_argument("--checkpoint", type=Path, help="weights to load instead: safetensors, or a file of torch.save")
    parser.add_argument("--data", required=True, type=Path, help="folder of pictures; subfolders count, too")
    parser.add_argument("--method", required=True, choices=METHODS, metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--layer", help="for methods that look at a layer: its name")
    parser.add_argument("--target", type=_target, default="predicted", help="predicted (default), label, or a number")
    parser.add_argument("--out", required=True, type=Path, help="the zarr store; gone on with if it exists")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the maps")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures explained at once")
    parser.add_argument("--workers", type=int, default=4, help="threads that read and decode pictures")
    parser.add_argument("--device", help="such as cpu or cuda:1; default: a GPU if there is one")


def _target(text: str) -> str | int:
    return text if text in ("predicted", "label") else int(text)


def run(options: argparse.Namespace) -> int:
    """Do what the arguments say; returns the exit code."""
    try:
        report = attribute_folder(
            options.model,
            options.data,
            options.out,
            options.method,
            options.target,
            checkpoint=options.checkpoint,
            layer=options.layer,
            dtype=options.dtype,
            batch_size=options.batch_size,
            workers=options.workers,
            device=options.device,
        )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with {options.out}", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError:
        print(f"error: out of memory: lower --batch-size ({options.batch_size}) to go on", file=sys.stderr)
        return 2
    except (ValueError, OSError, WeightsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(_sentences(report))
    return 0


def _sentences(report: Report) -> str:
    done = report.maps + len(report.skipped)
    if report.left:
        state = f"has its share; {report.left} files are left to other processes"
    else:
        state = "was finished before" if report.found == done else "is finished"
    lines = [f"{report.path} {state}: {report.maps} maps, {len(report.skipped)} files skipped"]
    lines += [f"  {name}: {reason}" for name, reason in list(report.skipped.items())[:_SHOWN]]
    if len(report.skipped) > _SHOWN:
        lines.append(f"  and {len(report.skipped) - _SHOWN} more: see `error` in the store")
    return "\n".join(lines)
