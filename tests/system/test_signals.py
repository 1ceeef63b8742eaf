"""SIGINT and SIGTERM to `odac train`: a clean stop with a checkpoint, and no process left."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess

import psutil
import pytest

from tests.system.commands import BOX, odac, start_odac, wait_for
from tests.system.test_command_line import read_run

pytestmark = pytest.mark.system

LONG = [*BOX, "--steps", "100000000", "--evaluation-episodes", "2"]


def start(out, *arguments):
    """A training that ends only if it is told to, and its child processes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = start_odac("train", *LONG, "--out", out, *arguments, **pipes)
    wait_for(lambda: num_rows(out) >= 2)
    return process, psutil.Process(process.pid).children(recursive=True)


def num_rows(out):
    progress = out / "progress.csv"
    return len(progress.read_text().splitlines()) - 1 if progress.is_file() else 0


def are_gone(children):
    return not psutil.wait_procs(children, timeout=20)[1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        pytest.param(signal.SIGTERM, (), marks=pytest.mark.slow),
        (signal.SIGINT, ("--num-env-runners", "1", "--num-learners", "1")),
    ],
    ids=["one process", "three processes"],
)
def test_a_signal_stops_with_a_checkpoint_and_says_how_to_go_on(tmp_path, number, arguments):
    out = tmp_path / "a run"
    process, children = start(out, *arguments)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends it to Ray's processes too
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + number
    stopping, going_on = [line for line in errors.splitlines() if "core_worker.cc" not in line]
    assert stopping == "stopping after a checkpoint; once more stops at once"
    before, command = going_on.split("; go on with: odac ")
    assert are_gone(children)
    newest = max((out / "checkpoints").iterdir())
    saved = int(newest.name.removeprefix("step_"))
    assert before == f"stopped at {saved} environment steps"
    assert saved > 500
    assert not (out / "summary.json").exists()

    odac(*shlex.split(command), "--steps", saved + 500)
    progress, summary = read_run(out)
    assert saved + 500 <= summary["env_steps"] <= saved + 600
    assert progress["env_steps"].is_monotonic_increasing
    assert summary["updates"] == int((summary["env_steps"] - 500) * 0.1)


@pytest.mark.slow
def test_a_second_signal_stops_at_once(tmp_path):
    process, children = start(tmp_path / "run", "--num-env-runners", "1")
    process.send_signal(signal.SIGTERM)
    while "stopping after a checkpoint" not in process.stderr.readline():
        pass  # what Ray's core says
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 128 + signal.SIGINT
    assert are_gone(children)
