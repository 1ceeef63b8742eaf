"""`flatten`: goal environments whose observations and goals are not vectors yet."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.spaces.utils import flatten as flatten_value
from gymnasium.spaces.utils import flatten_space

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")


def is_vector(space: gym.Space[Any]) -> bool:
    """Whether a learner takes it as it is: numbers in an array, and no picture."""
    return isinstance(space, Box) and not is_picture(space)


def is_picture(space: gym.Space[Any]) -> bool:
    """Whether it holds pixels, (H, W) or (H, W, C) bytes."""
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def can_be_flattened(space: gym.Space[Any]) -> bool:
    """Whether it is made of numbers of a fixed count, pictures left out."""
    parts = space.spaces.values() if isinstance(space, Dict) else getattr(space, "spaces", ())
    return bool(space.is_np_flattenable) and not (
        is_picture(space) or any(not can_be_flattened(part) for part in parts)
    )


def flatten(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The environment with vectors for its observation and goals; itself if they are vectors.

    Entries of a Dict follow each other in its order, as in Gymnasium's `flatten`; a Discrete or
    MultiDiscrete becomes one-hot, a MultiBinary its bits.
    """
    spaces = getattr(env.observation_space, "spaces", {})
    keys = [key for key in GOAL_KEYS if key in spaces]
    if len(keys) < len(GOAL_KEYS) or all(is_vector(spaces[key]) for key in keys):
        return env
    return FlattenGoals(env) if all(can_be_flattened(spaces[key]) for key in keys) else env


class FlattenGoals(gym.ObservationWrapper[Any, Any, Any]):
    """What `flatten` returns; further entries of the observation are left out.

    Rewards for other goals are not offered: they would be asked for with vectors.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        spaces: Any = env.observation_space
        self._spaces = {key: spaces[key] for key in GOAL_KEYS}
        self.observation_space = Dict({key: _float_box(s) for key, s in self._spaces.items()})

    def observation(self, observation: Any) -> dict[str, Any]:
        """The three vectors, float32."""
        return {
            key: np.asarray(flatten_value(space, observation[key]), np.float32)
            for key, space in self._spaces.items()
        }


def is_flattened(env: Any) -> bool:
    """Whether `flatten` has changed the environment."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, FlattenGoals):
            return True
        env = env.env
    return False


def _float_box(space: gym.Space[Any]) -> Box:
    flat: Any = flatten_space(space)
    low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    return Box(low, high, dtype=np.float32)
