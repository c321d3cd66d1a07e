"""Between questions and pydantic-ai: messages out, stored responses back, and what makes an answer usable."""

import json
import re
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from resources.llm.cache import Stored
from resources.llm.endpoint import Endpoint
from resources.llm.failures import misfit
from resources.llm.prices import Price
from resources.llm.question import Question

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import ModelRequestParameters

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)
"""How servers that take no schema (`transformers serve`) tend to answer."""
CUT = "the answer was cut at the token limit"
"""Why an answer cannot be used that a larger max_output_tokens would have let end."""


def messages(question: Question) -> "list[ModelMessage]":
    """The question as pydantic-ai's messages."""
    from pydantic_ai.messages import ModelRequest, SystemPromptPart, UserPromptPart

    return [ModelRequest(parts=[SystemPromptPart(question.system), UserPromptPart(question.user)])]


def parameters(question: Question) -> "ModelRequestParameters":
    """Native structured output: the vendor constrains the answer to the schema."""
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition

    wanted = OutputObjectDefinition(json_schema=question.schema, name=question.answer.__name__, strict=True)
    return ModelRequestParameters(output_mode="native", output_object=wanted, allow_text_output=True)


def stored(question: Question, endpoint: Endpoint, attempt: int, response: "ModelResponse", price: Price) -> Stored:
    """The row to keep."""
    usage = response.usage
    tokens = usage.input_tokens, usage.output_tokens
    if not any(tokens):  # a proxy may count nothing: then caps are kept by the most that it can have cost
        tokens = question.most_input_tokens, endpoint.max_output_tokens
    request = {
        "system": question.system,
        "user": question.user,
        "schema": question.schema,
        "settings": endpoint.identity(),
        "sample": question.sample,
        "attempt": attempt,
    }
    return Stored(
        key=question.key(endpoint, attempt),
        provider=endpoint.provider,
        model=endpoint.model,
        base_url=endpoint.address,
        prompt_version=question.prompt_version,
        request=json.dumps(request, ensure_ascii=False),
        # ASCII: half a surrogate pair, which some servers send, has no UTF-8.
        response=json.dumps(_adapter().dump_python(response, mode="json")),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        dollars=price.dollars(*tokens),
        created=time.time(),
    )


def read(question: Question, response_json: str) -> tuple[BaseModel | None, str]:
    """The answer of a stored response, or None and why it cannot be used."""
    response = json.loads(response_json)
    text = "".join(part["content"] or "" for part in response["parts"] if part["part_kind"] == "text")
    finish = response.get("finish_reason")
    if finish == "length":
        return None, CUT
    if finish == "content_filter" or not text.strip():
        return None, "the model refused or said nothing"
    if not text.lstrip().startswith(("{", "```")):
        # Templates that open the thinking themselves (DeepSeek-R1, QwQ) leave only its end in the text.
        text = text.rpartition("</think>")[2]
    fenced = _FENCED.fullmatch(text)
    try:
        answer = question.answer.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        return None, misfit("the answer does not fit the schema", error)
    wrong = question.check(answer)
    return (None, wrong) if wrong else (answer, "")


@cache
def _adapter() -> "TypeAdapter[Any]":
    from pydantic_ai.messages import ModelResponse

    return TypeAdapter(ModelResponse)
