"""A machine whose locale is not UTF-8, as old clusters have (LANG=en_US, zh_CN.GBK): what is written can be read."""

import json
import os
import subprocess
import sys
from pathlib import Path

from resources.sources import PROJECT

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""The one locale without UTF-8 that every machine has; Python would make UTF-8 of it by itself."""
WRITTEN = """
import json, sys
from pathlib import Path
from assets.dashboard.chunks import write_index
from assets.paper.page import render_front
from assets.paper.tables import write_tables
from resources.charts import line_chart, save_chart
out = Path(sys.argv[1])
write_index(out / "index.js", {"token": "\\u6570"})
write_tables({"units": [{"token": "\\u6570"}]}, out)
save_chart(line_chart([{"step": 0.0, "loss": 1.0}], "loss", "\\u6570"), out, "loss")
print(json.dumps(render_front([], None)))
"""
TOLD = """
import click
from dagster_project.cli import main
from dagster_project.tables import text_table
@main.command()
def told():
    click.echo(text_table([{"token": "a\\u2192"}]))
main(["told"])
"""


def run(*command: str, **variables: str) -> str:
    environment = {**os.environ, **ASCII, "PYTHONPATH": str(PROJECT), **variables}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("latin-1")


def test_pages_tables_and_charts_are_utf8_whatever_the_locale_is(tmp_path: Path) -> None:
    front = json.loads(run("-c", WRITTEN, str(tmp_path)))
    assert 'content: "✓ "' in front
    for written in ("index.js", "units.csv", "charts/loss.svg"):
        assert "数" in (tmp_path / written).read_bytes().decode(), written


def test_a_terminal_that_lacks_the_signs_of_a_table_gets_question_marks_instead_of_a_stack_trace() -> None:
    told = run("-c", TOLD, PYTHONIOENCODING="latin-1")
    assert told.split() == ["token", "?" * len(told.split()[1]), "a?"]
