"""A user's own robot: a function that makes it, in this process and in remote env runners."""

from __future__ import annotations

import sys

import pytest
from ray import cloudpickle

from rllib_odac import goal_env
from rllib_odac.evaluation.checkpoint import CheckpointPolicy
from tests.conftest import small_config

pytestmark = pytest.mark.system
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests


def make_reacher(**kwargs):
    return goal_env(
        "Reacher-v5",
        observation=[0, 1, 2, 3, 6, 7],
        achieved_goal=lambda observation, env: env.unwrapped.get_body_com("fingertip")[:2],
        desired_goal=slice(4, 6),
        success_distance=0.02,
        **kwargs,
    )


def test_a_function_that_makes_the_environment_is_all_it_takes(ray_cluster, tmp_path):
    config = small_config().environment(make_reacher, env_config={"goal_scale": 0.2})
    assert config.goals.success_distance == 0.02
    algorithm = config.build_algo()
    result = algorithm.train()["evaluation"]["env_runners"]
    assert 0 < result["final_distance"] < 0.5
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    with pytest.raises(ValueError, match=r"names env as objects of Python.*trust"):
        CheckpointPolicy(tmp_path / "checkpoint")
    held_out = CheckpointPolicy(tmp_path / "checkpoint", trust=True).evaluate(2)  # it has it along
    assert 0 < held_out["final_distance"] < 0.5

    remote = small_config().environment(make_reacher).env_runners(num_env_runners=1).build_algo()
    remote.train()
    assert remote.env_steps >= 400
    remote.stop()
