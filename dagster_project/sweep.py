"""Write the experiment files of a sweep: variants of one parent, one for every combination of some knobs' values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from dagster_project.experiment import Experiment, Experiments
from resources.errors import BadInput, quoted
from resources.keys import digest
from resources.whole import write_whole

MOST = 1000
"""Files of one sweep; a slip of the pen should not register more partitions."""
_KNOB = re.compile(r"(?P<section>\w+)\.(?P<name>\w+)=(?P<values>.+)")
_VALUE = re.compile(r"[A-Za-z0-9._+-]+")
"""What may also stand in a file's name."""


@dataclass(frozen=True)
class Knob:
    """One knob and the values that it takes, as they are written in YAML."""

    section: str
    name: str
    values: tuple[str, ...]


def parse_knob(text: str) -> Knob:
    """`sae.k=2,4,8`.

    Raises:
        BadInput: for anything else.
    """
    found = _KNOB.fullmatch(text)
    values = tuple(dict.fromkeys(found["values"].split(","))) if found else ()
    if found is None or not all(map(_VALUE.fullmatch, values)):
        raise BadInput(f"{quoted(text)} is no knob with values: write it like sae.k=2,4,8")
    return Knob(found["section"], found["name"], values)


def write_sweep(experiments: Experiments, parent: str, knobs: Sequence[Knob]) -> list[str]:
    """Write `<parent>-<knob><value>-….yaml` for every combination, unless it is there; returns the names.

    Raises:
        BadInput: when the parent or a combination is no valid experiment, a file of that name says something else, two
            combinations are one, or there are more than 1,000; then, as when the disk is full, no file is left behind.
    """
    experiments.load(parent)
    texts = dict(_combinations(parent, knobs))
    if len(texts) > MOST:
        raise BadInput(
            f"this sweep has {len(texts)} experiments, at most {MOST} are written at once: take fewer values"
        )
    paths = {experiments.folder / f"{name}.yaml": text for name, text in texts.items()}
    other = [path.name for path, text in paths.items() if path.exists() and path.read_text() != text]
    if other:
        raise BadInput(f"{other[0]} exists and says something else: rename it, or remove it first")
    new = [path for path in paths if not path.exists()]
    try:
        for path in new:
            write_whole(path, paths[path])  # the sensor of the UI reads this folder
        _check_distinct({name: experiments.load(name) for name in texts})
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    return list(texts)


def _check_distinct(written: Mapping[str, Experiment]) -> None:
    seen: dict[str, str] = {}
    for name, experiment in written.items():
        values = {section: dict(experiment.values(section)) for section in experiment.sections}
        twin = seen.setdefault(digest("experiment", values), name)
        if twin != name:
            raise BadInput(f"{twin} and {name} are the same experiment, written twice: leave one of the values out")


def _combinations(parent: str, knobs: Sequence[Knob]) -> Iterable[tuple[str, str]]:
    """Name and text of each file; a knob that several sections have is named with its section."""
    names = [knob.name for knob in knobs]
    labels = [f"{knob.section}.{knob.name}" if names.count(knob.name) > 1 else knob.name for knob in knobs]
    for values in product(*(knob.values for knob in knobs)):
        chosen = list(zip(knobs, values, strict=True))
        name = "-".join([parent, *(f"{label}{value}" for label, value in zip(labels, values, strict=True))])
        sections: dict[str, list[str]] = {}
        for knob, value in chosen:
            sections.setdefault(knob.section, []).append(f"  {knob.name}: {value}\n")
        body = "".join(f"{section}:\n{''.join(lines)}" for section, lines in sections.items())
        yield name, f"extends: {parent}\n{body}"
