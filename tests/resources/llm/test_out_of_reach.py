"""An endpoint that cannot be reached: the message says where it was looked for and what was in the way."""

from dataclasses import replace
from typing import Literal

import httpx2
import pytest

from resources.errors import BadInput
from resources.llm.ask import Asked, ask
from resources.llm.endpoint import URL_VARIABLES, Endpoint, Provider, build_model
from tests.assets.benchmarks.local_server import chat, serving
from tests.resources.llm.servers import KEY, QUICK, SILENT, questions

GOOD = '{"explanation": "e", "classification": 1, "reasoning": "r"}'


def _ask(url: str) -> Asked:
    endpoint = Endpoint("openai-compatible", "m", url, max_output_tokens=1000)
    return ask(questions(1), 1, endpoint, replace(QUICK, attempts=1), SILENT, "label")


def test_a_refused_connection_names_the_address() -> None:
    with serving(lambda *_: 500) as url:
        pass
    with pytest.raises(BadInput, match=rf"openai-compatible/m at {url} cannot be reached: .*[Cc]onnect"):
        _ask(url)


def test_a_wrong_path_is_told_with_the_address_and_without_a_proxys_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: 404) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url.replace("//", "//me:hunter2@"))
        endpoint = Endpoint("openai", "gpt-5-mini", max_output_tokens=1000)
        with pytest.raises(BadInput, match=rf"^openai/gpt-5-mini at {url} refuses: .*404") as caught:
            ask(questions(1), 1, endpoint, QUICK, SILENT, "label")
    assert "hunter2" not in str(caught.value)


def test_tls_that_the_server_does_not_speak_is_said() -> None:
    with serving(lambda *_: chat(GOOD)) as url, pytest.raises(BadInput, match=r"cannot be reached: \[SSL"):
        _ask(url.replace("http:", "https:"))


def test_a_server_that_sends_from_one_place_to_the_next_is_said() -> None:
    def answer(path: str, _: object) -> tuple[int, str, dict[str, str]]:
        return 308, "", {"Location": path}

    with serving(answer) as url, pytest.raises(BadInput, match=r"cannot be reached: .*redirect"):
        _ask(url)


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_the_line_end_of_a_file_is_no_part_of_a_key(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", KEY + end)
    with serving(lambda *_: chat(GOOD)) as url:
        assert _ask(url).bill.requests == 1


@pytest.mark.parametrize("key", ["sk-a\nsk-b", "schlüssel"])
def test_what_cannot_be_sent_is_no_key_and_is_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", key)
    with pytest.raises(BadInput, match=r"^what OPENAI_COMPATIBLE_API_KEY holds is no API key") as caught:
        _ask("http://127.0.0.1:9/v1")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"), [("ALL_PROXY", "socks5://127.0.0.1:9"), ("SSL_CERT_FILE", "/none/ca.pem")]
)
@pytest.mark.parametrize("mode", ["live", "batch"])
def test_a_proxy_that_cannot_be_used_is_told_with_its_variables(
    mode: Literal["live", "batch"], variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    endpoint = Endpoint("openai", "gpt-5-mini", "http://model.invalid/v1", max_output_tokens=1000)
    with pytest.raises(BadInput, match=rf"^no HTTP client can be made with this environment .*{variable}"):
        ask(questions(1), 1, endpoint, replace(QUICK, mode=mode), SILENT, "label")


@pytest.mark.parametrize(
    ("provider", "host"), [("openai", "https://api.openai.com/v1"), ("anthropic", "https://api.anthropic.com")]
)
@pytest.mark.parametrize("empty", ["", " "])
def test_an_address_that_is_set_to_nothing_is_the_vendors_own(
    provider: Provider, host: str, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLES[provider], empty)
    endpoint = Endpoint(provider, "gpt-5-mini" if provider == "openai" else "claude-haiku-4-5")
    model = build_model(endpoint, httpx2.AsyncClient())
    assert model.base_url is not None
    assert model.base_url.rstrip("/") == host
    # As without the variable: the answers in the cache stay valid.
    assert (endpoint.placed, endpoint.identity()["base_url"]) == (endpoint.name, "")
