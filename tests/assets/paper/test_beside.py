"""Tables 1 and 2 fit a terminal of 100 columns, with each published number beside ours."""

from assets.paper.beside import asked, crossed, labelled, upright, value_and_interval
from dagster_project.tables import text_table

ROW = {
    "benchmark": "Mini hard (AIME'24 no figures)",
    "lora": "0.830 [0.772, 0.876]",
    "lora_paper": 0.5,
    "full_finetune": None,
    "full_finetune_paper": None,
    "recovery": "83.4 % [77.0, 89.6]",
    "recovery_paper": 0.7273,
}


def test_a_row_becomes_one_line_per_arm_with_the_papers_number_in_our_digits() -> None:
    assert upright([ROW]) == [
        {"benchmark": ROW["benchmark"], "arm": "LoRA", "measured": "0.830 [0.772, 0.876]", "paper": "0.500"},
        {"benchmark": "", "arm": "full finetune", "measured": "–", "paper": "–"},
        {"benchmark": "", "arm": "recovered", "measured": "83.4 % [77.0, 89.6]", "paper": "72.7 %"},
    ]


def test_nothing_wraps_at_100_columns() -> None:
    lines = text_table(upright([ROW, ROW]), "Table 1").splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) == 4 + 6
    assert sum("0.830 [0.772, 0.876]" in line and "0.500" in line for line in lines) == 2


def test_an_interval_is_told_from_its_value() -> None:
    assert value_and_interval("0.5 [0.3, 0.7]") == ("0.5", "[0.3, 0.7]")
    assert value_and_interval("arm missing") == ("arm missing", "")


def test_how_many_problems_and_units_stand_behind_a_share_is_said() -> None:
    scores = [
        {"benchmark": name, "arm": arm, "questions": n} for arm in "ab" for name, n in (("aime24", 30), ("x_y", 1500))
    ]
    assert asked(scores) == "aime24 30, x y 1,500"
    classes = [
        {"kind": "adapter", "explainer": "statistical", "label": 0, "n": 34},
        {"kind": "adapter", "explainer": "statistical", "label": 1, "n": 15},
        {"kind": "latent", "explainer": "statistical", "label": 0, "n": 7},
    ]
    assert labelled(classes) == "adapter directions 49, SAE latents 7"
    assert labelled([*classes, {**classes[2], "explainer": "openai/x"}]) == (
        "adapter directions by statistical 49, SAE latents by statistical 7, SAE latents by openai/x 7"
    )


def test_classes_of_two_explainers_are_crossed_with_every_class_named() -> None:
    counts = [(0, 0, 5), (0, -1, 2), (1, 2, 3)]
    found = crossed([{"llm": llm, "statistical": theirs, "units": units} for llm, theirs, units in counts])
    assert [row["LLM"] for row in found] == ["monosemantic", "broad but consistent", "polysemantic"]
    assert [list(row.values())[1:] for row in found] == [[5, 0, 0, 2], [0, 0, 3, 0], [0, 0, 0, 0]]
    assert list(found[0])[-1] == "statistical: insufficient"
