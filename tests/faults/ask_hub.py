"""Loads things from the hub that HF_ENDPOINT names and prints what came of each: python ask_hub.py FOLDER KIND/FAULT...

A process of its own, since the hub's address is read when its library is imported.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.utils import _http

from assets.adapter.published import take_model
from assets.dataset.config import DatasetConfig
from assets.dataset.source import load_source
from resources.errors import BadInput
from resources.models import ModelConfig, load_base, load_tokenizer
from tests.faults.hub import COMMIT


def load(kind: str, name: str, out: Path) -> None:
    model = ModelConfig(name=name, revision=COMMIT, dtype="float32")
    if kind == "tokenizer":
        load_tokenizer(model)
    elif kind == "model":
        load_base(model, "cpu")
    elif kind == "dataset":
        load_source(DatasetConfig(source=name, revision=COMMIT))
    else:
        out.mkdir()
        ours = ModelConfig(name="resources/mini_world/model", dtype="float32")
        take_model(name, COMMIT, ours, out)


def main() -> None:
    # The library's own pauses between its tries (23 s for each file) are not what is tested.
    unpausing = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
    pytest.MonkeyPatch().setattr(_http, "time", unpausing)
    found = {}
    for case in sys.argv[2:]:
        kind, fault = case.split("/")
        try:
            load(kind, f"someone/{fault}-{kind}", Path(sys.argv[1]) / f"{fault}-{kind}")
            found[case] = "works"
        except BadInput as error:
            found[case] = str(error)
    sys.stdout.write("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
