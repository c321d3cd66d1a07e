"""Throughput of the paid-request path against a loopback server that answers after 200 ms.

Run: nice -n 5 python -m bench.llm [requests] [concurrency]
Compares with the ideal rate (concurrency / latency), with bare httpx2 posts of the same bodies, and with pydantic-ai's
own agent loop, in one run.
"""

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from resources.llm.ask import ask
from resources.llm.endpoint import Endpoint
from resources.llm.question import Question
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import KEY, QUICK, SILENT, Label, Server, serving

LATENCY_S = 0.2
PROMPT_BYTES = 8000


def questions(count: int, start: int) -> Iterator[Question]:
    """Prompts of the size of B.1 with 64 short contexts."""
    for number in range(start, start + count):
        yield Question(f"latent:{number}", "Explain.", f"{number} " + "word " * (PROMPT_BYTES // 5), Label, "v1")


async def spread(count: int, concurrency: int, send: Callable[[int], Awaitable[object]]) -> None:
    """Run `count` sends, `concurrency` at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await send(number)

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def bare(server: Server, count: int, concurrency: int) -> None:
    """httpx2 alone: no schema, no cache, no ledger, no parsing beyond JSON."""
    import httpx2

    body = {
        "model": "gpt-5-mini", "input": "word " * (PROMPT_BYTES // 5),
        "text": {"format": {"type": "json_schema", "schema": Label.model_json_schema()}},
    }  # fmt: skip
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None), timeout=60) as http:

        async def send(number: int) -> None:
            reply = await http.post(
                f"http://127.0.0.1:{server.port}/v1/responses", json=body | {"n": number}, headers=headers
            )
            reply.json()

        await spread(count, concurrency, send)


async def agents(server: Server, count: int, concurrency: int) -> None:
    """pydantic-ai's Agent with native output: its own validation, no cache, no ledger."""
    from openai import AsyncOpenAI
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with AsyncOpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{server.port}/v1", max_retries=0) as client:
        agent = Agent(
            OpenAIResponsesModel("gpt-5-mini", provider=OpenAIProvider(openai_client=client)),
            output_type=NativeOutput(Label),
            instructions="Explain.",
        )
        await spread(count, concurrency, lambda number: agent.run(f"{number} " + "word " * (PROMPT_BYTES // 5)))


def timed(name: str, count: int, concurrency: int, run: Callable[[], object]) -> None:
    """Run and print rate, CPU and memory growth."""
    before, cpu, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.perf_counter()
    run()
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    ideal = concurrency / LATENCY_S
    print(
        f"{name:34s} {count / wall:7.1f} requests/s  {count / wall / ideal:5.0%} of ideal  "
        f"{1000 * used / count:5.2f} ms CPU each  +{grown:.0f} MB peak"
    )


def main() -> None:
    """Bench and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    concurrency = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    os.environ["LORASCOPE_HOME"] = tempfile.mkdtemp()
    os.environ["OPENAI_API_KEY"] = KEY
    limits = replace(QUICK, concurrency=concurrency, run_dollars=1000.0, purse_dollars=1000.0, timeout_s=60)
    with serving(Settings(key=KEY, latency_s=LATENCY_S)) as server:
        endpoint = Endpoint("openai", "gpt-5-mini", f"http://127.0.0.1:{server.port}/v1", max_output_tokens=1000)
        ask(questions(concurrency, 10**6), concurrency, endpoint, limits, SILENT, "warm-up")
        load = os.getloadavg()[0]
        print(f"{count} requests of {PROMPT_BYTES} bytes, {concurrency} at once, {LATENCY_S} s each, load {load:.0f}")
        timed("bare httpx2", count, concurrency, lambda: asyncio.run(bare(server, count, concurrency)))
        few = count // 5
        timed("pydantic-ai agents", few, concurrency, lambda: asyncio.run(agents(server, few, concurrency)))
        timed(
            "ask (cache, ledger, schema)", count, concurrency,
            lambda: ask(questions(count, 0), count, endpoint, limits, SILENT, "ask"),
        )  # fmt: skip
        timed(
            "ask again, all from the cache", count, concurrency,
            lambda: ask(questions(count, 0), count, endpoint, limits, SILENT, "ask"),
        )  # fmt: skip


if __name__ == "__main__":
    main()
