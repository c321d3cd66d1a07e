"""The offline taxonomy: what kind of predicate explains a unit, from the predicate alone."""

from assets.categories.artifact import Taxonomy
from assets.interpretations.artifact import Predicate

_ENTRIES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "words",
        "the unit fires on words",
        (
            ("capitalised_words", "words with a capital, such as markers that open a sentence"),
            ("lowercase_words", "words without a capital, and pieces of words"),
            ("letters", "single letters, such as variables"),
        ),
    ),
    (
        "numbers",
        "the unit fires on numbers",
        (("chosen_numbers", "one or two particular numbers"), ("any_number", "numbers as a class")),
    ),
    (
        "mathematical_symbols",
        "the unit fires on symbols of mathematics",
        (
            ("operators", "plus, minus, times and their like"),
            ("relations", "equals, less than and their like"),
            ("latex", "LaTeX commands"),
        ),
    ),
    (
        "punctuation",
        "the unit fires on punctuation",
        (
            ("sentence_ends", "full stops, question and exclamation marks"),
            ("brackets", "brackets"),
            ("other_marks", "commas, colons and other marks"),
        ),
    ),
    (
        "text_structure",
        "the unit fires by the place in the text",
        (
            ("lines", "newlines, and starts of lines and sentences"),
            ("blocks", "role blocks and template tokens"),
            ("places", "a stretch of the rollout"),
        ),
    ),
    (
        "neighbours",
        "the unit fires by what stands before or after",
        (("after_something", "after a certain token or class"), ("before_something", "before one")),
    ),
    (
        "no_rule",
        "no predicate explains the unit",
        (("weak_rule", "a predicate that holds on too few unseen contexts"), ("no_predicate", "nothing is in excess")),
    ),
)  # fmt: skip

TAXONOMY = Taxonomy.numbered(_ENTRIES)
_IDS = {entry.name: entry.string_id for category in TAXONOMY.categories for entry in category.subcategories}

_BY_CLASS = {
    "capitalised word": "capitalised_words",
    "lowercase word": "lowercase_words",
    "lowercase word piece": "lowercase_words",
    "byte piece": "lowercase_words",
    "other": "lowercase_words",
    "single letter": "letters",
    "operator": "operators",
    "relation": "relations",
    "LaTeX command": "latex",
    "sentence end": "sentence_ends",
    "opening bracket": "brackets",
    "closing bracket": "brackets",
    "punctuation": "other_marks",
    "newline": "lines",
    "space": "lines",
    "template token": "blocks",
}
_BY_FAMILY = {
    "line start": "lines",
    "sentence start": "lines",
    "block": "blocks",
    "place": "places",
    "previous": "after_something",
    "previous class": "after_something",
    "two before": "after_something",
    "next": "before_something",
    "next class": "before_something",
}
_RANK = ("token", "word", "class", "previous", "next", "two before", "previous class", "next class", "line start",
         "sentence start", "block", "place")  # fmt: skip
"""Which of two predicates names the entry: what the token is goes before its neighbours, and they before its place; of
two tokens, words or neighbours the first, which is the commoner."""


def string_id(predicate: Predicate | None, label: int | None) -> str:
    """The entry of a unit, from its predicate and its statistical class."""
    if predicate is None:
        return _IDS["no_predicate"]
    if label == 2:
        return _IDS["weak_rule"]
    parts = zip(predicate.parts, predicate.classes, strict=True)
    (family, _), named = min(parts, key=lambda part: _RANK.index(part[0][0]))
    if family in _BY_FAMILY:
        return _IDS[_BY_FAMILY[family]]
    if named == "number":
        return _IDS["any_number" if family == "class" else "chosen_numbers"]
    return _IDS[_BY_CLASS[named]]
