"""The `server` back end: any OpenAI-compatible server with /v1/completions, one model per arm under the arm's name.

`vllm serve BASE --served-model-name base --enable-lora --lora-modules lora=DIR mlp_ablated=DIR` offers such arms. The
text endpoint is used, not the chat one, so that every back end reads the same prompt, special tokens included.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.engine import Arm, Completion, Request, up_to
from resources.errors import BadInput, one_line
from resources.llm.endpoint import Endpoint, api_key, proxies_told

if TYPE_CHECKING:
    from openai import AsyncOpenAI


EVERY_REQUEST = (401, 403, 404)
"""A wrong key or model: no request would fare better."""


BROKEN_OFF = ("abort", "error")
"""How vLLM ends an answer when it shuts down or an engine dies: what came is no answer and would be kept as one."""


class ServerEngine:
    """Keeps `server_requests` requests under way."""

    interleaves = True

    def __init__(self, config: BenchmarksConfig) -> None:
        self._config = config

    def complete(self, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answers as they arrive.

        Raises:
            BadInput: when the server cannot be reached or answers with something else, and where it refuses a request:
                after the others are answered, or at once when it refuses them all.
        """
        from openai import APIConnectionError, APIError, APIStatusError

        url = self._url(arm)
        answers = self._answers(arm, requests, api_key(Endpoint("openai-compatible", arm.name, url)))
        with asyncio.Runner() as runner:
            while True:
                try:
                    yield runner.run(anext(answers))  # pyright: ignore[reportArgumentType]
                except StopAsyncIteration:
                    return
                except BadInput:
                    raise
                except APIConnectionError as error:
                    raise BadInput(
                        f"no server answers at {url} (benchmarks.server_url); start it and run again"
                    ) from error
                except APIStatusError as error:
                    raise BadInput(
                        f"the server at {url} refused a request for model {arm.name}: {error.message}"
                    ) from error
                except (APIError, AttributeError, LookupError, TypeError, ValueError) as error:
                    # The SDK hands on whatever JSON or text comes with status 200.
                    raise BadInput(
                        f"what the server at {url} answers is no completion of model {arm.name} "
                        f"({one_line(str(error))}): benchmarks.server_url needs a server with /v1/completions"
                    ) from error

    async def _answers(self, arm: Arm, requests: Sequence[Request], key: str) -> AsyncIterator[tuple[int, Completion]]:
        from openai import APIStatusError, AsyncOpenAI

        gate = asyncio.Semaphore(self._config.server_requests)
        # An answer of 32768 tokens takes minutes; the client's own limit is 10.
        with proxies_told():
            made = AsyncOpenAI(base_url=self._url(arm), api_key=key, timeout=3600, max_retries=4)
        async with made as client:
            asks = [asyncio.ensure_future(_ask(client, gate, arm, i, request)) for i, request in enumerate(requests)]
            first, refused_in_row = None, 0
            try:
                for answer in asyncio.as_completed(asks):
                    try:
                        answered = await answer
                    except APIStatusError as error:
                        # One prompt that the server cannot take costs no other prompt its answer.
                        first, refused_in_row = first or error, refused_in_row + 1
                        if error.status_code in EVERY_REQUEST or refused_in_row > self._config.server_requests:
                            raise
                        continue
                    refused_in_row = 0
                    yield answered
                if first is not None:
                    raise first
            finally:
                for ask in asks:
                    ask.cancel()

    def _url(self, arm: Arm) -> str:
        return str(self._config.server_url).replace("{arm}", arm.name)


async def _ask(
    client: "AsyncOpenAI", gate: asyncio.Semaphore, arm: Arm, index: int, request: Request
) -> tuple[int, Completion]:
    async with gate:
        reply = await client.completions.create(
            model=arm.name,
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            stop=list(request.stop),
            extra_body={"skip_special_tokens": False, "add_special_tokens": False},
        )
    choice = reply.choices[0]
    if choice.finish_reason in BROKEN_OFF:
        raise ValueError(f"it broke an answer off: {choice.finish_reason}")
    num_tokens = reply.usage.completion_tokens if reply.usage else 0
    finish = "length" if choice.finish_reason == "length" else "stop"
    return index, Completion(up_to(choice.text, request.stop), num_tokens, finish)
