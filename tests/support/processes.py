"""Programs in processes of their own, which begin with PyTorch and our packages imported.

A server that has imported them forks the processes: each starts in milliseconds, where a new interpreter takes seconds.
A test of imports, or of an interpreter's end, needs a new one.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from subprocess import CompletedProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "plugin.accelerate",
        "plugin.datasets",
        "gan.__main__",
        "torchvision.transforms.functional",
        "sklearn.datasets",
    ]
)


def start(program: str, *arguments: object, outputs: tuple[Connection, ...] = ()) -> Any:
    """Begin a program, with its `sys.argv[1:]`; returns the process of `multiprocessing`."""
    process = CONTEXT.Process(target=_execute, args=(program, [str(each) for each in arguments], outputs))
    process.start()
    return process


def run(program: str, *arguments: object) -> "CompletedProcess[str]":
    """Run a program to its end: its exit code, its output, and its errors."""
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
    process = start(program, *arguments, outputs=tuple(writer for _, writer in pipes))
    for _, writer in pipes:
        writer.close()
    with ThreadPoolExecutor(len(pipes)) as pool:
        output, errors = pool.map(_text, [reader for reader, _ in pipes])
    process.join()
    return CompletedProcess(program, process.exitcode, output, errors)


def _text(reader: Connection) -> str:
    with open(reader.fileno(), closefd=False) as file:
        return file.read()


def _execute(program: str, arguments: list[str], outputs: tuple[Connection, ...]) -> None:
    for descriptor, output in enumerate(outputs, 1):
        os.dup2(output.fileno(), descriptor)
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
