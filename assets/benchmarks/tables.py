"""Tables 1 and 2 of the paper from our scores, beside the published numbers."""

from collections.abc import Sequence
from typing import Any

from assets.benchmarks.config import RECOVERED, STAND_INS
from assets.benchmarks.published import TITLES, published
from assets.benchmarks.statistics import consistent

TABLE_1 = ("base", "lora", "full_finetune")
TABLE_2 = ("lora", "attention_ablated", "mlp_ablated")

Row = dict[str, Any]


def table_1(scores: Sequence[Row], recoveries: Sequence[Row]) -> list[Row]:
    """Base, LoRA, full finetune and recovery by benchmark (paper, Table 1); recovery always with its interval."""
    kept = {row["benchmark"]: row for row in recoveries if row["arm"] == "lora"}
    return [
        _row(name, scores, TABLE_1)
        | {"recovery": shown_recovery(kept.get(name)), "recovery_paper": RECOVERED.get(_published_name(name))}
        for name in _benchmarks(scores)
    ]


def table_2(scores: Sequence[Row]) -> list[Row]:
    """LoRA and its two ablations by benchmark (paper, Table 2)."""
    return [_row(name, scores, TABLE_2) for name in _benchmarks(scores)]


def consistency(scores: Sequence[Row]) -> list[Row]:
    """One row per score that the paper reports too: both counts, and whether they may be one rate (95 %)."""
    rows: list[Row] = []
    for row in scores:
        theirs = published(row["benchmark"], row["arm"])
        if theirs is None or row["score"] is None:
            continue
        ours = round(row["score"] * row["questions"])
        same = consistent((ours, row["questions"]), (theirs.correct, theirs.total))
        rows.append(
            {
                "benchmark": TITLES.get(row["benchmark"], row["benchmark"]),
                "arm": row["arm"],
                "ours": f"{ours}/{row['questions']}",
                "paper": f"{theirs.correct}/{theirs.total}",
                "consistent": same,
            }
        )
    return rows


def shown_recovery(row: Row | None) -> str:
    """Recovery in percent with its interval; why there is none otherwise."""
    if row is None:
        return "arm missing"
    if row["recovery"] is None:
        return "no gain to recover"
    if row["ci_low"] is None:
        return f"{_percent(row['recovery'])} % [not bounded: the full finetune's gain may be 0]"
    return f"{_percent(row['recovery'])} % [{_percent(row['ci_low'])}, {_percent(row['ci_high'])}]"


def _percent(share: float) -> str:
    """To a tenth; zero has no sign."""
    return f"{100 * share:z.1f}"


def _benchmarks(scores: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["benchmark"] for row in scores))


def _row(name: str, scores: Sequence[Row], arms: Sequence[str]) -> Row:
    """Our score of each arm on one benchmark, and the paper's."""
    found = {row["arm"]: row for row in scores if row["benchmark"] == name}
    row: Row = {"benchmark": _title(name)}
    for arm in arms:
        row[arm] = _shown_score(found.get(arm))
        theirs = published(_published_name(name), arm)
        row[f"{arm}_paper"] = None if theirs is None else round(theirs.score, 4)
    return row


def _published_name(name: str) -> str:
    """The paper's benchmark whose numbers stand beside ours."""
    return STAND_INS.get(name, name)


def _title(name: str) -> str:
    """`Mini hard (AIME'24 no figures)`: a stand-in names the benchmark whose numbers are printed beside it."""
    title = TITLES.get(name, name)
    return f"{title} ({TITLES[STAND_INS[name]]})" if name in STAND_INS else title


def _shown_score(row: Row | None) -> str | None:
    """`0.500 [0.332, 0.668]`."""
    if row is None:
        return None
    if row["score"] is None:
        return f"{row['correct'] / row['total']:.3f} to {row['highest']:.3f} ({row['ungraded']} ungraded)"
    return f"{row['score']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
