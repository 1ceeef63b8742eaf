"""`goal_env` of an environment of one's own: how it is handed on, what comes along, what stays."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import (
    FlattenObservation,
    OrderEnforcing,
    PassiveEnvChecker,
    RescaleAction,
    TimeLimit,
)

from rllib_odac import goal_env, make_env, make_vector_env
from rllib_odac.envs.adapter import AdaptedEnv
from rllib_odac.envs.base import GoalEnv
from tests.robots import HORIZON, PENDULUM, ROBOT, Robot, rollout


def first_two(observation: Any, env: Any) -> Any:
    return observation[:2]


def make_robot(**kwargs: Any) -> gym.Env:
    return goal_env(Robot, **ROBOT, **kwargs)


def make_limited(**kwargs: Any) -> gym.Env:
    return goal_env(Robot, **ROBOT, max_episode_steps=HORIZON, **kwargs)


@pytest.fixture(params=["callable", "id"])
def specifier(request):
    """`make_limited` in the two ways in which a user hands it on."""
    if request.param == "callable":
        yield make_limited
        return
    gym.register("test/Robot-v0", entry_point=make_limited)
    yield "test/Robot-v0"
    del gym.registry["test/Robot-v0"]


def test_through_make_env(specifier):
    env = make_env(specifier, render_mode="rgb_array", edge=8.0)
    assert type(env.unwrapped) is AdaptedEnv
    assert env.unwrapped.simulator.edge == 8.0
    assert env.spec.max_episode_steps == HORIZON
    assert env.render_mode == "rgb_array"
    env.reset(seed=0)
    assert env.render().shape == (2, 2, 3)
    assert len(rollout(env, seed=0)["reward"]) == HORIZON
    env.close()
    assert env.unwrapped.simulator.closed


def test_through_make_vector_env(specifier):
    env = make_vector_env(specifier, 3)
    assert isinstance(env, SyncVectorEnv)
    observation, _ = env.reset(seed=0)
    assert observation["desired_goal"].shape == (3, 2)
    for i in range(HORIZON):
        _, reward, terminated, truncated, _ = env.step(np.zeros((3, 2), np.float32))
        assert reward.shape == (3,)
        assert not terminated.any()
        assert truncated.all() == (i == HORIZON - 1)


def test_configuration_asks_for_a_horizon():
    from rllib_odac import ODACConfig

    ODACConfig().environment(make_limited).check_environment()
    with pytest.raises(ValueError, match="has no time limit"):
        ODACConfig().environment(make_robot, env_config={"edge": np.inf}).check_environment()


def test_falls_are_passed_on():
    env = goal_env(Robot, **ROBOT, edge=2.0)
    assert env.unwrapped is env  # no horizon, no limit
    env.reset(seed=0)
    falls = [env.step(np.array([1.0, 0.0]))[2] for _ in range(20)]
    assert falls[-1]
    assert not falls[0]
    assert type(falls[0]) is bool


def test_goals_from_a_box():
    low, high = np.array([-1.0, 0.1]), np.array([1.0, 0.7])
    arguments = ROBOT | {"desired_goal": Box(low, high, dtype=np.float64)}
    env = goal_env(Robot, **arguments)
    assert np.allclose(env.observation_space["desired_goal"].low, low)
    resets = [env.reset(seed=seed)[0] for seed in range(200)]
    goals, starts = (np.stack([o[k] for o in resets]) for k in ("desired_goal", "achieved_goal"))
    assert all(env.observation_space["desired_goal"].contains(goal) for goal in goals)
    assert goals.std(0) == pytest.approx((high - low) / np.sqrt(12), rel=0.15)
    # The simulator has the same seed, but goals may not go along with where it starts.
    assert abs(np.corrcoef(goals[:, 0], starts[:, 0])[0, 1]) < 0.25
    env.reset(seed=0)
    unseeded = [env.reset()[0]["desired_goal"] for _ in range(2)]
    assert not np.array_equal(*unseeded)
    env.reset(seed=0)
    assert np.array_equal(unseeded, [env.reset()[0]["desired_goal"] for _ in range(2)])
    env.reset(options={"goal": [0.0, 0.5]})
    with pytest.raises(ValueError, match="is outside the goal space"):
        env.reset(options={"goal": [0.0, 0.9]})


def test_info_of_the_environment_comes_along():
    env = goal_env(Robot, **ROBOT)
    env.reset(seed=0)
    info = env.step(np.zeros(2))[4]
    assert info.keys() == {"mine", "is_success", "final_distance"}
    assert info["is_success"] is False  # judged here


def test_units_and_scale():
    env = goal_env(Robot, **ROBOT, goal_scale=2, units="cm").unwrapped
    assert (env.goals.success_distance, env.goals.scale, env.goals.units) == (0.5, 2, "cm")


def test_pickle_needs_only_functions_of_modules():
    env = goal_env(Robot, **ROBOT | {"observation": first_two}, edge=7.0, max_episode_steps=3)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.unwrapped.simulator.edge == 7.0
    assert np.array_equal(rollout(env, 0)["observation"], rollout(copy, 0)["observation"])
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(goal_env(lambda edge=1.0: Robot(edge), **ROBOT))


def test_it_is_a_goal_env_of_ours():
    assert isinstance(make_robot(), GoalEnv)


def test_a_robots_own_methods_are_left_alone():
    class Own(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (3,))
        action_space = gym.spaces.Box(-1, 1, (1,))

        def reset_target(self):
            return np.zeros(3, np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.reset_target(), {}

    pick = {"achieved_goal": slice(0, 1), "desired_goal": slice(1, 2)}
    env = goal_env(Own(), **pick, success_distance=0.1)
    assert env.reset(seed=0)[0]["observation"].tolist() == [0, 0, 0]


# Which wrappers stay ------------------------------------------------------------------------------


def test_the_horizon_is_the_environments_own():
    env = goal_env("Pendulum-v1", **PENDULUM)
    assert isinstance(env, TimeLimit)
    assert env.spec.max_episode_steps == 200
    assert env.unwrapped.simulator.unwrapped is env.unwrapped.simulator
    assert len(rollout(env, seed=0)["reward"]) == 200
    # A longer one than the environment's.
    longer = goal_env("Pendulum-v1", max_episode_steps=210, **PENDULUM)
    assert len(rollout(longer, seed=0)["reward"]) == 210


@pytest.mark.parametrize("as_instance", [False, True])
def test_users_wrappers_stay(as_instance):
    inner = OrderEnforcing(PassiveEnvChecker(Robot()))
    wrapped = TimeLimit(RescaleAction(FlattenObservation(inner), np.float32(-3), np.float32(3)), 7)
    env = goal_env(wrapped if as_instance else lambda: wrapped, **ROBOT)
    assert isinstance(env, TimeLimit)
    assert isinstance(env.unwrapped.simulator, RescaleAction)  # but for our limit, no other
    assert env.action_space.high.tolist() == [3, 3]
    before = env.reset(seed=0)[0]["achieved_goal"]
    after = env.step(np.array([3.0, 0.0], np.float32))[0]["achieved_goal"]
    assert after - before == pytest.approx([0.3, 0], abs=1e-6)
    assert len(rollout(env, seed=0)["reward"]) == 7
    assert (env.spec is None) == as_instance


def test_an_instance_takes_no_arguments():
    robot = Robot()
    with pytest.raises(ValueError, match="is made already and takes no argument 'render_mode'"):
        goal_env(robot, **ROBOT, render_mode="rgb_array")
    with pytest.raises(ValueError, match="goal_env needs"):
        goal_env(robot)
    assert not robot.closed  # it is the caller's
