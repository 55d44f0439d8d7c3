"""The explorer from the command line, also for networks of your own."""

import argparse
import gc
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from plugin.errors import MissingExtraError
from plugin.extras import require

from ..inputs import image_sets, offered_networks
from ..server import own_paths

# In a folder without a neighbour called `pages`: Streamlit would take that for pages of its own kind.
_SCRIPT = Path(__file__).with_name("streamlit_script.py")
# Modules that pages import when they are drawn.
_IMPORTED_LATE = ("plugin.explorer.pages.start.live_maps", "torchvision.models", "gan")
# The options of `.streamlit/config.toml`, which the server finds only in the repository.
OPTIONS: dict[str, Any] = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.allowedHosts": ["127.0.0.1", "localhost"],
    "server.maxUploadSize": 200,
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "type",
    "client.toolbarMode": "viewer",
    "runner.fastReruns": False,
    "runner.postScriptGC": False,
    "theme.headingFontSizes": ["1.75rem", "1.45rem", "1.2rem"],
    "theme.light.primaryColor": "#2166ac",
    "theme.light.textColor": "#11100f",
    "theme.dark.primaryColor": "#6aa5dc",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the explorer; all others are for `streamlit run`."""
    parser.add_argument(
        "--model", action="append", default=[], metavar="package.module:factory",
        help="a function that takes nothing and returns a module, or a plugin.models.LoadedModel; a program of "
        "torch.export (FILE.pt2) that you trust; or a network of Hugging Face (hf-hub:OWNER/NAME, local-dir:FOLDER). "
        "May be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--data", action="append", default=[], metavar="FOLDER",
        help="a folder with MNIST or CIFAR-10 that the pages may measure with; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--folder", action="append", default=[], metavar="FOLDER",
        help="a folder whose files may be opened by their path, and no others; may be repeated. Without it any path of "
        "this machine can be given, unless --server.address lets other machines ask",
    )  # fmt: skip


def run(options: argparse.Namespace, others: list[str]) -> int:
    """Serve the explorer, with `others` as options of `streamlit run`. Returns the exit code."""
    try:
        for name in options.model:
            offered_networks.add(name)
        for folder in options.data:
            image_sets.add_folder(folder)
        for folder in options.folder:
            own_paths.add_folder(folder)
        streamlit = require("streamlit.web.cli", extra="app", purpose="the explorer")
    except (ValueError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    import_pages()
    flags = [f"--{name}={item}" for name, value in OPTIONS.items() for item in _items(value)]
    # The server runs in this process, so that its pages find the networks that were just added.
    streamlit.main(["run", str(_SCRIPT), *flags, *others])
    return 0


def import_pages() -> None:
    """Import what pages need, PyTorch above all, so that the first visitor does not wait for it.

    The garbage collector rests meanwhile, and never looks through the imported objects: it took a fifth of the start,
    and would stop all sessions for a quarter of a second each time.
    """
    from ..app import PAGES  # needs Streamlit, whose absence `run` reports

    gc.disable()
    try:
        for page in PAGES:
            import_module(page.module)
        for name in _IMPORTED_LATE:
            import_module(name)
        offered_networks.choices()  # imports timm, where that is installed
        gc.freeze()
    finally:
        gc.enable()


def _items(value: Any) -> list[str]:
    """The values of an option on the command line: one, or one for each item of a list."""
    values = value if isinstance(value, list) else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in values]
