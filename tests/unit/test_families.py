"""What environments of others keep to themselves is found where each family keeps it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from rllib_odac import ODACConfig, make_env
from rllib_odac.envs.families import own_success_distance, own_time_limit
from rllib_odac.envs.goals import own_reward
from rllib_odac.envs.known import look_at


class Clock(gym.Env):
    """Ends its episodes by a clock of its own, of which Gymnasium knows nothing."""

    def __init__(self):
        self.config = {"duration": 4, "policy_frequency": 5}
        self.task = SimpleNamespace(distance_threshold=np.float32(0.25))
        space = Box(-1, 1, (2,), np.float32)
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space = Dict(dict.fromkeys(names, space))
        self.action_space = space


def test_a_clock_and_a_task_are_asked():
    known = look_at(make_env(Clock))
    assert known.horizon == 20
    assert known.goals.success_distance == 0.25


class Wandering(Clock):
    """Ends its episodes at a step that nothing tells of, or never."""

    def __init__(self, end=None):
        super().__init__()
        self.config, self.end, self.steps = {}, end, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), 0.0, False, self.steps == self.end, {}


def test_who_has_no_limit_is_tried_and_asked_for_one_only_where_that_finds_no_end():
    assert not look_at(make_env(Wandering, end=7)).ends  # not tried
    assert look_at(make_env(Wandering, end=7), tries_an_episode=True).ends
    assert not look_at(make_env(Wandering), tries_an_episode=True).ends
    ODACConfig().environment(Wandering7).validate()
    with pytest.raises(
        ValueError, match=r"^max_episode_steps is None, but .*Endless.* did not end"
    ):
        ODACConfig().environment(Endless).validate()
    ODACConfig().environment(Endless).training(max_episode_steps=5).validate()


def test_a_limit_that_gymnasium_does_not_know_of_is_found_among_the_wrappers():
    limited = gym.wrappers.TimeLimit(Wandering(), 12)
    assert limited.spec is None
    assert own_time_limit(gym.wrappers.OrderEnforcing(limited)) == 12


def Endless(**kwargs):
    return Wandering()


def Wandering7(**kwargs):
    return Wandering(end=7)


def test_nothing_is_found_where_nothing_is():
    bare = SimpleNamespace(
        spec=None, unwrapped=SimpleNamespace(task="push", config={"duration": 4})
    )
    assert own_success_distance(bare.unwrapped) is None
    assert own_time_limit(bare) is None


@pytest.mark.parametrize(
    ("env", "horizon", "distance"),
    [("panda_gym:PandaReach-v3", 50, 0.05), ("highway_env:parking-v0", 500, None)],
)
def test_families_as_they_are(env, horizon, distance):
    pytest.importorskip(env.partition(":")[0])
    known = look_at(make_env(env))
    assert known.horizon == horizon
    assert known.goals.success_distance == distance
    assert known.pays


class Weighing(Clock):
    """Goals (2,), and weights that may be meant for others."""

    def __init__(self, weights):
        super().__init__()
        self.config = {"reward_weights": weights}

    def reset(self, *, seed=None, options=None):
        return {key: np.array([0.5, 1], np.float32) for key in self.observation_space}, {}


@pytest.mark.parametrize(
    ("weights", "goal"), [([0, 2], [2]), ([0.5, 2], [0.25, 2]), ([1, 2, 3], [0.5, 1])]
)
def test_weights_are_for_goals_of_their_size(weights, goal):
    env = make_env(Weighing, weights=weights)
    observation, _ = env.reset()
    assert observation["desired_goal"].tolist() == observation["achieved_goal"].tolist() == goal
    assert observation["observation"].tolist() == [0.5, 1]
    assert env.observation_space["desired_goal"].shape == (len(goal),)


def test_goals_of_parking_are_as_far_apart_as_it_says_itself():
    pytest.importorskip("highway_env")
    env = make_env("highway_env:parking-v0")
    observation, info = env.reset(seed=0)
    assert observation["observation"].shape == (6,)
    env.action_space.seed(0)
    car = env.unwrapped.vehicle
    achieved, goals, paid = [], [], []
    for place in np.linspace(car.position, car.goal.position, 20):
        car.position, car.heading, car.speed = place, car.goal.heading, 0.0
        observation, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
        way = np.abs(observation["achieved_goal"] - observation["desired_goal"]).sum()
        assert way == pytest.approx(reward**2, abs=1e-6)
        assert info["is_success"] == terminated == (way < 0.12**2)
        achieved.append(observation["achieved_goal"])
        goals.append(observation["desired_goal"])
        paid.append(reward)
    assert info["is_success"]
    np.testing.assert_allclose(
        own_reward(env, np.array(achieved), np.array(goals)), paid, atol=1e-3
    )


@pytest.mark.parametrize("continuous", [True, False])
def test_the_bits_of_stable_baselines(continuous):
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.envs import BitFlippingEnv

    assert look_at(make_env(BitFlippingEnv, n_bits=6, continuous=continuous)).horizon == 6


def test_the_room_of_minigrid_is_one_as_the_page_has_it():
    pytest.importorskip("minigrid")
    page = (Path(__file__).parents[2] / "docs" / "works_with.md").read_text()
    namespace = {}
    exec(re.search(r"```python\n(import numpy.+?)```", page, re.DOTALL)[1], namespace)
    namespace["config"].validate()
    env = make_env(namespace["empty_room"])
    goals = {tuple(env.reset(seed=seed)[0]["desired_goal"]) for seed in range(200)}
    assert goals == {(x, y) for x in range(1, 7) for y in range(1, 7)}
    env.action_space.seed(0)
    lengths = []
    for _ in range(20):
        env.reset()
        ended, steps = False, 0
        while not ended:
            *_, terminated, ended, _ = env.step(env.action_space.sample())
            steps += 1
            assert not terminated
        lengths.append(steps)
    assert set(lengths) == {30}
