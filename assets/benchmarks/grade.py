"""Right or wrong: integers as integers, text as text, mathematics by math-verify, letters as letters.

s1 asked gpt-4o-mini about everything that is not an integer. math-verify decides the same without a paid, changing
judge; what it rejects can still go to a judge (`judge.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from assets.benchmarks.extract import Extracted
from resources.errors import BadInput, quoted

LETTERS = ("A", "B", "C", "D")
GradedBy = Literal["integer", "text", "math_verify", "letter", "choice", "default", "judge", "none"]
# Longest tail of an unmarked answer that math-verify reads: a truncated trace has 100,000 characters.
_TAIL = 2000
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|!|;|:| )|\\?[$]|~")
_WRAPPED = re.compile(r"\\(?:text(?:bf|rm|it|sf|tt)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s*\{([^{}]*)\}")
_ORDINAL = re.compile(r"(\d)\s*(?:\^\s*\{?\s*)?(?:\\text)?\{?(?:st|nd|rd|th)\}?\}?$")
_IN_BASE = re.compile(r"(?<![\w\\])([0-9a-z]+)_(\d+)")
_LETTER = re.compile(r"(?:(?:option|choice)\s+)?\(?\s*([A-D])\s*(?:[).:,;\n].*)?$", re.DOTALL | re.IGNORECASE)
# "B, C", "(A), (B) and (D)"; but "B, D-glucose" and "B. C" are a letter and its choice.
_SEVERAL = re.compile(
    r"\W*+([A-D])(?:[\s)]*+(?:[,;/&]|\b(?:and|or)\b)[\s(]*+(?:(?:and|or)\b[\s(]*+)?(?!\1)[A-D])+[\s).]*+", re.IGNORECASE
)
# A letter that is no word: "A" before a word may be an article, and "B or C" decides nothing. What stands between is
# taken once and for all (`*+`): else a thousand dots, of a model that repeats itself, are divided in 10^8 ways.
_STATED = re.compile(
    r"(?:(?i:answer|(?:correct|right|best) (?:option|choice|one|letter)))\W*+(?i:is|would be|must be)?"
    r"\W*+(?i:option|choice)?\W*+([B-D](?!\w|\s+(?:or|and)\b)|A(?!\w|\s+\w))"
)
# "B (5 eV)", "B - 5 eV" on a line of its own, "B because ...", "B is correct"; "A because" may begin a sentence.
_LED = re.compile(
    r"([A-D])(?:\s*\((?!or\b|and\b)[^()\n]*\)|\s+[-–—]\s[^\n]*)\W*(?:\n|$)"
    r"|([B-D])\s+(?:because|since|is\s+(?:the\s+)?(?:correct|right|best|answer))\b"
)
_LAST_LINE = re.compile(r"\W*([A-D])(?:\W*|[).:]+\s.*)")
_ALONE = re.compile(r"\W*([A-D])\W*")


@dataclass(frozen=True)
class Grade:
    """`correct` by the paper's rule and, for letters, `strict`: an answer that names no letter is wrong."""

    correct: bool
    strict: bool
    by: GradedBy


def grade_math(found: Extracted, gold: str) -> Grade:
    """Whether the answer equals the gold answer as an integer, as text or as mathematics."""
    if not found.text:
        return Grade(False, False, "none")
    # Markdown's bold, around what no box holds, says nothing.
    text = found.text if found.rule == "boxed" else found.text.strip("* \n")
    answer, truth = text.strip(), gold.strip()
    if is_integer(answer) and is_integer(truth):
        # As digits: a model that repeats one to the end of its context writes more than Python turns into a number.
        same = answer.lstrip("0") == truth.lstrip("0")
        return Grade(same, same, "integer")
    if normalised(answer) == normalised(truth):
        return Grade(True, True, "text")
    if _in_another_base(normalised(answer), normalised(truth)):
        return Grade(False, False, "text")
    equal = equal_formulas if found.rule == "boxed" else names_formula
    same = equal(answer[-_TAIL:], truth)
    return Grade(same, same, "math_verify")


def grade_choice(found: Extracted, gold: str, choices: tuple[str, ...] = ()) -> Grade:
    """Whether the answer is the gold letter; an answer that names no letter counts as "A" in `correct` (s1)."""
    letter = letter_of(found.text, choices)
    if letter is None:
        return Grade(gold == "A", False, "default")
    return Grade(letter == gold, letter == gold, "letter" if len(found.text) == 1 else "choice")


def check_gold(gold: str, choices: Sequence[str]) -> None:
    """Letters are read up to D: an answer "E" would name none, and so count as "A".

    Raises:
        BadInput: when the right answer is none of four letters, or there are more options than four.
    """
    if gold not in LETTERS or len(choices) > len(LETTERS):
        options = f" of {len(choices)}" if choices else ""
        raise BadInput(
            f"the right answer is {quoted(gold)}{options}: multiple choice is graded with up to four options, A to D; "
            "leave the question out"
        )


