"""`make screenshots`: every page of the explorer in a real browser, light, dark and as narrow as a phone.

The light ones are the README's, in `docs/screenshots/`; the dark and the narrow ones are only to be looked at, in
`screenshots/`. Needs Playwright's Python package and Debian's chromium, as the browser tests do.
"""

import argparse
import io
import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from support.browser import CHROMIUM, PATIENCE_MS, ROOT, launched, served
from support.views import VARIANTS, VIEWS, drawn, open_view

_FULL_HEIGHT = "document.querySelector('[data-testid=stMain]').scrollHeight"


def shoot(page: Any, width: int, most: int | None = None) -> Image.Image:
    """The page in this width, as high as it needs to be, or `most`: Streamlit scrolls inside the window."""
    page.set_viewport_size({"width": width, "height": 900})
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)  # charts follow the window's width in their own time
    height = page.evaluate(_FULL_HEIGHT) + 60
    page.set_viewport_size({"width": width, "height": min(height, most or height)})
    page.wait_for_timeout(800)
    drawn(page)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG, as small as it can be: pages of flat colours are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures. Returns the exit code: 1 if the browser is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots", help="folder of the light ones")
    parser.add_argument("--look", type=Path, default=ROOT / "screenshots", help="folder of the dark and narrow ones")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="of the views: " + ", ".join(v.name for v in VIEWS))
    parser.add_argument("--address", help="of an explorer that is running, such as http://127.0.0.1:8501/")
    options = parser.parse_args(arguments)
    if find_spec("playwright") is None:
        print("error: playwright is not installed: run make install", file=sys.stderr)
        return 1
    if CHROMIUM is None:
        print("error: chromium is not installed: run apt-get install chromium", file=sys.stderr)
        return 1
    wanted = [view for view in VIEWS if options.only is None or view.name in options.only]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        address = options.address or stack.enter_context(served(Path(folder) / "log.txt"))
        page = stack.enter_context(launched()).new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        for view in wanted:
            for suffix, scheme, width in VARIANTS:
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": 900})
                open_view(page, address, view, press=True)
                if page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count():
                    print(f"error: {page.url} shows an error: run make app and look at it", file=sys.stderr)
                    return 1
                path = (options.look if suffix else options.out) / f"{view.name}{suffix}.png"
                save(shoot(page, width, None if suffix else view.height), path)
                print(f"{path} ({path.stat().st_size // 1024} KiB)", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
