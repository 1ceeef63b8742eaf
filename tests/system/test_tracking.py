"""`odac train --wandb --mlflow`: real libraries, which write to files of this machine."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from tests.system.commands import BOX, odac

pytestmark = pytest.mark.system


def first_logged_by_wandb(file) -> float:
    """The first success rate in a run's file, which nothing but a server of theirs reads."""
    logged = re.search(rb"evaluation/success_rate\x82\x01.([0-9.e-]+)", file.read_bytes())
    return float(logged[1])


def test_progress_is_logged_and_a_resumed_run_goes_on_there(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    asked = ("--out", "run", "--wandb", "a project", "--mlflow", "an experiment")
    odac("train", *BOX, "--steps", 1000, *asked, cwd=tmp_path)
    begun = (tmp_path / "run" / "tracking.json").read_text()
    odac("train", "--steps", 1500, "--resume", *asked, cwd=tmp_path)
    assert (tmp_path / "run" / "tracking.json").read_text() == begun

    rows = pd.read_csv(tmp_path / "run" / "progress.csv")
    names = json.loads(begun)
    history = mlflow.MlflowClient().get_metric_history(names["mlflow"], "evaluation/success_rate")
    by_step = {metric.step: metric.value for metric in history}
    assert by_step == dict(zip(rows["env_steps"], rows["success_rate"], strict=True))
    run = mlflow.get_run(names["mlflow"])
    assert run.info.status == "FINISHED"
    assert run.data.params["env"] == "odac/Box2D-v0"
    assert run.data.params["updates_per_env_step"] == "0.1"

    files = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{names['wandb']}.wandb"))
    assert [first_logged_by_wandb(file) for file in files] == [by_step[500], by_step[1500]]


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_tracker_that_is_missing_is_named_before_anything_starts(tmp_path, monkeypatch, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = odac("train", *BOX, f"--{package}", "x", "--out", tmp_path / "run", check=False)
    assert told.returncode == 2
    assert told.stderr == (
        f"error: {package} is 'x', which needs the package '{package}', not installed here: pip "
        'install "rllib-odac[tracking]"\n'
    )
    assert not (tmp_path / "run").exists()
