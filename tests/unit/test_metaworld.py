"""Meta-World's tasks by their names."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_odac import make_env

pytest.importorskip("metaworld", reason='needs pip install "rllib-odac[sawyer]"')


@pytest.mark.parametrize("task", ["drawer-open-v3", "reach-v3", "assembly-v3"])
def test_a_task_by_its_name_is_repeated_by_its_seed(task):
    env = make_env("odac/MetaWorld-v0", task=task)
    first, again, other = (env.reset(seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["desired_goal"], again["desired_goal"])
    np.testing.assert_array_equal(first["observation"], again["observation"])
    assert np.abs(first["desired_goal"] - other["desired_goal"]).max() > 1e-3
    env.reset(seed=1)
    observation, *_ = env.step(np.array([1, 0, 0, 0], np.float32))
    hand = observation["observation"][:3]
    place = hand if task == "reach-v3" else observation["observation"][4:7]
    np.testing.assert_array_equal(observation["achieved_goal"], place)
    env.close()


@pytest.mark.parametrize(
    ("task", "words"),
    [("hammer-v3", "has 2 objects, but must have one"), ("nothing", "'nothing', but must be in")],
)
def test_a_task_that_does_not_fit_is_refused_in_one_sentence(task, words):
    with pytest.raises(ValueError, match=words):
        make_env("odac/MetaWorld-v0", task=task)
