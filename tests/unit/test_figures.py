"""Charts and tables of README and documentation are those of the committed rows."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_rows(figures):
    for page in figures.PAGES:
        text = (ROOT / page).read_text()
        assert figures.with_tables(text) == text, f"{page}: run python docs/figures.py"
    pages = "".join((ROOT / page).read_text() for page in figures.PAGES)
    assert all(f"<!-- table: {name} -->" in pages for name in figures.tables())


def test_charts_are_those_of_the_rows(figures, tmp_path):
    for path in figures.draw(tmp_path):
        drawn, committed = imread(path), imread(ROOT / "docs" / "images" / path.name)
        assert drawn.shape == committed.shape, f"{path.name}: run python docs/figures.py"
        # Other versions of the libraries below draw edges a little differently.
        assert np.abs(drawn - committed).mean() < 0.005, f"{path.name}: run docs/figures.py"


def test_every_tuned_task_has_its_section_and_pictures(figures):
    from rllib_odac.tuned import DIRECTORY

    assert set(figures.TUNED) == {path.stem for path in DIRECTORY.glob("*.json")}
    for name in re.findall(r"\]\((images/.+?)\)", (ROOT / "docs" / "tuned.md").read_text()):
        assert imread(ROOT / "docs" / name).std() > 0.01, name  # not one colour
