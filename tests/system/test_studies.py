"""`odac study` as a user runs it: whole, killed, started again; then `odac compare`."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import time

import pandas as pd
import psutil
import pytest

from tests.system.commands import odac, start_odac, wait_for

pytestmark = pytest.mark.system

STUDY = {
    "tasks": {
        "box": {
            **{"env": "odac/Box2D-v0", "steps": 800, "evaluate_every": 200},
            **{"evaluation_episodes": 2, "final_episodes": 2, "checkpoint_every": 200},
            "settings": {
                **{"hidden": [16, 16], "train_batch_size_per_learner": 16},
                **{"num_envs_per_env_runner": 2, "updates_per_env_step": 0.1},
                **{"num_steps_before_learning": 100, "num_initial_random_steps": 100},
            },
        }
    },
    "methods": {"odac": {}, "her": {"objective": "her"}},
    "seeds": 1,
}
NAMES = ("box-odac-0", "box-her-0")


def write_study(path, **fields):
    path.write_text(json.dumps(STUDY | fields))  # which is YAML too
    return path


def read_rows(out):
    """The rows but for the wall time and the runs at once, as they were written."""
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("wall_s", "jobs")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    out = folder / "out"
    process = odac("study", write_study(folder / "tiny.yaml"), "--out", out, "--jobs", 2)
    return out, process


def test_a_study_leaves_what_it_promises(whole):
    out, process = whole
    assert process.stderr == ""
    *lines, path = process.stdout.splitlines()
    assert path == str(out / "results.csv")
    assert len(lines) == 4
    assert {line for line in lines if line.endswith("starts")} >= {"box odac seed 0: starts"}
    assert [line.split()[0] for line in lines if "success" in line] == ["1/2", "2/2"]
    rows = read_rows(out)
    assert [f"{row['task']}-{row['method']}-{row['seed']}" for row in rows] == [*NAMES]
    for name, row in zip(NAMES, rows, strict=True):
        assert int(row["updates"]) > 30
        assert (row["env_steps"], row["evaluation_episodes"]) == ("800", "2")
        progress = (out / "runs" / name / "progress.csv").read_text()
        assert (out / "curves" / f"{name}.csv").read_text() == progress
        assert (out / "runs" / name / "checkpoint_final").is_dir()
    assert odac("study", out.parent / "tiny.yaml", "--out", out, "--missing").stdout == ""


@pytest.mark.long
def test_a_killed_study_ends_as_one_left_alone(whole, tmp_path):
    study, out = write_study(tmp_path / "tiny.yaml"), tmp_path / "out"
    process = start_odac("study", study, "--out", out, "--jobs", 1, stdout=subprocess.DEVNULL)
    # In the midst of the second run, the first having ended.
    wait_for((out / "results.csv").exists)
    wait_for(lambda: list(out.glob("runs/box-her-*/checkpoints/step_*[0-9]")))
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.name() == "ray::train_run"
    ]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(read_rows(out))
    assert before == 1
    assert workers
    deadline = time.monotonic() + 40
    while any(map(is_alive, workers)):  # they train no longer, with Ray gone
        assert time.monotonic() < deadline
        time.sleep(0.1)
    missing = odac("study", study, "--out", out, "--missing").stdout.splitlines()
    assert len(missing) == 1
    again = odac("study", study, "--out", out, "--jobs", 2)
    assert sorted(line.split(":")[0] for line in again.stdout.splitlines() if "starts" in line) == (
        sorted(missing)
    )
    assert read_rows(out) == read_rows(whole[0])
    for name in NAMES:
        first, second = (
            pd.read_csv(path / "curves" / f"{name}.csv").drop(columns="wall_s")
            for path in (out, whole[0])
        )
        pd.testing.assert_frame_equal(first, second)


def is_alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_one_failure_stops_no_other_and_finished_runs_are_picked_up(whole, tmp_path):
    """A second study with the same runs: one is damaged, the others are not made again."""
    study = write_study(tmp_path / "other.yaml", labels={"odac": "ODAC"})
    runs = whole[0] / "runs"
    stored = runs / "box-odac-0" / "config.json"
    content = stored.read_text()
    stored.write_text(content.replace('"steps": 800', '"steps": 900'))
    arguments = ("study", study, "--out", tmp_path / "out", "--runs", runs, "--jobs", 2)
    process = odac(*arguments, check=False)
    stored.write_text(content)
    assert process.returncode == 1
    assert "box odac seed 0: failed" in process.stdout
    assert process.stderr.count("\n") == 1
    assert "error: box odac seed 0: steps is 800, but the run in" in process.stderr
    assert read_rows(tmp_path / "out") == read_rows(whole[0])[1:]
    times = [pd.read_csv(out / "results.csv")["wall_s"] for out in (tmp_path / "out", whole[0])]
    assert times[0][0] == times[1][1]
    text = odac("compare", whole[0], "--baseline", "her", "--out", tmp_path / "compared").stdout
    assert "P(her is better)" in text
    assert (tmp_path / "compared" / "compare.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["study", "tiny.yaml", "--jobs", "0"], "jobs is 0, but must be at least 1"),
        (["study", "tiny.yaml", "--method", "sac"], "method has 'sac', but must use one of"),
        (["study", "bad.yaml"], "box/odac: There is no setting 'tua'; did you mean tau?"),
        (["study", "nowhere.yaml"], "'nowhere.yaml', which does not exist"),
        (["compare", "nowhere"], "'nowhere' holds no run, no sweep and no results of a study"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path, arguments, sentence):
    write_study(tmp_path / "tiny.yaml")
    write_study(tmp_path / "bad.yaml", methods={"odac": {"settings": {"tua": 1}}})
    process = odac(*arguments, cwd=tmp_path, check=False, ray=False)
    assert process.returncode == 2
    assert sentence in process.stderr
    assert process.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "tiny.yaml"]
