"""The examples, as a user runs them but for fewer steps."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(ray_cluster, tmp_path, monkeypatch, capsys):
    """Runs an example in an empty directory and gives the lines that it prints."""

    def run_example(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    monkeypatch.chdir(tmp_path)
    return run_example


def test_an_own_environment_is_trained_and_its_policy_acts_without_ray(run, tmp_path):
    trained = run("own_environment.py", "--steps", 600)
    assert trained[0].startswith("600 steps: ")
    assert trained[-1] == str(tmp_path / "runs" / "own_environment")
    process = subprocess.run(  # of its own: it asserts that Ray is not imported
        [sys.executable, EXAMPLES / "load_and_act.py", "--episodes", "3"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    acted = process.stdout.splitlines()
    assert acted[0].endswith("make_reacher, 600 steps")
    assert len(acted) == 4


def test_an_own_objective(run):
    assert run("own_objective.py", "--steps", 600)[-1].startswith("600 steps: ")


@pytest.mark.slow
def test_resuming(run):
    first, second, result = run("resume.py", "--steps", 600)  # asserts that nothing differs
    assert first.endswith(": 600 steps, 50 updates")
    assert second == "1200 steps, 350 updates"
    assert result.endswith("reached, with the break and without")


def test_every_example_is_run_here():
    text = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text] == []
