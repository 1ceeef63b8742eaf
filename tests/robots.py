"""A small robot without goals, and episodes of random actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

HORIZON = 12


class Robot(gym.Env):
    """A point (x, y) that sees itself and a target; it falls where x is above `edge`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, edge: float = 9.0, render_mode: str | None = None):
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.edge, self.render_mode = edge, render_mode
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.xy, self.target = self.np_random.uniform(-1, 1, size=(2, 2))
        return np.concatenate([self.xy, self.target]), {"mine": 1}

    def step(self, action):
        self.xy = self.xy + 0.3 * action
        observation, info = np.concatenate([self.xy, self.target]), {"is_success": 2, "mine": 3}
        return observation, 5.0, self.xy[0] > self.edge, False, info

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        self.closed = True


ROBOT = {"achieved_goal": slice(0, 2), "desired_goal": slice(2, 4), "success_distance": 0.5}
PENDULUM = {
    "achieved_goal": [0, 1],
    "desired_goal": Box(-1, 1, (2,)),
    "success_distance": 0.3,
}


def rollout(env: gym.Env, seed: int) -> dict[str, np.ndarray]:
    """One episode of random actions: rows of observations, and what each step gave."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    observations, steps = [observation], []
    while not steps or not (steps[-1][1] or steps[-1][2]):
        observation, *step, info = env.step(env.action_space.sample())
        observations.append(observation)
        steps.append([*step, info["is_success"], info["final_distance"]])
    columns = {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    names = ("reward", "terminated", "truncated", "is_success", "final_distance")
    return columns | {name: np.array(column) for name, *column in zip(names, *steps, strict=True)}
