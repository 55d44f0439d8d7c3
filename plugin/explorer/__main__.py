"""`python -m plugin.explorer --model package.module:factory`: the explorer, also for networks of your own."""

import argparse
import sys
from pathlib import Path
from typing import Any

from . import image_sets, networks

_ENTRY = Path(__file__).with_name("entry.py")
# Those of `.streamlit/config.toml`, which the server finds only where the repository is.
OPTIONS: dict[str, Any] = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.allowedHosts": ["127.0.0.1", "localhost"],
    "server.maxUploadSize": 200,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "type",
    "client.toolbarMode": "viewer",
    "runner.postScriptGC": False,
    "theme.light.primaryColor": "#2166ac",
    "theme.dark.primaryColor": "#6aa5dc",
}


def main(arguments: list[str] | None = None) -> int:
    """Serve the explorer; what it does not know is an option of `streamlit run`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m plugin.explorer", description=__doc__)
    parser.add_argument(
        "--model", action="append", default=[], metavar="package.module:factory",
        help="a function that takes nothing and returns a module, or a plugin.models.LoadedModel; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--data", action="append", default=[], metavar="FOLDER",
        help="a folder with MNIST or CIFAR-10 that the pages may measure with; may be repeated",
    )  # fmt: skip
    options, others = parser.parse_known_args(arguments)
    try:
        for name in options.model:
            networks.add(name)
        for folder in options.data:
            image_sets.add_folder(folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from streamlit.web.cli import main as streamlit

    flags = [f"--{name}={item}" for name, value in OPTIONS.items() for item in _items(value)]
    # The server runs in this process, so that its pages find the networks that were just added.
    streamlit(["run", str(_ENTRY), *flags, *others])
    return 0


def _items(value: Any) -> list[str]:
    """A value as the command line takes it: once, or once for each item of a list."""
    values = value if isinstance(value, list) else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in values]


if __name__ == "__main__":
    raise SystemExit(main())
