"""What the report's checks say of its claims."""

import dagster as dg

from assets.paper.asset import CHECKS
from assets.paper.claims import CLAIMS, Measurement
from assets.paper.report import claim_rows


def judged(measured: dict[str, float], *, comparable: bool) -> dict[str, dg.AssetCheckResult]:
    """The checks of a report in which these claims were measured, and no others."""
    found = {c.id: Measurement(measured[c.id], None, None, "a") if c.id in measured else None for c in CLAIMS}
    metrics = {"claims": claim_rows(found, comparable=comparable)}
    return {check.name: check.judge(metrics) for check in CHECKS}


def test_a_claim_that_was_not_measured_or_cannot_be_compared_is_no_difference() -> None:
    # Recovery on AIME'24 is a number of the paper's own model, so another model's is neither right nor wrong.
    found = judged({"recovery_hard": 0.1}, comparable=False)
    assert all(result.passed for result in found.values())
    assert found["features"].description == "none of 6 differs"


def test_a_claim_that_differs_warns_in_its_own_part_with_both_numbers_as_a_person_reads_them() -> None:
    measured = {"recovery_hard": 0.1, "sae_live": 1950, "latents_broad": 0.5, "gate_strongest": 0.8}
    off = {name: result for name, result in judged(measured, comparable=True).items() if not result.passed}
    assert {result.severity for result in off.values()} == {dg.AssetCheckSeverity.WARN}
    assert {name: result.description for name, result in off.items()} == {
        "adapter": "Recovered gain on AIME'24 (mini world: hard): the paper has 72.73 %, measured 10 %; "
        "KL of gate_proj over that of the strongest other projection: the paper has above 1, measured 0.8",
        "features": "Broad but consistent latents (class 1): the paper has 22 %, measured 50 %",
    }


def test_the_checks_show_every_claim_once() -> None:
    shown: dict[str, tuple[object, ...]] = {}
    for result in judged({"sae_live": 1950}, comparable=True).values():
        table = result.metadata["claims"]
        assert isinstance(table, dg.TableMetadataValue)
        rows = [record.data for record in table.records]
        assert not set(shown) & {row["id"] for row in rows}
        shown |= {str(row["id"]): (row["verdict"], row["expected"], row["measured"], row["low"]) for row in rows}
    assert set(shown) == {claim.id for claim in CLAIMS}
    assert shown["sae_live"] == ("reproduced", "2,000", "1,950", "–")
    assert shown["latents_broad"] == ("not measured", "22 %", "–", "–")