def letter_of(text: str, choices: tuple[str, ...] = ()) -> str | None:
    r"""The letter an answer names.

    `B`, `(b)`, `\text{B}`, `B) 3 eV`, a choice's own text, else the last "the answer is B", else `B (3 eV)` or
    `B because` at its head, else a last line `B) 3 eV`. None where it names several, as `B, C`.
    """
    plain = _WRAPPED.sub(r"\1", text).strip().strip("$*").strip()
    found = _LETTER.match(_unmarked(plain))
    if found is not None and (_stands_alone(plain) or not _lists_choices(plain)):
        # what follows the letter may be about a choice that the answer is not
        stated = _STATED.findall(plain)
        return stated[-1] if stated else found[1].upper()
    same = [letter for letter, choice in zip(LETTERS, choices, strict=False) if normalised(choice) == normalised(text)]
    return same[0] if len(same) == 1 else _stated_letter(plain)


def _stated_letter(text: str) -> str | None:
    stated = _STATED.findall(text)
    if stated or _lists_choices(text):
        return stated[-1] if stated else None
    led = _LED.match(_unmarked(text))
    if led is not None:
        return led[1] or led[2]
    last = _LAST_LINE.fullmatch(text.rsplit("\n", 1)[-1])
    return None if last is None else last[1]


def _unmarked(text: str) -> str:
    """Without Markdown's bold, which at the head of an answer says nothing; later it tells the letter A from a word."""
    return text.replace("*", "")


def _stands_alone(text: str) -> bool:
    """Whether the first line is a letter, and no other line another one: choices that are listed have a text."""
    first, *others = [found and found[1] for found in map(_ALONE.fullmatch, text.splitlines())]
    return first is not None and not {*others} - {first, None}


def _lists_choices(text: str) -> bool:
    """Whether several letters stand side by side, or each before a line of its own: then none of them is the answer."""
    return (
        _SEVERAL.fullmatch(text) is not None
        or len({found[1] for line in text.splitlines() if (found := _LAST_LINE.fullmatch(line))}) > 1
    )


def normalised(text: str) -> str:
    r"""Text without what carries no meaning: dollars, spacing commands, `\text`, case, a full stop, blanks.

    The blank of a mixed number stays: 1 1/2 is not 11/2.
    """
    text = _WRAPPED.sub(r"\1", text)
    text = (
        text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("^\\circ", "").replace("^{\\circ}", "")
    )
    text = _DROPPED.sub("", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.replace("\\%", "%").replace("{,}", ","))
    text = _ORDINAL.sub(r"\1", text.strip())
    text = re.sub(r"([_^])\{(\w+)\}", r"\1\2", text)
    return re.sub(r"(?<!\d)\s+|\s+(?!\d+/)", "", text).rstrip(".").casefold()


def _in_another_base(answer: str, gold: str) -> bool:
    """Whether the answer writes digits of the gold answer in another base only: math-verify takes 42_5 for 42_7."""
    said = set(_IN_BASE.findall(answer))
    lacking = set(_IN_BASE.findall(gold)) - said
    return not {digits for digits, _ in said}.isdisjoint(digits for digits, _ in lacking)


def is_integer(text: str) -> bool:
    """Whether it is ASCII digits alone."""
    return text.isascii() and text.isdigit()


@lru_cache(maxsize=65536)
def equal_formulas(answer: str, gold: str) -> bool:
    """math-verify's verdict on two formulas; one that it cannot parse is not equal."""
    return _verified(gold, [_formula(answer)])


@lru_cache(maxsize=65536)
def names_formula(text: str, gold: str) -> bool:
    """The same where the answer may stand among words."""
    return _verified(gold, [_formula(text), _parsed(_without_dollar_signs(text))])


def _verified(gold: str, claims: Sequence[list[Any]]) -> bool:
    from math_verify import verify

    truth = _formula(gold)
    return any(verify(truth, claim, timeout_seconds=5) for claim in claims)


def _formula(text: str) -> list[Any]:
    r"""As mathematics. Bare only when it is none in dollars: of `3\sqrt{13}`, bare, math-verify reads the 3."""
    text = _without_dollar_signs(text)
    marked = text if "$" in text or "\\boxed" in text else f"${text}$"
    return _parsed(marked) or _parsed(text)


def _without_dollar_signs(text: str) -> str:
    return text.replace("\\$", "")


def _parsed(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    return parse(text, [LatexExtractionConfig(), ExprExtractionConfig()], parsing_timeout=5)
