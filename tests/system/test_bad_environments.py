"""Environments that go wrong while training: the user is told what, and nothing trains on it."""

from __future__ import annotations

import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from ray import cloudpickle

from tests.conftest import small_config
from tests.unit.test_spaces import RUN, Made

pytestmark = pytest.mark.system
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests


class Drifting(gym.Env):
    """A goal environment that breaks at its 30th step, in the way it is told to."""

    action_space = gym.spaces.Box(-2, 1, (2,), np.float32)
    observation_space = gym.spaces.Dict(
        {
            name: gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
            for name in ("observation", "achieved_goal", "desired_goal")
        }
    )

    def __init__(self, settings):
        self.failure = settings["failure"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.position = 0, np.zeros(2)
        self.ends = self.failure == "ends when tried" and seed == 0
        self.goal = self.np_random.uniform(-1, 1, 2)
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action.astype(np.float32))
        self.steps += 1
        self.position = self.position + 0.1 * action
        if self.steps == 30 and self.failure == "nan":
            self.position = self.position * np.nan
        if self.steps == 30 and self.failure == "raise":
            raise OSError("the simulator lost its connection")
        return self._observe(), 0.0, self.ends, False, {"is_success": False}

    def _observe(self):
        return {
            "observation": self.position,
            "achieved_goal": self.position,
            "desired_goal": self.goal,
        }


def innermost(error):
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    return str(error)


@pytest.mark.parametrize(
    ("failure", "sentence", "num_env_runners"),
    [
        ("nan", "NaN or infinity in 'observation'", 0),
        ("nan", "NaN or infinity in 'observation'", 1),
        ("raise", "the simulator lost its connection", 0),
        ("raise", "the simulator lost its connection", 1),
    ],
)
def test_a_broken_environment_stops_training(ray_cluster, failure, sentence, num_env_runners):
    config = small_config(Drifting, max_episode_steps=40)
    config.environment(Drifting, env_config={"failure": failure})
    config.env_runners(num_env_runners=num_env_runners).evaluation(evaluation_interval=None)
    algorithm = config.build_algo()
    with pytest.raises((ValueError, RuntimeError, OSError)) as info:
        algorithm.train()
    assert sentence in innermost(info.value)
    algorithm.stop()


def test_an_endless_environment_is_cut_into_episodes(ray_cluster):
    config = small_config(Drifting, max_episode_steps=20)
    config.environment(Drifting, env_config={"failure": "none"})
    algorithm = config.build_algo()
    result = algorithm.train()
    episodes = algorithm.learner_group._learner.replay.episodes()
    assert {len(episode) for episode in episodes} == {20}
    assert not any(episode.terminated for episode in episodes)
    assert result["evaluation"]["env_runners"]["episode_length"] == 20
    algorithm.stop()


@pytest.mark.parametrize("interval", [1, None], ids=["evaluated", "not evaluated"])
def test_an_episode_without_an_end_is_refused_in_one_sentence(ray_cluster, interval):
    config = small_config(replay_capacity=700, num_steps_before_learning=0)
    config.environment(Drifting, env_config={"failure": "ends when tried"})
    algorithm = config.evaluation(evaluation_interval=interval).build_algo()
    with pytest.raises(ValueError, match=r"^An episode has gone on for \d+ steps, more than"):
        train_on(algorithm)
    algorithm.stop()


def train_on(algorithm):
    for _ in range(40):
        algorithm.train()


@pytest.mark.parametrize("shape", ["no observation", "a pose as goal", "all of it"])
def test_environments_of_other_shapes_are_trained_on(ray_cluster, shape):
    spaces, width, goal_width = RUN[shape]
    config = small_config(max_episode_steps=10, updates_per_env_step=0.1)
    algorithm = config.environment(partial(Made, **spaces)).build_algo()
    result = algorithm.train()
    assert algorithm.updates == 20
    assert np.isfinite(result["evaluation"]["env_runners"]["final_distance"])
    [episode, *_] = algorithm.learner_group._learner.replay.episodes()
    assert episode.observation.shape == (11, width)
    assert episode.desired_goal.shape == (11, goal_width)
    algorithm.stop()
