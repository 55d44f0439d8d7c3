"""The command line: `python -m plugin attribute --help`."""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        from .datasets import command
    except ModuleNotFoundError as error:
        if error.name != "zarr":
            raise
        print('error: zarr is missing: pip install "captum-simplicity[datasets]"', file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="python -m plugin", description="Attribution maps.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    attribute = commands.add_parser("attribute", help="write the maps of a whole image folder to a zarr store")
    command.add_arguments(attribute)
    return command.run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
