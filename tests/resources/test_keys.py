"""A key changes exactly when what made the artifact changes."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.errors import BadInput
from resources.fingerprints import fingerprints
from resources.keys import artifact_key, digest, folder_digest, section_version

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_a_digest_is_the_start_of_the_sha256_of_the_tagged_canonical_json() -> None:
    text = '["section",{"a":[2,null],"b":"π"}]'
    assert digest("section", {"b": "π", "a": [2, None]}) == hashlib.sha256(text.encode()).hexdigest()[:20]


@given(st.dictionaries(st.text(), values, min_size=2))
def test_the_order_of_a_mapping_does_not_change_its_digest(mapping: dict[str, object]) -> None:
    assert digest("x", mapping) == digest("x", dict(reversed(mapping.items())))


@given(values, values)
def test_different_values_have_different_digests(one: object, other: object) -> None:
    assert (digest("x", one) == digest("x", other)) == (repr_json(one) == repr_json(other))


def repr_json(value: object) -> str:
    """An independent canonical form: type names keep 1, 1.0 and True apart, mappings are sorted."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{repr_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(repr_json, value)) + "]"
    return f"{type(value).__name__} {value!r}"


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest("x", float("nan"))


def test_an_artifact_key_depends_on_asset_code_sections_and_inputs() -> None:
    base = artifact_key("sae", 1, {"sae": "s"}, {"shards": "i"})
    others = {
        artifact_key("sas", 1, {"sae": "s"}, {"shards": "i"}),
        artifact_key("sae", 2, {"sae": "s"}, {"shards": "i"}),
        artifact_key("sae", 1, {"sae": "t"}, {"shards": "i"}),
        artifact_key("sae", 1, {"sae": "s"}, {"shards": "j"}),
        artifact_key("sae", 1, {"shards": "i"}, {"sae": "s"}),
    }
    assert len(others | {base}) == 6


def test_a_folder_digest_sees_names_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "a.txt").write_text("alpha")
    assert folder_digest(one) == folder_digest(other)
    (other / "inner" / "a.txt").rename(other / "inner" / "b.txt")
    renamed = folder_digest(other)
    (other / "inner" / "b.txt").write_text("alphb")
    assert len({folder_digest(one), renamed, folder_digest(other)}) == 3


def test_a_model_card_or_a_hidden_file_does_not_change_what_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = folder_digest(tmp_path)
    (tmp_path / "README.md").write_text("edited")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").write_text("")
    assert folder_digest(tmp_path) == before


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
def test_what_says_which_files_are_rows_changes_what_a_folder_is(tmp_path: Path, name: str) -> None:
    digests = [folder_digest(tmp_path)]
    for rows in "ab":
        (tmp_path / name).write_text(f"---\nconfigs:\n- data_files: {rows}.parquet\n---\n")
        digests.append(folder_digest(tmp_path))
    assert len(set(digests)) == 3


def test_the_prose_below_a_cards_settings_or_a_card_further_down_does_not_count(tmp_path: Path) -> None:
    settings = "---\nlicense: mit\n---\n"
    (tmp_path / "README.md").write_text(settings)
    before = folder_digest(tmp_path)
    (tmp_path / "README.md").write_text(settings + "edited\n---\nmore\n---\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "README.md").write_text("---\nconfigs: []\n---\n")
    assert folder_digest(tmp_path) == before


def test_the_digest_of_a_folder_without_settings_is_what_it_always_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "README.md").write_text("# A card\n---\nof prose\n---\n")
    assert folder_digest(tmp_path) == digest("folder", {"a.txt": hashlib.sha256(b"alpha").hexdigest()})


def test_a_section_version_sees_the_content_of_the_files_it_names() -> None:
    assert section_version("m", {"name": "x"}, {"x": "1"}) != section_version("m", {"name": "x"}, {"x": "2"})


def test_a_file_name_that_is_not_utf8_is_bad_input(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.json")).write_text("{}")
    with pytest.raises(BadInput, match=f"{tmp_path} holds a file whose name is not UTF-8: rename it"):
        fingerprints((str(tmp_path),))
