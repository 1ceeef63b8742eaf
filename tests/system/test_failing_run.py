"""`odac train` when the environment breaks: one sentence, and nothing learned is lost."""

from __future__ import annotations

import os

import pytest

from tests.system.commands import BOX, odac_process

pytestmark = pytest.mark.system

BREAKS = """
import gymnasium as gym

from rllib_odac import make_env


class Breaks(gym.Wrapper):
    steps = 0  # of all in a process

    def step(self, action):
        Breaks.steps += 1
        if Breaks.steps == 900:
            raise OSError("the simulator lost its connection")
        return super().step(action)


def make(**_):
    return Breaks(make_env("odac/Box2D-v0"))


gym.register("Breaks-v0", entry_point=make, max_episode_steps=50)
"""


@pytest.mark.long
def test_what_was_learned_is_saved_and_the_traceback_is_for_those_who_ask(tmp_path, monkeypatch):
    (tmp_path / "breaks.py").write_text(BREAKS)
    paths = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    out = tmp_path / "run"
    arguments = ["train", "breaks:Breaks-v0", *BOX[1:], "--out", out]
    process = odac_process(*arguments, check=False)
    assert process.returncode == 2
    going_on, error = process.stderr.splitlines()
    assert error == "error: the simulator lost its connection"
    assert going_on.startswith("stopped at 500 environment steps; go on with: odac train --config")
    assert (out / "checkpoints" / "step_000000500" / "odac.json").is_file()
    process = odac_process(*arguments, "--resume", "--debug", check=False)
    assert process.returncode != 0
    assert "Traceback" in process.stderr
    assert "stopped at 1000 environment steps" in process.stderr
