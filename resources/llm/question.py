"""One thing to ask: messages, the schema of the answer, and what makes it the same question next time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from pydantic import BaseModel

from resources.keys import digest
from resources.llm.endpoint import Endpoint

TYPICAL_BYTES_PER_TOKEN = 3.2
"""For estimates: token lists of mathematics run shorter than prose (about 4)."""
TOKENS_PER_TOKEN = 1.25
"""For estimates: of a prompt, per token of the dataset: escapes, tags and another vocabulary."""
FRAME_TOKENS = 600
"""Upper bound of what chat templates and schema wrapping add."""
MOST_ATTEMPTS = 1000
"""Attempts at one sample before two samples could share a seed."""


@dataclass(frozen=True)
class Question:
    """Asked once per (endpoint, content, prompt version, sample, attempt)."""

    id: str
    """Names the asker's item, such as `latent:448`; not part of the key."""
    system: str
    user: str
    answer: type[BaseModel]
    prompt_version: str
    sample: int = 0
    check: Callable[[Any], str] = field(default=lambda _: "", compare=False)
    """What is wrong with a schema-valid answer (an unknown id, say), or an empty string."""
    shorter: "Callable[[], Question | None]" = field(default=lambda: None, compare=False)
    """The same question with less evidence, for a prompt that does not fit; None when it cannot shrink."""
    note: str = ""
    """What was left out, for the item's detail."""

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return schema_of(self.answer)

    def key(self, endpoint: Endpoint, attempt: int) -> str:
        """The cache key; `attempt` counts answers that came but could not be used."""
        asked = endpoint, attempt
        if asked not in self._keys:
            content = [self.system, self.user, self.prompt_version, self.sample, attempt]
            self._keys[asked] = digest("llm", [endpoint.identity(), self.schema, content])
        return self._keys[asked]

    @cached_property
    def _keys(self) -> dict[tuple[Endpoint, int], str]:
        return {}

    def seed(self, attempt: int) -> int:
        """What an endpoint of one's own samples with: the same in every run, another for each sample and attempt.

        vLLM seeds each request; `transformers serve` the whole process, so that only requests one by one repeat there.
        """
        return MOST_ATTEMPTS * self.sample + attempt

    @property
    def most_input_tokens(self) -> int:
        """An upper bound: a byte-level vocabulary never makes more tokens than there are bytes."""
        return len(self._text) + FRAME_TOKENS

    @property
    def likely_input_tokens(self) -> int:
        """An estimate."""
        return int(len(self._text) / TYPICAL_BYTES_PER_TOKEN)

    @property
    def _text(self) -> bytes:
        return (self.system + self.user + str(self.schema)).encode()


@cache
def schema_of(answer: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema, made once per model: it costs 0.3 ms."""
    return answer.model_json_schema()


def fitted(question: Question, endpoint: Endpoint) -> Question:
    """The question, shrunk until its likely length leaves room for the answer; as it is when it cannot shrink."""
    room = endpoint.context_tokens - min(endpoint.max_output_tokens, endpoint.context_tokens // 2)
    while question.likely_input_tokens > room:
        shorter = question.shorter()
        if shorter is None:
            return question
        question = shorter
    return question
