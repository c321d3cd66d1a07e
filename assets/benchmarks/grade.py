"""Right or wrong: integers as integers, text as text, mathematics by math-verify, letters as letters.

s1 asked gpt-4o-mini about everything that is not an integer. math-verify decides the same without a paid, changing
judge; what it rejects can still go to a judge (`judge.py`).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from assets.benchmarks.extract import Extracted

LETTERS = ("A", "B", "C", "D")
GradedBy = Literal["integer", "text", "math_verify", "letter", "choice", "default", "judge", "none"]
# Longest tail of an unmarked answer that math-verify reads: a truncated trace has 100,000 characters.
_TAIL = 2000
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|!|;|:| )|\\?[$]|~")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_ORDINAL = re.compile(r"(\d)\s*(?:\^\s*\{?\s*)?(?:\\text)?\{?(?:st|nd|rd|th)\}?\}?$")
_NUMBER_IN_BASE = re.compile(r"\w+_\d+")
_LETTER = re.compile(r"\(?\s*([A-Da-d])\s*(?:[).:,;\n].*)?$", re.DOTALL)


@dataclass(frozen=True)
class Grade:
    """`correct` by the paper's rule and, for letters, `strict`: an answer that names no letter is wrong."""

    correct: bool
    strict: bool
    by: GradedBy

    @property
    def contested(self) -> bool:
        """Whether a judge may still be asked: nothing has shown that the answer is right."""
        return not self.strict and self.by in ("math_verify", "default", "none")


def grade_math(found: Extracted, gold: str) -> Grade:
    """Whether the answer equals the gold answer as an integer, as text or as mathematics."""
    if not found.text:
        return Grade(False, False, "none")
    answer, truth = found.text.strip(), gold.strip()
    if _is_integer(answer) and _is_integer(truth):
        same = int(answer) == int(truth)
        return Grade(same, same, "integer")
    if normalised(answer) == normalised(truth):
        return Grade(True, True, "text")
    if _NUMBER_IN_BASE.fullmatch(normalised(answer)) and _NUMBER_IN_BASE.fullmatch(normalised(truth)):
        # math-verify takes 4210_5 and 4210_7 for one number.
        return Grade(False, False, "text")
    same = equal_mathematics(answer[-_TAIL:], truth)
    return Grade(same, same, "math_verify")


def grade_choice(found: Extracted, gold: str, choices: tuple[str, ...] = ()) -> Grade:
    """Whether the answer is the gold letter; an answer that names no letter counts as "A" in `correct` (s1)."""
    letter = letter_of(found.text, choices)
    if letter is None:
        return Grade(gold == "A", False, "default")
    return Grade(letter == gold, letter == gold, "letter" if len(found.text) == 1 else "choice")


def letter_of(text: str, choices: tuple[str, ...] = ()) -> str | None:
    r"""The letter an answer names: `B`, `(b)`, `\text{B}`, `B) 3 eV`, or the text of a choice itself."""
    plain = _WRAPPED.sub(r"\1", text).strip().strip("$*").strip()
    found = _LETTER.match(plain)
    if found is not None:
        return found[1].upper()
    same = [letter for letter, choice in zip(LETTERS, choices, strict=False) if normalised(choice) == normalised(text)]
    return same[0] if len(same) == 1 else None


def normalised(text: str) -> str:
    r"""Text without what carries no meaning: dollars, spacing commands, `\text`, case, blanks, a full stop."""
    text = _WRAPPED.sub(r"\1", text)
    text = (
        text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("^\\circ", "").replace("^{\\circ}", "")
    )
    text = _DROPPED.sub("", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.replace("\\%", "%").replace("{,}", ","))
    text = _ORDINAL.sub(r"\1", text.strip())
    text = re.sub(r"([_^])\{(\w+)\}", r"\1\2", text)
    return re.sub(r"\s+", "", text).rstrip(".").casefold()


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit()


@lru_cache(maxsize=65536)
def equal_mathematics(answer: str, gold: str) -> bool:
    """math-verify's verdict; an answer or gold that it cannot parse is not equal."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    read = [LatexExtractionConfig(), ExprExtractionConfig()]
    truth = parse(f"${gold}$", read, parsing_timeout=5) + parse(gold, read, parsing_timeout=5)
    claims = [answer] if "$" in answer or "\\boxed" in answer else [f"${answer}$", answer]
    return any(verify(truth, parse(claim, read, parsing_timeout=5), timeout_seconds=5) for claim in claims)
