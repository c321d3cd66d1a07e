"""Where the answer stands in a model's output: s1's order of rules, rule by rule.

After `process_results` of s1's lm-evaluation-harness fork, the code behind the paper's numbers.
"""

import re
from dataclasses import dataclass
from typing import Literal

from resources.chat import ANSWER, START

Rule = Literal["boxed", "answer", "whole", "empty"]
# The dot matches newlines (s1: re.DOTALL), so everything after the first "Answer:" is taken.
_ANSWER = re.compile(r"answer\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Extracted:
    """What is graded, and which rule found it."""

    text: str
    rule: Rule


def extract(output: str) -> Extracted:
    """The answer in an output: the last box, else what follows "Answer:", else everything after the thinking."""
    answer = answer_part(output)
    boxed = last_boxed(answer)
    if boxed is not None:
        return Extracted(boxed.strip(), "boxed")
    found = _ANSWER.search(answer)
    if found is not None:
        return Extracted(found[1].strip(), "answer")
    text = answer.strip()
    return Extracted(text, "whole" if text else "empty")


def answer_part(output: str) -> str:
    """What follows the last answer marker, else the last control token's line, else all of it."""
    if ANSWER in output:
        return output.rsplit(ANSWER, 1)[1]
    if START in output:
        rest = output.rsplit(START, 1)[1]
        return rest.split("\n", 1)[1] if "\n" in rest else rest
    return output


def last_boxed(text: str) -> str | None:
    r"""Inside of the last `\boxed{...}` (or `\fbox{...}`) with balanced braces; `\boxed X` reads up to a dollar sign.

    s1 takes the form with a space first wherever it stands, and so does this.
    """
    if "\\boxed " in text:
        return _unbraced(text.rsplit("\\boxed ", 1)[1].split("$", 1)[0].strip())
    start = text.rfind("\\boxed")
    start = start if start >= 0 else text.rfind("\\fbox")
    return None if start < 0 else _inside(text, start)


def _inside(text: str, start: int) -> str | None:
    """Inside of the first brace pair at or after `start`; None when it never closes."""
    opened = text.find("{", start)
    depth = 0
    for position in range(opened, len(text)) if opened >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[opened + 1 : position]
    return None


def _unbraced(text: str) -> str:
    """`{5}.` (written as `\\boxed {5}.`) without its braces."""
    inside = _inside(text, 0) if text.startswith("{") else None
    return text if inside is None else inside
