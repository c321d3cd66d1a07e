"""What an experiment set otherwise than the defaults, which are the paper's values where the paper has them."""

from collections.abc import Iterable

from pydantic import JsonValue

from assets.sections import SECTIONS
from resources.manifest import Manifest
from resources.section import written


def settings(manifests: Iterable[Manifest]) -> list[dict[str, str]]:
    """Rows of setting, here and default, in the rooms' order; the manifests are of one experiment."""
    here: dict[str, dict[str, JsonValue]] = {}
    for manifest in manifests:
        here |= manifest.sections
    return [
        {"setting": f"{section}.{knob}", "here": written(value), "default": written(default)}
        for section, kind in SECTIONS.items()
        for knob, default in kind().model_dump(mode="json").items()
        if (value := here.get(section, {}).get(knob, default)) != default
    ]
