"""The command line: `captum-simplicity attribute --help`, or `python -m plugin attribute --help`."""

import argparse
import sys

from .errors import MissingExtraError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["explore"]:  # its options are the explorer's own, and Streamlit's
        from .explorer.__main__ import main as explore

        return explore(arguments[1:])
    from .datasets import command

    parser = argparse.ArgumentParser(prog="python -m plugin", description="Attribution maps.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    attribute = commands.add_parser("attribute", help="write the maps of a whole data set")
    command.add_arguments(attribute)
    commands.add_parser("explore", help="serve the explorer in the browser", add_help=False)
    return command.run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
