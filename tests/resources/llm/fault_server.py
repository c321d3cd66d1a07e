"""A loopback server that speaks OpenAI's and Anthropic's wire formats, batches included, and fails as told.

Run alone: python -m tests.resources.llm.fault_server '{"fault_share": 0.25, "latency_s": 0.2}'   (prints its port)
Every count is kept here, where requests arrive: what a client says of itself proves nothing. GET /_counts reads them.
"""

import asyncio
import json
import random
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.resources.llm.wire import (
    INPUT_TOKENS_PER_BYTE,
    OUTPUT_TOKENS,
    TOO_LONG,
    error_body,
    file_body,
    fill,
    prompt_of,
    schema_of,
    wire,
)

FAULTS = ("429", "500", "timeout", "cut", "refusal", "truncated", "malformed", "wrong")
"""What a faulty call gets: an error status, silence, a closed connection, or a paid answer that cannot be used."""
PAID_FAULTS = ("refusal", "truncated", "malformed", "wrong", "unheard-of")
"""The last, an end of Anthropic's answer that its SDK does not know, only where `Settings.faults` names it."""
MIXED_UP = {"code": "mismatched_model", "message": "The provided model does not match the batch's"}
TOO_MANY_TOKENS = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for gpt-5-mini"}
DOLLARS_PER_MILLION = {"gpt-5-mini": (0.25, 2.0), "claude-haiku-4-5": (1.0, 5.0)}


@dataclass
class Settings:
    """How the server behaves."""

    fault_share: float = 0.0
    latency_s: float = 0.0
    seed: int = 0
    retry_after_s: float = 0.05
    timeout_s: float = 30.0
    key: str = "test-key"
    context_bytes: int = 10**9
    """Longer bodies get the vendor's context-length error."""
    model: str = ""
    """The only model that exists; empty: any."""
    batch_polls: int = 1
    """Polls until a batch has ended."""
    validation_polls: int = 0
    """Polls until OpenAI has read a batch's file and counts its requests."""
    endless: tuple[int, ...] = ()
    """Which batches never end."""
    faults: tuple[str, ...] = FAULTS
    lost: tuple[int, ...] = ()
    """Which batches, counted from 0, are made but never confirmed: the connection is cut."""
    failing: tuple[int, ...] = ()
    """Which of OpenAI's batches fail as a whole, none of their requests run."""
    queue: int = 10**9
    """Requests that OpenAI's queue has room for; a larger batch fails."""
    canceled: tuple[int, ...] = ()
    """Which of OpenAI's batches somebody cancels before any request has run."""
    expired: tuple[int, ...] = ()
    """Which batches end after a day with the second half of their requests not run."""
    gone: tuple[int, ...] = ()
    """Of which batches the vendor has deleted the results."""
    unmade: int = 0
    """So many requests for a batch are cut before anything is made."""


@dataclass
class Counts:
    """What arrived and what was answered."""

    requests: int = 0
    answered: int = 0
    """Calls answered with 200, usable or not: what a vendor charges."""
    usable: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    unauthorized: int = 0
    repeated: int = 0
    """Usable answers given for a body that already had one."""
    dollars: float = 0.0
    batches: int = 0
    most_at_once: int = 0


