"""Where the environments of others keep what they do not tell Gymnasium.

Each family has a place of its own: gymnasium-robotics and panda-gym an attribute
`distance_threshold`, of the environment or of its task; highway-env a dictionary `config`;
Stable-Baselines3's bits and Meta-World a number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

MAZE_SUCCESS_DISTANCE = 0.45  # m; gymnasium-robotics has it only in its code
MAZES = "gymnasium_robotics.envs.maze.maze_v4"


def is_maze(core: Any) -> bool:
    """Whether an environment, without wrappers, is a maze of gymnasium-robotics."""
    return any(kind.__module__ == MAZES for kind in type(core).__mro__)


def own_success_distance(core: Any) -> float | None:
    """The distance below which an environment, without wrappers, calls a goal reached, if any."""
    for owner in (core, getattr(core, "task", None)):
        for name in ("success_distance", "distance_threshold"):
            if (distance := getattr(owner, name, None)) is not None:
                return float(distance)
    return MAZE_SUCCESS_DISTANCE if is_maze(core) else None


def own_goal_weights(core: Any) -> NDArray[np.float64] | None:
    """(G,) how much each coordinate of a goal counts in an environment, without wrappers, if said.

    That of highway-env's parking, where headings have size 1 and parking spaces are 0.04 apart.
    """
    config = getattr(core, "config", None)
    weights = config.get("reward_weights") if isinstance(config, Mapping) else None
    return np.asarray(weights, np.float64) if isinstance(weights, list | np.ndarray) else None


def own_time_limit(env: Any) -> int | None:
    """The steps after which an environment ends its episodes, by Gymnasium or by itself, if any."""
    layer = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            return layer._max_episode_steps
        layer = layer.env
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return int(env.spec.max_episode_steps)
    core = env.unwrapped
    config = getattr(core, "config", None)
    if isinstance(config, Mapping) and {"duration", "policy_frequency"} <= config.keys():
        return int(config["duration"] * config["policy_frequency"])  # seconds, and steps in one
    for name in ("max_steps", "max_path_length"):
        if isinstance(limit := getattr(core, name, None), int):
            return limit
    return None


def ends_by_itself(env: gym.Env[Any, Any], patience: int = 1000) -> bool:
    """Whether an episode of so many random actions, or fewer, comes to an end."""
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(patience):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            return True
    return False
