"""Which model answers, where, and with whose key; keys come from the environment and stay inside the client."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from resources.errors import BadInput, one_line

if TYPE_CHECKING:
    import httpx2
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings

Provider = Literal["openai", "anthropic", "openai-compatible"]
Effort = Literal["", "minimal", "low", "medium", "high"]
"""Of a model's reasoning; empty: its default."""
KEY_VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "openai-compatible": "OPENAI_COMPATIBLE_API_KEY",
}
URL_VARIABLES = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL", "openai-compatible": ""}
"""A proxy's address, where the config names none (the vendors' own SDK variables)."""
_VENDORS_OWN = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Given to the SDKs, which take a variable that is set to nothing for an address."""


@dataclass(frozen=True)
class Endpoint:
    """One model of one provider, with every setting that can change an answer."""

    provider: Provider
    model: str
    base_url: str = ""
    effort: str = ""
    max_output_tokens: int = 16000
    context_tokens: int = 128000

    @property
    def name(self) -> str:
        """`openai/gpt-5-mini`, as tables show it."""
        return f"{self.provider}/{self.model}"

    @property
    def address(self) -> str:
        """The configured address, else the provider's environment variable, else empty for the vendor's own."""
        return self.base_url or os.environ.get(URL_VARIABLES[self.provider], "").strip()

    @property
    def placed(self) -> str:
        """`openai/gpt-5-mini at http://127.0.0.1:8000/v1`, for messages: where it is, if that was chosen."""
        parts = urlsplit(self.address)
        # A proxy's address in the environment may hold a user and a password.
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return f"{self.name} at {place}" if self.address else self.name

    def identity(self) -> dict[str, str | int]:
        """What enters the cache key of every request: all but the key and the context limit."""
        return {
            "provider": self.provider,
            "base_url": self.address,
            "model": self.model,
            "effort": self.effort,
            "max_output_tokens": self.max_output_tokens,
        }


def api_key(endpoint: Endpoint) -> str:
    """The key from the environment, without the line end that files give it; local servers may need none.

    Raises:
        BadInput: when a vendor's key is missing, or one cannot be sent.
    """
    missing = missing_key(endpoint.provider)
    if missing:
        raise BadInput(f"{endpoint.name} needs an API key: set {missing}, or choose another provider")
    variable = KEY_VARIABLES[endpoint.provider]
    key = os.environ.get(variable, "").strip() or "none"
    if not (key.isascii() and key.isprintable()):
        raise BadInput(f"what {variable} holds is no API key: it has characters that no key has")
    return key


def missing_key(provider: str) -> str | None:
    """The environment variable of a vendor's key, where it is not set."""
    variable = KEY_VARIABLES[provider]
    return None if provider == "openai-compatible" or os.environ.get(variable, "").strip() else variable


@contextmanager
def proxies_told() -> Iterator[None]:
    """Around what makes an HTTP client, which reads the environment.

    Raises:
        BadInput: when a proxy or certificates that it names cannot be used.
    """
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        raise BadInput(
            f"no HTTP client can be made with this environment ({one_line(str(error))}): look at HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR (`pip install socksio` for a SOCKS proxy)"
        ) from error


def settings(endpoint: Endpoint, seed: int) -> "ModelSettings":
    """Request settings; sampling is left to the vendor, since Anthropic refuses a temperature and OpenAI a seed."""
    chosen: ModelSettings = {"max_tokens": endpoint.max_output_tokens}
    if endpoint.provider == "openai-compatible":
        chosen["seed"] = seed
    if endpoint.effort:
        # The library leaves `thinking` out for models that it does not know to think, as those of one's own server.
        own = endpoint.provider == "openai-compatible"
        chosen["openai_reasoning_effort" if own else "thinking"] = endpoint.effort  # pyright: ignore[reportGeneralTypeIssues]
    return chosen


def build_model(endpoint: Endpoint, http: "httpx2.AsyncClient") -> "Model":
    """The client of an endpoint over `http`, without retries of its own.

    Raises:
        BadInput: without a key, without an address where one is needed, or where thinking leaves no room to answer.
    """
    key = api_key(endpoint)
    if endpoint.provider == "anthropic":
        return _anthropic(endpoint, key, http)
    if endpoint.provider == "openai-compatible" and not endpoint.address:
        raise BadInput("provider openai-compatible needs base_url, such as http://127.0.0.1:8000/v1")
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from resources.llm.unconverted import UnconvertedClient

    address = endpoint.address or _VENDORS_OWN[endpoint.provider]
    client = UnconvertedClient(api_key=key, base_url=address, http_client=http, max_retries=0)
    kind = OpenAIResponsesModel if endpoint.provider == "openai" else OpenAIChatModel
    return kind(endpoint.model, provider=OpenAIProvider(openai_client=client))


def _anthropic(endpoint: Endpoint, key: str, http: "httpx2.AsyncClient") -> "Model":
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.profiles.anthropic import ANTHROPIC_THINKING_BUDGET_MAP
    from pydantic_ai.providers.anthropic import AnthropicProvider

    address = endpoint.address or _VENDORS_OWN[endpoint.provider]
    client = AsyncAnthropic(api_key=key, base_url=address, http_client=http, max_retries=0)
    model = AnthropicModel(endpoint.model, provider=AnthropicProvider(anthropic_client=client))
    if endpoint.effort and not model.profile.get("anthropic_supports_adaptive_thinking"):
        budget = ANTHROPIC_THINKING_BUDGET_MAP[endpoint.effort]  # pyright: ignore[reportArgumentType]
        if budget >= endpoint.max_output_tokens:
            raise BadInput(
                f"effort {endpoint.effort} lets {endpoint.name} think for {budget} tokens, which is all of "
                f"max_output_tokens {endpoint.max_output_tokens}: raise that, or lower the effort"
            )
    return model
