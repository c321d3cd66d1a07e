"""What a table of the terminal shows is what its cells hold."""

import pytest

from dagster_project.tables import text_table


@pytest.mark.parametrize("text", ["[/b]", "[asy] x [a, b]", r"\[x\]", ":x:"])
def test_a_cell_is_shown_as_it_stands(text: str) -> None:
    assert text in text_table([{"question": text}])
