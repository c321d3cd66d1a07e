"""OpenAI's client without the SDK's walks over every parameter and every field of the answer.

pydantic-ai hands over parameters that are already in wire form: comparing each message with the SDK's 30 typed
dictionaries changes nothing and costs a third of a request's CPU (`python -m bench.llm`). An answer that fits its type
is read by pydantic's compiled validator; the SDK's lenient reading, in Python, is for those that do not.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI, AsyncStream, NotGiven, Omit, Timeout, not_given
from openai._resource import AsyncAPIResource
from openai._types import RequestOptions, ResponseT
from openai.resources.chat import AsyncChat
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.responses import AsyncResponses
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import ValidationError

if TYPE_CHECKING:
    import httpx2


class UnconvertedClient(AsyncOpenAI):
    """Sends responses and chat completions as they are given, reads them compiled; everything else is the SDK's."""

    @cached_property
    def _addresses(self) -> "dict[str, httpx2.URL]":
        return {}

    def _prepare_url(self, url: str) -> "httpx2.URL":
        """Joined to the base once; the SDK parses and joins both for every request, 3 % of its CPU."""
        if url not in self._addresses:
            self._addresses[url] = super()._prepare_url(url)
        return self._addresses[url]

    def _process_response_data(
        self, *, data: object, cast_to: type[ResponseT], response: "httpx2.Response"
    ) -> ResponseT:
        if cast_to in (Response, ChatCompletion):
            with suppress(ValidationError):
                return cast_to.model_validate(data)
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)

    @cached_property
    def responses(self) -> AsyncResponses:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`create` posts its parameters."""
        return _Responses(self)

    @cached_property
    def chat(self) -> AsyncChat:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`completions.create` posts its parameters."""
        return _Chat(self)


class _Responses(AsyncResponses):
    async def create(self, **parameters: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return await _posted(self, "/responses", Response, AsyncStream[ResponseStreamEvent], **parameters)


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Completions(self._client)


class _Completions(AsyncCompletions):
    async def create(self, **parameters: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return await _posted(self, "/chat/completions", ChatCompletion, AsyncStream[ChatCompletionChunk], **parameters)


async def _posted(
    resource: AsyncAPIResource,
    path: str,
    cast_to: type[ResponseT],
    stream_cls: type[AsyncStream[Any]],
    *,
    stream: bool | Omit | None,
    extra_headers: Mapping[str, str | Omit] | None,
    extra_body: object,
    timeout: float | Timeout | NotGiven | None = not_given,
    **parameters: object,
) -> ResponseT | AsyncStream[Any]:
    """The SDK's own signatures, 33 names long, list what the vendor knows; here the body is whatever is given."""
    every = {**parameters, "stream": stream}
    return await resource._post(
        path,
        body={name: value for name, value in every.items() if not isinstance(value, Omit | NotGiven)},
        options=_options(extra_headers, extra_body, timeout),
        cast_to=cast_to,
        stream=stream is True,
        stream_cls=stream_cls,
    )


def _options(
    headers: Mapping[str, str | Omit] | None, body: object, timeout: float | Timeout | NotGiven | None
) -> RequestOptions:
    options = RequestOptions(security={"bearer_auth": True})
    if headers is not None:
        options["headers"] = headers
    if isinstance(body, Mapping):
        options["extra_json"] = body
    if not isinstance(timeout, NotGiven):
        options["timeout"] = timeout
    return options
