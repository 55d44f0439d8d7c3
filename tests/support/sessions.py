"""Sessions of the explorer without a browser: they speak Streamlit's protocol to a real server.

A real browser needs a core for itself; ten of these need next to nothing, so that the load is on the server. They
receive the content of the page: the figures with their values, the files to download, the address.
"""

import base64
import io
import json
import time
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import NDArray
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect

PATIENCE_SECONDS = 240.0


class Session:
    """A tab of a browser.

    Args:
        address: of the server, such as `http://127.0.0.1:8501/`.
        page: its path; empty for the first page.
        query: parameters of the address.

    Attributes:
        query: of the address, as the server has changed it.
        exceptions: texts of the exceptions that pages showed.
    """

    def __init__(self, address: str, page: str = "", query: dict[str, str] | None = None) -> None:
        self.address, self.query = address, query or {}
        self.exceptions: list[str] = []
        self._elements: dict[tuple[int, ...], Any] = {}
        self._pages: dict[str, str] = {}
        self._page, self._id, self._requests, self._running = "", "", 0, True
        self._answers: dict[str, Any] = {}
        # Changes that the server may not have seen: it takes several that come at once together, and looks at the last.
        self._changes: dict[str, WidgetState] = {}
        self._connection = connect(
            address.replace("http", "ws", 1) + "_stcore/stream", subprotocols=["streamlit"], max_size=None,
            compression=None, open_timeout=PATIENCE_SECONDS, close_timeout=1, proxy=None,
        )  # fmt: skip
        self._socket = self._connection.__enter__()
        self._rerun(page_name=page)
        self.wait(lambda: True)

    def close(self) -> None:
        """Close the tab."""
        self._connection.__exit__(None, None, None)

    def set(self, name: str, value: str | list[str] | float) -> None:
        """Change the widget with this key, in a list to the entry as people read it, and do not wait."""
        state = WidgetState(id=self._widget(name).id)
        if isinstance(value, str):
            state.string_value = value
        elif isinstance(value, list):
            state.string_array_value.data.extend(value)
        else:
            state.double_value = value
        self._changes[state.id] = state
        self._rerun()

    def upload(self, start: str, name: str, content: bytes) -> None:
        """Send a file to the uploader whose key starts so, and do not wait."""
        uploader = next(each for each in self.find("file_uploader") if _key(each.id).startswith(f"attribute.{start}"))
        self._requests += 1
        request = BackMsg()
        wanted = request.file_urls_request
        wanted.request_id, wanted.session_id = str(self._requests), self._id
        wanted.file_names.append(name)
        self._socket.send(request.SerializeToString())
        self.wait(lambda: wanted.request_id in self._answers)
        (urls,) = self._answers.pop(wanted.request_id).file_urls
        _put(self.address, urls.upload_url, name, content)
        state = WidgetState(id=uploader.id)
        state.file_uploader_state_value.uploaded_file_info.add(
            file_id=urls.file_id, name=name, size=len(content), file_urls=urls
        )
        self._changes[state.id] = state
        self._rerun()

    def press(self, name: str) -> None:
        """Press the button with this key, and do not wait."""
        self._rerun(pressed=self._widget(name).id)

    def press_labelled(self, start: str) -> None:
        """Press the button whose label starts so, and do not wait.

        `wait` before `look_again`: else that ends with this run of the script, and its own goes on behind the caller's
        back, where it replaces the files on the page.
        """
        button = next(button for button in self.find("button") if button.label.startswith(start))
        self._rerun(pressed=button.id)

    def look_again(self) -> None:
        """Have the page drawn again as it is, and wait."""
        self._rerun()
        self.wait(lambda: True)

    def turn_to(self, page: str) -> None:
        """Follow the title of a page, by its path, and do not wait."""
        self._page, self.query = self._pages[page], {}
        self._rerun()

    def wait(self, holds: Callable[[], bool], patience: float = PATIENCE_SECONDS) -> None:
        """Take in the server's messages until no script runs and a condition holds."""
        deadline = time.monotonic() + patience
        while self._running or not holds():
            self._receive(deadline)
        self._changes.clear()

    def find(self, kind: str) -> list[Any]:
        """The elements of a kind, such as "plotly_chart", from top to bottom."""
        return [
            getattr(element, kind)
            for _, element in sorted(self._elements.items())
            if element.WhichOneof("type") == kind
        ]

    def maps(self) -> dict[str, NDArray[Any]]:
        """The values of the maps on the page, `(H, W)`, by the end of their key: network and method."""
        charts = {_key(chart.id): chart for chart in self.find("plotly_chart")}
        prefix = "attribute.map."
        return {
            key.removeprefix(prefix): heatmap(json.loads(chart.spec))
            for key, chart in charts.items()
            if key.startswith(prefix)
        }

    def download(self, name: str) -> bytes:
        """The file behind the download button with this key."""
        with urllib.request.urlopen(self.ready(name), timeout=PATIENCE_SECONDS) as response:
            data: bytes = response.read()
        return data

    def ready(self, name: str) -> str:
        """Press the download button with this key; the address from which the file can be fetched."""
        button = next(button for button in self.find("download_button") if _key(button.id) == f"attribute.{name}")
        url = button.url
        if button.deferred_file_id:
            self._requests += 1
            request = BackMsg()
            operation = request.backend_operation_request
            operation.request_id, operation.session_id = str(self._requests), self._id
            operation.deferred_file.file_id = button.deferred_file_id
            self._socket.send(request.SerializeToString())
            self.wait(lambda: operation.request_id in self._answers)
            answer = self._answers.pop(operation.request_id)
            assert not answer.error_msg, answer.error_msg
            url = answer.deferred_file.url
        return self.address.rstrip("/") + url

    def attribution(self, name: str) -> NDArray[Any]:
        """The attribution `(C, H, W)` in the NPZ file of the map of this name."""
        with np.load(io.BytesIO(self.download(f"NPZ.{name}"))) as arrays:
            return np.asarray(arrays["attribution"])

    def _widget(self, name: str) -> Any:
        for element in self._elements.values():
            proto = getattr(element, element.WhichOneof("type"))
            if _key(getattr(proto, "id", "")) == f"attribute.{name}":
                return proto
        raise KeyError(f"there is no widget {name}")

    def _rerun(self, page_name: str = "", pressed: str = "") -> None:
        message = BackMsg()
        request = message.rerun_script
        request.query_string, request.page_script_hash = urlencode(self.query), self._page
        request.page_name = page_name
        request.widget_states.widgets.extend(self._changes.values())
        if pressed:
            request.widget_states.widgets.append(WidgetState(id=pressed, trigger_value=True))
        self._running = True
        self._socket.send(message.SerializeToString())

    def _receive(self, deadline: float) -> None:
        message = ForwardMsg()
        message.ParseFromString(self._socket.recv(timeout=max(0.0, deadline - time.monotonic())))
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._begin(message.new_session)
        elif kind == "navigation":
            self._pages = {page.url_pathname: page.page_script_hash for page in message.navigation.app_pages}
            self._page = message.navigation.page_script_hash
        elif kind == "page_info_changed":
            self.query = dict(parse_qsl(message.page_info_changed.query_string, keep_blank_values=True))
        elif kind == "delta":
            self._draw(tuple(message.metadata.delta_path), message.delta)
        elif kind == "script_finished":
            self._running = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
        elif kind == "backend_operation_response":
            self._answers[message.backend_operation_response.request_id] = message.backend_operation_response
        elif kind == "file_urls_response":
            self._answers[message.file_urls_response.response_id] = message.file_urls_response

    def _begin(self, new: Any) -> None:
        if new.initialize.session_id:
            self._id = new.initialize.session_id
        self._running = True
        self._elements.clear()

    def _draw(self, path: tuple[int, ...], delta: Any) -> None:
        # A block takes the place of an element, and of the content of another block there.
        if delta.WhichOneof("type") == "new_element":
            self._elements[path] = delta.new_element
            if delta.new_element.WhichOneof("type") == "exception":
                self.exceptions.append(str(delta.new_element.exception))
        elif delta.WhichOneof("type") == "add_block":
            self._elements.pop(path, None)


