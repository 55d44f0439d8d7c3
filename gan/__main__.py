"""The command line: `python -m gan train|sample|maximize|score`."""

import argparse
import sys
from importlib import import_module

from plugin.devices import is_out_of_memory
from plugin.errors import MissingExtraError
from plugin.models import WeightsUnavailable

COMMANDS = {
    "train": "train a GAN or a classifier",
    "sample": "draw images of random codes",
    "maximize": "find codes whose images activate a unit most",
    "score": "judge maximised images",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m gan", description="GANs and activation maximisation in code space")
    commands = parser.add_subparsers(dest="command", required=True)
    given = sys.argv[1:] if arguments is None else arguments
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if given[:1] == [name]:  # the others need not be imported
            module = import_module(f"gan.commands.{name}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    options = parser.parse_args(given)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (OSError, FloatingPointError, MissingExtraError, ValueError, WeightsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print("error: out of memory: give fewer runs or smaller batches, or --device cpu", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
