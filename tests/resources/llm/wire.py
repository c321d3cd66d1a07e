"""The vendors' response formats, and answers that follow whatever schema a request asks for."""

import re
from typing import Any

INPUT_TOKENS_PER_BYTE = 0.25
OUTPUT_TOKENS = 60
TOO_LONG = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "prompt is too long: context length exceeded",
        "code": "context_length_exceeded",
    },
}


def error_body(message: str, kind: str, code: str = "") -> dict:
    return {"type": "error", "error": {"type": kind, "message": message, "code": code or kind}}


def file_body(name: str) -> dict:
    file = {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "b.jsonl"}
    return file | {"purpose": "batch", "status": "processed"}


def schema_of(path: str, request: dict) -> dict:
    """The JSON schema that the request asks its answer to follow."""
    if path.endswith("/responses"):
        return request["text"]["format"]["schema"]
    if path.endswith("/chat/completions"):
        return request["response_format"]["json_schema"]["schema"]
    return request["output_config"]["format"]["schema"]


def prompt_of(request: dict) -> str:
    """All text of the prompt."""
    return str([request.get(name) for name in ("instructions", "system", "input", "messages")])


def fill(schema: dict, wrong: bool, prompt: str, root: dict | None = None, name: str = "") -> Any:
    """An answer of the schema; a wrong one breaks enums and names ids that do not exist."""
    root = root or schema
    if "$ref" in schema:
        return fill(root["$defs"][schema["$ref"].split("/")[-1]], wrong, prompt, root, name)
    if "enum" in schema:
        return "no such value" if wrong else schema["enum"][len(prompt) % len(schema["enum"])]
    kind = schema.get("type")
    if kind == "object":
        return {key: fill(each, wrong, prompt, root, key) for key, each in schema["properties"].items()}
    if kind == "array":
        return [fill(schema["items"], wrong, prompt, root, name) for _ in range(_length(prompt))]
    if kind in ("integer", "boolean"):
        return True if kind == "boolean" else 99 if wrong else 1
    if name == "string_id":
        known = re.findall(r"\b\d\.\d\b", prompt)
        return "77.7" if wrong or not known else known[len(prompt) % len(known)]
    return f"{name or 'text'} of the tokens"


def _length(prompt: str) -> int:
    """One item per example shown, else two."""
    return len(re.findall(r"<example ", prompt)) or 2


def wire(path: str, model: str, answer: str, fault: str | None, tokens: int) -> dict:
    """An answer in the vendor's response format."""
    if path.endswith("/responses"):
        return _responses(model, answer, fault, tokens)
    if path.endswith("/chat/completions"):
        return _chat(model, answer, fault, tokens)
    return _anthropic(model, answer, fault, tokens)


def _responses(model: str, answer: str, fault: str | None, tokens: int) -> dict:
    part = {"type": "output_text", "text": answer, "annotations": []}
    if fault == "refusal":
        part = {"type": "refusal", "refusal": "I cannot"}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens + OUTPUT_TOKENS,
    }
    cut = fault == "truncated"
    return {
        "id": "resp", "object": "response", "created_at": 1, "model": model, "parallel_tool_calls": True,
        "status": "incomplete" if cut else "completed", "tools": [], "tool_choice": "auto", "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None, "output": [message], "usage": usage,
    }  # fmt: skip


def _chat(model: str, answer: str, fault: str | None, tokens: int) -> dict:
    message = {"role": "assistant", "content": answer, "refusal": None}
    if fault == "refusal":
        message |= {"content": None, "refusal": "I cannot"}
    finish = "length" if fault == "truncated" else "stop"
    usage = {"prompt_tokens": tokens, "completion_tokens": OUTPUT_TOKENS, "total_tokens": tokens + OUTPUT_TOKENS}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {
        "id": "chat", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage,
    }  # fmt: skip


def _anthropic(model: str, answer: str, fault: str | None, tokens: int) -> dict:
    stop = {"refusal": "refusal", "truncated": "max_tokens", "unheard-of": "compacted"}.get(fault or "", "end_turn")
    usage = {"input_tokens": tokens, "output_tokens": OUTPUT_TOKENS}
    usage |= {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    return {
        "id": "msg", "type": "message", "role": "assistant", "model": model, "stop_reason": stop, "stop_sequence": None,
        "content": [] if fault == "refusal" else [{"type": "text", "text": answer}], "usage": usage,
    }  # fmt: skip