def _put(address: str, url: str, name: str, content: bytes) -> None:
    """Send a file as a browser does: with the token against forged requests, as a cookie and as a header."""
    cookies = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    opener.open(f"{address}_stcore/health", timeout=PATIENCE_SECONDS).close()
    token = next((cookie.value or "" for cookie in cookies if "xsrf" in cookie.name), "")
    start = f'--part\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    request = urllib.request.Request(
        address.rstrip("/") + url, start.encode() + content + b"\r\n--part--\r\n", method="PUT",
        headers={"Content-Type": "multipart/form-data; boundary=part", "X-Xsrftoken": token},
    )  # fmt: skip
    opener.open(request, timeout=PATIENCE_SECONDS).close()


def heatmap(spec: dict[str, Any]) -> NDArray[Any]:
    """The values of a figure's first heatmap, as plotly's JSON has them."""
    values = next(trace["z"] for trace in spec["data"] if trace["type"] == "heatmap")
    if not isinstance(values, dict):
        return np.asarray(values)
    flat = np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
    return flat.reshape([int(size) for size in values["shape"].split(",")])


def _key(widget: str) -> str:
    """The key at the end of a widget's identity, `$$ID-<hash>-<key>`."""
    return widget.split("-", 2)[-1] if widget.startswith("$$ID-") else ""
