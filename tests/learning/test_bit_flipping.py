"""Hindsight solves what no undirected search does: the bits of Andrychowicz et al. 2017."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rllib_odac import ODACConfig

pytestmark = pytest.mark.learning
NUM_BITS = 10


class BitFlipping(gym.Env):
    """Bits have to become those of the goal; an action flips the one with the largest coordinate.

    None is flipped if no coordinate is above a half, so that a goal can be kept.
    """

    success_distance = 0.5
    goal_scale = 1.0

    def __init__(self):
        bits = gym.spaces.Box(0, 1, (NUM_BITS,), np.float32)
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space = gym.spaces.Dict(dict.fromkeys(names, bits))
        self.action_space = gym.spaces.Box(-1, 1, (NUM_BITS,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.bits, self.goal = self.np_random.integers(0, 2, (2, NUM_BITS)).astype(np.float32)
        return self.observation, self.info

    def step(self, action):
        chosen = np.argmax(action)
        if action[chosen] > 0.5:
            self.bits[chosen] = 1 - self.bits[chosen]
        info = self.info
        return self.observation, float(info["is_success"]) - 1, False, False, info

    def compute_reward(self, achieved_goal, desired_goal, info=None):
        return -np.any(achieved_goal != desired_goal, axis=-1).astype(np.float32)

    @property
    def observation(self):
        bits = self.bits.copy()
        return {"observation": bits, "achieved_goal": bits, "desired_goal": self.goal.copy()}

    @property
    def info(self):
        wrong = float(np.abs(self.bits - self.goal).sum())
        return {"is_success": wrong == 0, "final_distance": wrong}


def bit_flipping():
    return BitFlipping()


def success_rate(steps=8000, **settings):
    config = ODACConfig().environment(bit_flipping).training(updates_per_env_step=0.3, **settings)
    config.max_episode_steps = NUM_BITS
    config.evaluation(evaluation_interval=None).debugging(seed=0, log_level="ERROR")
    algorithm = config.build_algo()
    while algorithm.env_steps < steps:
        algorithm.train()
    result = algorithm.evaluate_held_out(100)
    algorithm.stop()
    return result["success_rate"]


@pytest.mark.slow
def test_hindsight_flips_the_right_bits(ray_cluster):
    assert success_rate(objective="her") >= 0.8


@pytest.mark.slow
def test_soft_actor_critic_on_the_same_reward_without_hindsight_does_not(ray_cluster):
    assert success_rate(objective="her", relabel={"own": 1.0}) <= 0.1
