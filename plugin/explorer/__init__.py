"""The explorer in the browser: `streamlit run streamlit_app.py`, or `python -m plugin explore`.

`app.PAGES` lists the pages. The subpackages from low to high; each imports only from those above it in this list:

    server      jobs, downloads, time and memory, untrusted texts
    inputs      networks, checkpoints, pictures, sets of images
    choices     methods and rules by name; the settings of a page, and their form in a link
    maps        questions, answers, figures, files, programs
    widgets     the parts that pages share on the screen
    pages       a folder each, which could be deleted
    app         the list of pages
    serving     the command line, and `show`, which draws the maps of the pages in a notebook

Streamlit is used in `widgets`, in `page.py` of each page, and in the files of `server` that meet the browser. The rest
serves tests and notebooks as well.
"""

from typing import TYPE_CHECKING, Any

from plugin.extras import require_own

if TYPE_CHECKING:
    from .serving.notebooks import show

__all__ = ["show"]

require_own("gan")  # a folder `gan` beside the user's script would be found first


def __getattr__(name: str) -> Any:
    """The names for notebooks, imported at first use: the server begins to answer before PyTorch is imported."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .serving import notebooks

    return getattr(notebooks, name)
