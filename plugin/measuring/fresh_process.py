"""The process behind `peak_memory.FreshProcesses`: reads a row per line and answers with the peak of a fork of itself.

It has imported everything and run nothing yet, so that a measurement takes no longer than its call.
"""

import json
import os
import sys
from typing import Any

from . import cases, measured_networks
from .cases import Row
from .peak_memory import FLOOR, LOAD


def _in_fork(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of a child to a request; without an answer, the error from the child's exit status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer: dict[str, Any] = {"bytes": _peak_of_this_process(Row(**request["row"]), request["small"])}
        except Exception as error:  # the parent reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    failed = {"error": f"the process ended with status {os.waitstatus_to_exitcode(status)}: is there enough memory?"}
    return dict(json.loads(text)) if text else failed


def _peak_of_this_process(row: Row, small: bool) -> int:
    from resource import RUSAGE_SELF, getrusage

    if row.implementation in (LOAD, FLOOR):
        model, images = measured_networks.build(row.network, small), measured_networks.images(row.batch, small)
        if row.implementation == FLOOR:
            cases.floor(model, images)
    else:
        with cases.prepared(row, small) as case:
            case.call()
    unit = 1 if sys.platform == "darwin" else 1024
    return getrusage(RUSAGE_SELF).ru_maxrss * unit


def _import_everything() -> None:
    import captum.attr  # noqa: F401

    import plugin.attr  # noqa: F401

    try:
        import zennit.attribution
        import zennit.composites
        import zennit.torchvision  # noqa: F401
    except ModuleNotFoundError:
        pass  # its rows will report this


def _serve() -> None:
    _import_everything()
    for line in sys.stdin:
        print(json.dumps(_in_fork(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