class FaultServer:
    """One listening socket; `start` returns its port."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts = Counts()
        self._random = random.Random(settings.seed)
        self._usable: set[str] = set()
        self._files: dict[str, str] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._under_way = 0
        self._port = 0
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=2**26, backlog=512)
        self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if path == "/_counts":
            return self._write(writer, 200, asdict(self.counts))
        key = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        if key != self.settings.key:
            self.counts.unauthorized += 1
            return self._write(writer, 401, error_body("invalid api key " + key, "authentication_error"))
        if "files" in path or "batches" in path:
            return self._batch_call(writer, method, path, body)
        return await self._message(writer, path, body)

    async def _message(self, writer: asyncio.StreamWriter, path: str, body: bytes) -> bool:
        self.counts.requests += 1
        self._under_way += 1
        self.counts.most_at_once = max(self.counts.most_at_once, self._under_way)
        try:
            await asyncio.sleep(self.settings.latency_s)
            return await self._reply(writer, path, body)
        finally:
            self._under_way -= 1

    async def _reply(self, writer: asyncio.StreamWriter, path: str, body: bytes) -> bool:
        request = json.loads(body)
        fault = self._fault()
        if fault == "timeout":
            await asyncio.sleep(self.settings.timeout_s)
            return False
        if fault == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{")
            await writer.drain()
            return False
        status, payload = self._judge(path, request, len(body), fault)
        extra = {"retry-after-ms": str(1000 * self.settings.retry_after_s)} if status == 429 else {}
        return self._write(writer, status, payload, extra)

    def _fault(self) -> str | None:
        if self._random.random() >= self.settings.fault_share:
            return None
        fault = self._random.choice(self.settings.faults)
        self.counts.failed[fault] = self.counts.failed.get(fault, 0) + 1
        return fault

    def _judge(self, path: str, request: dict, size: int, fault: str | None) -> tuple[int, dict]:
        """Status and payload of one call, live or in a batch."""
        if self.settings.model and request["model"] != self.settings.model:
            return 404, error_body(f"model {request['model']} does not exist", "not_found_error", "model_not_found")
        if size > self.settings.context_bytes:
            return 400, TOO_LONG
        if fault in ("429", "500"):
            return int(fault), error_body("busy", "rate_limit_error" if fault == "429" else "api_error")
        tokens = int(size * INPUT_TOKENS_PER_BYTE)
        inward, outward = DOLLARS_PER_MILLION.get(request["model"], (0.0, 0.0))
        self.counts.dollars += (tokens * inward + OUTPUT_TOKENS * outward) / 1e6
        self.counts.answered += 1
        if fault not in PAID_FAULTS:
            self._count_usable(json.dumps(request, sort_keys=True))
        answer = json.dumps(fill(schema_of(path, request), fault == "wrong", prompt_of(request)))
        if fault == "malformed":
            answer = "Sure! Here is {" + answer[5:]
        if fault == "truncated":
            answer = answer[: len(answer) // 2]
        return 200, wire(path, request["model"], answer, fault, tokens)

    def _count_usable(self, body: str) -> None:
        self.counts.usable += 1
        self.counts.repeated += body in self._usable
        self._usable.add(body)

    def _batch_call(self, writer: asyncio.StreamWriter, method: str, path: str, body: bytes) -> bool:
        if path == "/v1/files":
            found = re.search(rb"\r\n\r\n(\{.*)\r\n--", body, re.S)
            assert found is not None
            name = f"file-{len(self._files)}"
            self._files[name] = found[1].decode()
            return self._write(writer, 200, file_body(name))
        if path.startswith("/v1/files/"):
            name = path.split("/")[3]
            if method == "DELETE":
                return self._write(writer, 200, {"id": name, "object": "file", "deleted": True})
            if name.startswith("batch") and int(name.split("-")[0].split("_")[1]) in self.settings.gone:
                return self._write(writer, 404, error_body(f"No such File object: {name}", "invalid_request_error"))
            return self._write(writer, 200, self._files[name])
        if path.split("?")[0] in ("/v1/batches", "/v1/messages/batches"):
            if method == "POST" and self.settings.unmade:
                self.settings.unmade -= 1
                return False
            make = self._anthropic_batch if "messages" in path else self._openai_batch
            return self._listed(writer) if method == "GET" else self._made(writer, make(json.loads(body)))
        name = [part for part in path.split("?")[0].split("/") if part.startswith("batch")][-1]
        if path.split("?")[0].endswith("/results"):
            return self._write(writer, 200, self._files[name])
        return self._write(writer, 200, self._polled(self._batches[name]))

    def _listed(self, writer: asyncio.StreamWriter) -> bool:
        newest_first = [self._polled(batch) for batch in reversed(self._batches.values())]
        return self._write(writer, 200, {"object": "list", "data": newest_first, "has_more": False})

    def _made(self, writer: asyncio.StreamWriter, batch: dict) -> bool:
        number = int(batch["id"].split("_")[1])
        return number not in self.settings.lost and self._write(writer, 200, batch)

    def _openai_batch(self, request: dict) -> dict:
        name = f"batch_{len(self._batches)}"
        lines = [json.loads(line) for line in self._files[request["input_file_id"]].split("\n") if line]
        output, errors = [], []
        for line in lines[: self._run_of(len(lines))]:
            status, payload = self._batched(line["url"], line["body"])
            response = {"status_code": status, "request_id": "r", "body": payload}
            entry = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
            (output if status == 200 else errors).append(json.dumps(entry))
        self._files[name + "-out"], self._files[name + "-err"] = "\n".join(output), "\n".join(errors)
        self.counts.batches += 1
        self._batches[name] = {
            "id": name, "object": "batch", "endpoint": request["endpoint"], "completion_window": "24h",
            "input_file_id": request["input_file_id"], "status": "validating", "created_at": int(time.time()),
            "polls": 0, "output_file_id": name + "-out", "error_file_id": name + "-err",
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "read": {"total": len(lines), "completed": len(output), "failed": len(errors)},
        }  # fmt: skip
        return self._batches[name]

    def _anthropic_batch(self, request: dict) -> dict:
        name = f"batch_{len(self._batches)}"
        results = []
        done = self._run_of(len(request["requests"]))
        for each in request["requests"][:done]:
            status, payload = self._batched("/v1/messages", each["params"])
            result = {"type": "succeeded", "message": payload}
            if status != 200:
                result = {"type": "errored", "error": payload}
            results.append(json.dumps({"custom_id": each["custom_id"], "result": result}))
        for each in request["requests"][done:]:
            results.append(json.dumps({"custom_id": each["custom_id"], "result": {"type": "expired"}}))
        self._files[name] = "\n".join(results)
        self.counts.batches += 1
        self._batches[name] = {
            "id": name, "type": "message_batch", "processing_status": "in_progress", "polls": 0,
            "created_at": datetime.now(UTC).isoformat(), "expires_at": "2100-01-01T00:00:00Z", "ended_at": None,
            "archived_at": None, "cancel_initiated_at": None, "results_url": None,
            "request_counts": {"processing": len(results), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        }  # fmt: skip
        return self._batches[name]

    def _run_of(self, count: int) -> int:
        """How many requests of the next batch are run before its day is over."""
        return count // 2 if len(self._batches) in self.settings.expired else count

    def _batched(self, path: str, request: dict) -> tuple[int, dict]:
        self.counts.requests += 1
        fault = self._fault()
        return self._judge(path, request, len(json.dumps(request)), "500" if fault in ("timeout", "cut") else fault)

    def _polled(self, batch: dict) -> dict:
        batch["polls"] += 1
        number = int(batch["id"].split("_")[1])
        unrun = {"output_file_id": None, "error_file_id": None}
        crowded = "endpoint" in batch and batch["read"]["total"] > self.settings.queue
        if crowded or number in self.settings.failing:
            errors = {"object": "list", "data": [TOO_MANY_TOKENS if crowded else MIXED_UP]}
            return batch | unrun | {"status": "failed", "errors": errors}
        if number in self.settings.canceled:
            return batch | unrun | {"status": "cancelled"}
        if "endpoint" in batch:
            if batch["polls"] <= self.settings.validation_polls:
                return batch
            batch |= {"status": "in_progress", "request_counts": batch["read"]}
        if batch["polls"] > self.settings.batch_polls and number not in self.settings.endless:
            ended = "expired" if number in self.settings.expired else "completed"
            batch |= {"status": ended, "completed_at": 2} if "endpoint" in batch else {
                "processing_status": "ended", "ended_at": "2026-01-01T01:00:00Z",
                "results_url": f"http://127.0.0.1:{self._port}/v1/messages/batches/{batch['id']}/results",
            }  # fmt: skip
        return batch | {"results_url": None} if number in self.settings.gone else batch

    def _write(self, writer: asyncio.StreamWriter, status: int, payload: dict | str, extra: dict | None = None) -> bool:
        text = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(text)), **(extra or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + text)
        return True


async def _main() -> None:
    server = FaultServer(Settings(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")))
    print(await server.start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
