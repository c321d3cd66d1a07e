"""The experiment language is a safe corner of YAML with a line number for everything."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.errors import BadInput
from resources.strict_yaml import read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "e.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_scalars_stay_text_nulls_are_none_and_lines_count_from_one(tmp_path: Path) -> None:
    document = read_yaml(write(tmp_path, "# comment\nsae:\n  k: 1e-3\n  on: '~'\n  none: ~\n  list: [1, a]\n"))
    assert document.values == {"sae": {"k": "1e-3", "on": "~", "none": None, "list": ["1", "a"]}}
    assert [document.line(("sae",)), document.line(("sae", "k")), document.line(("sae", "list", 1))] == [2, 3, 6]
    # what has no line of its own is told by that of the thing around it
    assert [document.line(("sae", "k", "inner")), document.line(("sae", "absent")), document.line(("absent",))] == [
        3,
        2,
        2,
    ]


def test_a_file_may_be_long_and_have_many_lists_but_neither_too_long_nor_too_deep(tmp_path: Path) -> None:
    many = "".join(f"s{i}: {{a: [1]}}\n" for i in range(50))
    assert len(read_yaml(write(tmp_path, many)).values) == 50
    assert read_yaml(write(tmp_path, "a: " + "[" * 19 + "]" * 19)).values.keys() == {"a"}
    with pytest.raises(BadInput, match=":1: nested too deeply"):
        read_yaml(write(tmp_path, "a: " + "[" * 20 + "]" * 20))
    longest = "a: 1\n#" + " " * 99_994
    assert read_yaml(write(tmp_path, longest)).values == {"a": "1"}
    with pytest.raises(BadInput, match=":1: larger than 100000 bytes"):
        read_yaml(write(tmp_path, longest + " "))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: the file is empty"),
        ("# only a comment\n", ":1: the file is empty"),
        ("- a\n- b\n", ":1: expected `section:` lines"),
        ("just words", ":1: expected `section:` lines"),
        ("a: 1\nb: [1, 2\n", ":2: not YAML: expected ',' or ']', but got '<stream end>'"),
        ('a: 1\nb: "x\nc: 2\n', ":2: not YAML: found unexpected end of stream"),
        ("a:\n\tb: 2\n", ":2: not YAML: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: 1\nb\n  c: 2\n", ":2: not YAML: could not find expected ':'; after a key comes a colon"),
        ("a:\n  b: 1\n   c: 2\n", ":3: not YAML: mapping values are not allowed here; indent it as the line above, or"),
        ("a: b: 1\n", ":1: not YAML: mapping values are not allowed here; indent it as the line above, or put a text"),
        ("a:\n    b: 1\n  c: 2\n", ":3: not YAML: expected <block end>, but found '<block mapping start>'; indent it"),
        ("a: 1\nb: 2\na: 3\n", ":3: 'a' stands twice"),
        ("a:\n  b: 1\n  b: 2\n", ":3: 'b' stands twice"),
        ("a: &x 1\nb: *x\n", ":1: anchors and aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", ":1: the tag"),
        ("a: !secret x\n", ":1: the tag"),
        ("base: 1\n<<: {a: 1}\n", ":2: merge keys"),
        ("a: 1\n---\nb: 2\n", ":2: a second document"),
        ("? [1, 2]\n: 3\n", ":1: a key must be a word"),
        ('a: 1\n"b\\tc": 2\n', ":2: the key 'b\\tc' holds a control character"),
        (b"a: \xff\xfe\n", ":1: not UTF-8"),
        ("a: " + "[" * 5000 + "]" * 5000, ":1: "),
        ("a: \x00", ":1: not YAML"),
    ],
)
def test_what_is_no_plain_mapping_is_refused_with_file_line_and_reason(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}{reason}")


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    document = read_yaml(write(tmp_path, b"\xef\xbb\xbfsae:\r\n  k: 4\r\n"))
    assert document.values == {"sae": {"k": "4"}}
    assert document.line(("sae", "k")) == 2


@given(st.text(max_size=200))
def test_any_text_gives_a_document_or_one_clear_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "e.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(read_yaml(path).values, dict)
    except BadInput as error:
        assert "\n" not in str(error)
