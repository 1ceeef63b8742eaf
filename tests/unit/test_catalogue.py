"""The catalogue tells the truth about the environments, which it does not make."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rllib_odac.envs import known_env_ids, make_env
from rllib_odac.envs.catalogue import CATALOGUE, describe_envs, env_facts
from rllib_odac.envs.goals import goals_of
from rllib_odac.envs.registry import OWN_ENVS

SOME_ROBOTS = (
    *("FetchReach-v4", "FetchSlide-v4", "FetchPickAndPlace-v4", "PointMaze_UMaze-v3"),
    *("AntMaze_UMaze-v5", "HandReach-v3", "HandManipulatePen-v1", "HandManipulateBlock-v1"),
)


@pytest.mark.parametrize("env_id", [*OWN_ENVS, *SOME_ROBOTS])
def test_facts_are_true(env_id):
    facts = env_facts(env_id)
    if not facts.is_installed:
        pytest.skip(f"needs {facts.package}")
    env = make_env(env_id)
    try:
        task = env.unwrapped
        assert env.observation_space["desired_goal"].shape == (facts.goal_dim,)
        assert getattr(task, "units", facts.units) == facts.units
        if facts.success_distance is not None:
            assert goals_of(task).success_distance == facts.success_distance
        assert getattr(task, "rotation_threshold", None) == facts.success_angle
        state, _ = env.reset(seed=0)
        if facts.success_angle is None and env_id not in OWN_ENVS:
            # Those without an attribute are judged where their reward changes.
            goal = state["desired_goal"]
            for share, reached in ((0.99, True), (1.01, False)):
                way = np.zeros_like(goal)
                way[0] = share * facts.success_distance
                reward = env.get_wrapper_attr("compute_reward")(goal + way, goal, {})
                assert (reward == env.get_wrapper_attr("compute_reward")(goal, goal, {})) == reached
    finally:
        env.close()


def test_rotating_hands_do_not_mind_where_the_object_is():
    env = make_env("HandManipulateEggRotate-v1")
    goal = env.reset(seed=0)[0]["desired_goal"]
    far = goal + np.eye(7)[0]
    assert env_facts("HandManipulateEggRotate-v1").success == "0.1 rad"
    assert env.unwrapped.compute_reward(far, goal, {}) == 0
    env.close()


def test_every_environment_has_a_row_and_every_row_an_environment():
    rows = describe_envs()
    assert [row["id"] for row in rows] == known_env_ids()
    assert set(map(env_facts, known_env_ids())) == set(CATALOGUE.values())
    assert OWN_ENVS.keys() <= CATALOGUE.keys()
    with pytest.raises(KeyError, match="CartPole"):
        env_facts("CartPole-v1")
    for row in rows:
        assert row["horizon"] >= 16
        assert row["installed"] == (row["install"] is None)


def test_what_is_missing_is_listed_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)  # as if it were not installed
    rows = {row["id"]: row for row in describe_envs()}
    sawyer = rows["odac/SawyerPush-v0"]
    assert not sawyer["installed"]
    assert sawyer["install"] == 'pip install "rllib-odac[sawyer]"'
    assert sawyer["horizon"] == 100
    assert rows["odac/Box2D-v0"]["installed"]


def test_describing_makes_nothing():
    code = """
import sys, gymnasium
from rllib_odac.envs.goals import goals_of
from rllib_odac.envs.catalogue import describe_envs
gymnasium.make = None
assert describe_envs()
assert not {"ray", "torch", "metaworld"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
