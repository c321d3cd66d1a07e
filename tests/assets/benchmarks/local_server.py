"""A real HTTP server on this machine that answers OpenAI's two endpoints from a Python function."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Reply = dict[str, Any] | int | tuple[int, Any, dict[str, str]]
"""A JSON body, a status code for an error, or status, body (text as it is, else as JSON) and headers."""


@contextmanager
def serving(answer: Callable[[str, dict[str, Any]], Reply], *, with_key: bool = False) -> Iterator[str]:
    """The base URL (ending in /v1) of a server that calls `answer(path, request)`.

    `with_key`: the request has one entry more, `authorization`, the header.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if with_key:
                request["authorization"] = self.headers["Authorization"]
            status, body, headers = _whole(answer(self.path, request))
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            for name, value in (fixed | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _whole(reply: Reply) -> tuple[int, Any, dict[str, str]]:
    if isinstance(reply, int):
        return reply, {"error": {"message": "no"}}, {}
    return (200, reply, {}) if isinstance(reply, dict) else reply


def completion(text: str, num_tokens: int, finish: str) -> dict[str, Any]:
    """A reply of /v1/completions."""
    return {
        "id": "1",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": num_tokens, "total_tokens": 1 + num_tokens},
    }


def chat(content: str) -> dict[str, Any]:
    """A reply of /v1/chat/completions."""
    message = {"role": "assistant", "content": content}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
