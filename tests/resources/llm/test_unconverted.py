"""The client that skips the SDK's conversion sends what the SDK would have sent."""

import asyncio
import json
from dataclasses import asdict
from typing import Any, Literal

import httpx2
import pytest
from openai import AsyncOpenAI
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from resources.llm import exchange
from resources.llm.endpoint import Endpoint, build_model, settings
from resources.llm.unconverted import UnconvertedClient
from tests.resources.llm.servers import KEY, questions
from tests.resources.llm.wire import wire

Provider = Literal["openai", "openai-compatible"]


def _endpoint(provider: Provider) -> Endpoint:
    effort = "low" if provider == "openai" else ""
    return Endpoint(provider, "gpt-5-mini", "http://127.0.0.1:1/v1", effort=effort, max_output_tokens=99)


def _sdk(endpoint: Endpoint, http: httpx2.AsyncClient) -> Model:
    client = AsyncOpenAI(api_key=KEY, base_url=endpoint.address, http_client=http, max_retries=0)
    kind = OpenAIResponsesModel if endpoint.provider == "openai" else OpenAIChatModel
    return kind(endpoint.model, provider=OpenAIProvider(openai_client=client))


def _sent(endpoint: Endpoint, build: Any) -> tuple[str, dict[str, Any], dict[str, str], str]:
    """Path, body and headers of one request, and the answer read."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=wire(request.url.path, endpoint.model, '{"a": 1}', None, 5))

    async def once() -> str:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
            (question,) = questions(1)
            reply = await build(endpoint, http).request(
                exchange.messages(question), settings(endpoint, question.seed(2)), exchange.parameters(question)
            )
            return reply.text

    text = asyncio.run(once())
    (request,) = seen
    return request.url.path, json.loads(request.content), dict(request.headers), text


ENVELOPE = {"id", "timestamp", "run_id", "conversation_id"}
"""Of a ModelResponse: made anew by every reading."""


def _read(endpoint: Endpoint, build: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """What is stored of one answer."""

    async def once() -> dict[str, Any]:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))
        async with httpx2.AsyncClient(transport=transport) as http:
            (question,) = questions(1)
            reply = await build(endpoint, http).request(
                exchange.messages(question), settings(endpoint, 0), exchange.parameters(question)
            )
            return {name: value for name, value in asdict(reply).items() if name not in ENVELOPE}

    return asyncio.run(once())


PATHS: dict[Provider, str] = {"openai": "/v1/responses", "openai-compatible": "/v1/chat/completions"}


@pytest.mark.parametrize("provider", ["openai", "openai-compatible"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"service_tier": "of tomorrow"},
        {"created": "2026-01-01", "created_at": "2026-01-01"},
        {"usage": {"input_tokens": 7, "output_tokens": 2, "prompt_tokens": 7, "completion_tokens": 2}},
    ],
    ids=["as documented", "an unknown value", "a wrong type", "missing fields"],
)
def test_an_answer_is_read_as_by_the_sdk_whether_or_not_it_fits_its_type(
    provider: Provider, changes: dict[str, Any]
) -> None:
    answer = wire(PATHS[provider], "gpt-5-mini", '{"a": 1}', None, 5) | changes
    endpoint = _endpoint(provider)
    read, sdk = _told(endpoint, build_model, answer), _told(endpoint, _sdk, answer)
    assert read == sdk


def _told(endpoint: Endpoint, build: Any, answer: dict[str, Any]) -> object:
    """What an answer is read as, or the kind of error that it is refused with."""
    try:
        return _read(endpoint, build, answer)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("provider", ["openai", "openai-compatible"])
def test_path_body_and_headers_are_the_sdks(provider: Provider) -> None:
    path, body, headers, text = _sent(_endpoint(provider), build_model)
    sdk_path, sdk_body, sdk_headers, sdk_text = _sent(_endpoint(provider), _sdk)
    assert (path, body, text) == (sdk_path, sdk_body, sdk_text)
    assert headers == sdk_headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body.get("seed") == (2 if provider == "openai-compatible" else None)


def test_a_stream_is_read_by_the_sdk() -> None:
    chunks = [
        {
            "id": "1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
        }
        for text in ("hel", "lo")
    ]
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert json.loads(request.content) == {"model": "m", "messages": [], "stream": True}
        return httpx2.Response(200, content=lines.encode(), headers={"content-type": "text/event-stream"})

    async def read() -> str:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
            client = UnconvertedClient(api_key=KEY, base_url="http://127.0.0.1:1/v1", http_client=http)
            stream: Any = await client.chat.completions.create(
                stream=True, extra_headers=None, extra_body=None, model="m", messages=[]
            )
            return "".join([chunk.choices[0].delta.content async for chunk in stream])

    assert asyncio.run(read()) == "hello"
