"""The pages in Streamlit's simulator, from the entry point."""

import io
from unittest import mock
from urllib.parse import parse_qsl

from streamlit.components.v2.component_manager import BidiComponentManager
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from plugin.explorer.server import connection

from .browser import ROOT

ENTRY = ROOT / "streamlit_app.py"
# Else each page that is opened looks for components in all installed packages, a fifth of the time that it takes.
_NO_COMPONENTS = BidiComponentManager()


def opened(page="attribute", **query):
    at = AppTest.from_file(str(ENTRY), default_timeout=300)
    at._bidi_component_manager = _NO_COMPONENTS
    turn_to(at, page)
    for name, value in query.items():
        at.query_params[name] = value
    return run(at)


def turn_to(at, page):
    """Open a page by its path. The simulator's own `switch_page` takes pages that are files."""
    at._page_hash = calc_hash(page) if page else ""


def go_to(at, **query):
    """Go through the browser's history to another address of the page."""
    at.query_params.clear()
    for name, value in query.items():
        at.query_params[name] = value
    with mock.patch.object(connection, "went_through_history", return_value=True):
        return run(at)


def run(page_or_widget):
    at = page_or_widget.run()
    assert not at.exception
    return at


def widget(at, kind, name):
    return getattr(at, kind)(key=f"attribute.{name}")


def maps(at):
    return [chart for chart in at.get("plotly_chart") if "attribute.map" in chart.proto.id]


def programs(at):
    return [block.value for block in at.code if "explain = " in block.value]


def follow(at, name):
    """Click the link with this label."""
    (link,) = [link.proto for link in at.get("page_link") if link.proto.label == name]
    turn_to(at, link.page)
    at.query_params.clear()
    for parameter, value in parse_qsl(link.query_string):
        at.query_params[parameter] = value
    run(at)


def press(at, start):
    """Click the button whose label starts so."""
    return run(next(button for button in at.button if button.label.startswith(start)).click())


def finish(at, kind):
    """Wait for the work of a kind, and draw the page again."""
    names = [name for name in at.session_state._state._state.filtered_state if f"job.{kind}." in name]
    view = at.session_state[names[0]].wait(240)
    run(at)
    return view


def png(image):
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
