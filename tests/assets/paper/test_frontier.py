"""The frontier: every SAE is named, and the line passes only through those that no other beats."""

from assets.paper.frontier import frontier_chart


def test_every_sae_is_named_and_only_unbeaten_ones_are_joined() -> None:
    rows = [
        {"experiment": "b", "k": 4, "l0": 4.0, "fvu": 0.4, "measured_on": "01234567", "dominated": False},
        {"experiment": "a", "k": 8, "l0": 8.0, "fvu": 0.2, "measured_on": "01234567", "dominated": False},
        {"experiment": "c", "k": 9, "l0": 8.5, "fvu": 0.3, "measured_on": "01234567", "dominated": True},
    ]
    chart = frontier_chart(rows).to_dict()
    line, points, names = chart["layer"]
    assert line["mark"]["type"] == "line"
    assert line["transform"] == [{"filter": "!datum.dominated"}]
    assert names["encoding"]["text"]["field"] == "experiment"
    assert points["encoding"]["color"]["field"] == points["encoding"]["shape"]["field"] == "state"
    states = {row["experiment"]: row["state"] for row in chart["data"]["values"]}
    assert states == {"a": "best at its L0", "b": "best at its L0", "c": "beaten in both"}


def test_names_of_saes_that_hardly_differ_stand_above_each_other() -> None:
    same = {"k": 8, "measured_on": "01234567", "dominated": False}
    places = {"seed-1": (8.0, 0.3), "seed-2": (8.001, 0.3), "seed-3": (8.0, 0.3001), "k-16": (16.0, 0.2)}
    rows = [{**same, "experiment": name, "l0": l0, "fvu": fvu} for name, (l0, fvu) in places.items()]
    chart = frontier_chart(rows).to_dict()
    assert [row["line"] for row in chart["data"]["values"]] == [0, 1, 2, 0]
    assert chart["layer"][2]["mark"]["dy"]["expr"].endswith("* datum.line")
