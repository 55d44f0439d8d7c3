"""`python -m plugin.explorer --model package.module:factory`: the explorer, also for networks of your own."""

import argparse

from . import serving


def main(arguments: list[str] | None = None) -> int:
    """Serve the explorer; unknown options are passed to `streamlit run`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m plugin.explorer", description=__doc__)
    serving.add_arguments(parser)
    return serving.run(*parser.parse_known_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
