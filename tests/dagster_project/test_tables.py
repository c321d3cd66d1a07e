"""What a table of the terminal shows is what its cells hold."""

import pytest

from dagster_project.tables import _fitted, text_table


@pytest.mark.parametrize("text", ["[/b]", "[asy] x [a, b]", r"\[x\]", ":x:"])
def test_a_cell_is_shown_as_it_stands(text: str) -> None:
    assert text in text_table([{"question": text}])


def test_a_long_name_of_a_row_takes_two_lines_rather_than_the_room_of_what_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name, score = "category share, adapter mathematical_symbols operators", "83.4 % [77.0, 89.6]"
    rows = [{"number": name, "mini": score, "mini-k8": score, "delta": None}, {"number": "KL", "mini": 0.25}]
    lines = text_table(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["number", "mini", "mini-k8", "delta"]
    assert lines[3].count(score) == 2
    words = [word for line in lines[3:] for word in line.split("  ")[1].split()]
    assert words == [*name.split(), "KL"]


def test_the_widest_columns_are_narrowed_first_and_none_below_its_least() -> None:
    assert _fitted({"a": 30, "b": 20, "c": 5}, {"a": 10, "b": 18, "c": 5}, 45) == {"a": 20, "b": 20, "c": 5}
    assert _fitted({"a": 30, "b": 20, "c": 5}, {"a": 10, "b": 18, "c": 5}, 30) == {"a": 10, "b": 18, "c": 5}
