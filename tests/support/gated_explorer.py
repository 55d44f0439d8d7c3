"""A server of the explorer with gates: where it is to be slow, it waits until a test lets it go on.

`GATES` is a folder. At the gate `NAME` the explorer makes the file `NAME.reached`, and waits while `NAME.closed` is
there. When the browser has asked for another run meanwhile, it makes `NAME.asked`.
"""

import os
import time
from pathlib import Path
from typing import Any

from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_requests import ScriptRequestType

from plugin.explorer.__main__ import main
from plugin.explorer.choices.settings import Settings
from plugin.explorer.server.kept_files import OwnFile
from plugin.explorer.widgets import open_strip, own_files

_FOLDER = Path(os.environ["GATES"])
_keep, _draw = own_files.keep, open_strip.draw


def _pass(gate: str) -> None:
    (_FOLDER / f"{gate}.reached").touch()
    context = get_script_run_ctx()
    while (_FOLDER / f"{gate}.closed").exists():
        if context is not None and context.script_requests._state is not ScriptRequestType.CONTINUE:
            (_FOLDER / f"{gate}.asked").touch()
        time.sleep(0.01)


def _slow_keep(uploaded: Any) -> OwnFile:
    """In a callback: a file that was sent takes long to be kept."""
    _pass(uploaded.name)
    return _keep(uploaded)


def _slow_draw(page: str, settings: Settings) -> None:
    """In a run: network and picture are drawn, and all else waits."""
    _pass(settings.network)
    _draw(page, settings)


own_files.keep, open_strip.draw = _slow_keep, _slow_draw
raise SystemExit(main())
