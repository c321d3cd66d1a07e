"""A model hub on 127.0.0.1 that fails in a different way for each repository: the repository's name says how."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40
STATUS = {"gated": 403, "private": 401, "missing": 404, "broken": 500, "busy": 429, "down": 503}
CODES = {"gated": {"X-Error-Code": "GatedRepo"}, "missing": {"X-Error-Code": "RepoNotFound"}}


class Hub(ThreadingHTTPServer):
    """Serves the files of `folder` under every repository name."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.closing = threading.Event()
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    @property
    def _hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self._hub.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        names = parts[1:] if parts[0] == "api" else parts
        names = names[1:] if names[:1] == ["datasets"] else names
        names = names[1:] if parts[0] == "api" and names[:1] == ["models"] else names
        if len(names) < 2:
            self._send(404, b"", {}, with_body)
            return
        fault = names[1].partition("-")[0]
        if fault == "silent":
            self._hub.closing.wait(100)
        if fault in ("hangup", "silent"):
            self.close_connection = True
            return
        if fault in STATUS:
            self._send(STATUS[fault], b"no", CODES.get(fault, {}), with_body)
        elif parts[0] == "api" and "tree" in parts:
            files = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": COMMIT} for p in self._files()]
            self._send(200, json.dumps(files).encode(), {"Content-Type": "application/json"}, with_body)
        elif parts[0] == "api":
            files = [{"rfilename": path.name} for path in self._files()]
            listing = {"id": "/".join(names[:2]), "sha": COMMIT, "siblings": files, "tags": []}
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, with_body)
        else:
            self._file(fault, parts[-1], with_body)

    def _files(self) -> list[Path]:
        return sorted(path for path in self._hub.folder.iterdir() if path.is_file())

    def _file(self, fault: str, name: str, with_body: bool) -> None:
        path = self._hub.folder / name
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
            return
        content = path.read_bytes()
        if fault == "portal":
            content = b"<html>Log in to the hotel's network</html>"
        elif fault == "cut" and name.endswith(".json"):
            content = content[: len(content) // 2]
        elif fault == "scrambled" and name.endswith(".safetensors"):
            content = b"\xff" * len(content)
        headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._send(200, content, headers, with_body, half=fault == "partial" and name.endswith(".safetensors"))

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], with_body: bool, *, half: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content[: len(content) // 2] if half else content)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def hub(folder: Path) -> Iterator[Hub]:
    """A hub that is up while the block runs."""
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
