"""The page of a comparison and the files beside it."""

import re
from pathlib import Path

from assets.paper.comparison import Comparison
from dagster_project.compare import write_comparison
from resources.home import Home


def test_every_file_that_the_page_links_is_there(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("{}\n")
    numbers = [{"number": "KL", "a": 1.0, "b": 2.0}]
    point = {"experiment": "a", "k": 2, "l0": 2.0, "fvu": 0.1, "dominated": False}
    found = Comparison(numbers, numbers, [point, {**point, "experiment": "b"}], numbers, numbers)
    page = write_comparison(Home(tmp_path / "home", tmp_path), ["a", "b"], found)
    links = set(re.findall(r'href="((?:tables|charts)/[^"]+)"', page.read_text()))
    assert {Path(link).stem for link in links} == {"parameters", "numbers", "frontier", "stability", "agreement"}
    assert [link for link in links if not (page.parent / link).exists()] == []
