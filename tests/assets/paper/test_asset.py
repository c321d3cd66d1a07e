"""What the report's check says of its claims."""

import dagster as dg

from assets.paper.asset import CHECKS
from assets.paper.claims import CLAIMS, Measurement
from assets.paper.report import claim_rows


def judged(measured: dict[str, float], *, comparable: bool) -> dg.AssetCheckResult:
    """The check of a report in which these claims were measured, and no others."""
    return checked({name: Measurement(value, None, None, "a") for name, value in measured.items()}, comparable)


def checked(measured: dict[str, Measurement], comparable: bool) -> dg.AssetCheckResult:
    found = {claim.id: measured.get(claim.id) for claim in CLAIMS}
    [check] = CHECKS
    return check.judge({"claims": claim_rows(found, comparable=comparable)})


def test_a_claim_that_was_not_measured_or_cannot_be_compared_is_no_difference() -> None:
    # Recovery on AIME'24 is a number of the paper's own model, so another model's is neither right nor wrong.
    result = judged({"recovery_hard": 0.1}, comparable=False)
    assert result.passed
    assert result.description == "none of 14 differs"


def test_a_claim_that_differs_warns_with_both_numbers_as_a_person_reads_them() -> None:
    measured = {"recovery_hard": 0.1, "sae_live": 1950, "latents_broad": 0.5, "gate_strongest": 0.8}
    result = judged(measured, comparable=True)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == (
        "3 of 14 differ: Recovered gain on AIME'24 (mini world: hard): the paper has 72.7 %, measured 10 %; "
        "Mean KL of single gate_proj components over that of the strongest other projection: the paper has above 1, "
        "measured 0.8; "
        "Broad but consistent latents (class 1): the paper has 22 %, measured 50 %"
    )


def test_the_check_shows_every_claim_once() -> None:
    table = judged({"sae_live": 1950}, comparable=True).metadata["claims"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [record.data for record in table.records]
    shown = {row["id"]: (row["verdict"], row["expected"], row["measured"], row["low"]) for row in rows}
    assert [row["id"] for row in rows] == [claim.id for claim in CLAIMS]
    assert shown["sae_live"] == ("reproduced", "2,000", "1,950", "–")
    assert shown["latents_broad"] == ("not measured", "22 %", "–", "–")


def test_a_claim_without_bounds_is_no_difference_and_says_so_where_its_interval_would_stand() -> None:
    result = checked({"recovery_choice": Measurement(0.85, None, None, "a", unbounded=True)}, comparable=True)
    assert result.passed
    assert result.description == "none of 14 differs"
    table = result.metadata["claims"]
    assert isinstance(table, dg.TableMetadataValue)
    [row] = [record.data for record in table.records if record.data["id"] == "recovery_choice"]
    assert [row[name] for name in ("verdict", "measured", "low", "high")] == [
        "not bounded",
        "85 %",
        "not bounded",
        "not bounded",
    ]
