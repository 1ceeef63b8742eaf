"""What version 0.1 wrote: policies and figures are read, training state is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rllib_odac import ODAC, load_policy
from rllib_odac.experiments.spec import RunSpec, read_spec
from tests.system.commands import odac

EXPECTED = [-0.02322613, 0.03240208]  # by load_policy of version 0.1
RUN = Path(__file__).parent / "data" / "run_0_1"  # without the training state of its checkpoint
SENTENCE = (
    "is a checkpoint of rllib_odac 0.1, from which this version cannot go on: go on with version "
    "0.1 (revision ff4bbbb), or load its policy with load_policy or `odac export`, which read it "
    "as it is."
)


def test_its_policy_acts_as_it_did():
    place = np.array([0.5, -1.0], dtype=np.float32)
    names = ("observation", "achieved_goal", "desired_goal")
    action = load_policy(RUN)(dict.fromkeys(names, place))
    np.testing.assert_allclose(action, EXPECTED, rtol=1e-5)


def test_its_checkpoint_is_refused():
    with pytest.raises(ValueError, match="cannot go on") as info:
        ODAC.from_checkpoint(str(RUN / "checkpoint_final"))
    assert str(info.value) == f"'{RUN}/checkpoint_final' {SENTENCE}"


def test_its_run_is_not_resumed(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    arguments = ("--config", RUN / "config.json", "--steps", 900, "--resume")
    process = odac("train", *arguments, "--out", tmp_path / "run", check=False)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert SENTENCE in process.stderr


def test_its_settings_and_figures_are_read():
    spec = RunSpec(**read_spec(RUN / "config.json"))
    spec.config()
    assert spec.settings["checkpoint_replay"] is False
    progress = pd.read_csv(RUN / "progress.csv")
    summary = json.loads((RUN / "summary.json").read_text())
    assert progress["env_steps"].iloc[-1] == summary["env_steps"] == 600
