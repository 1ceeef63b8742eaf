"""`show_time`: the time of an episode as a part of what is observed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import TimeAwareObservation, TransformObservation


def show_time(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """A goal environment whose `observation` (D + 1,) ends with t / T, the share of its time gone.

    It is 0 at the beginning and 1 in the state after the last step: what has to be done by then
    depends on how much time is left.

    Args:
        env: With a time limit of T steps.

    Raises:
        ValueError: If it has no time limit.
    """
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError(f"shows_time is True, but must be False for {env}: it has no time limit.")
    spaces: Any = env.observation_space
    box = spaces["observation"]
    longer = Box(np.append(box.low, 0), np.append(box.high, 1), dtype=box.dtype)
    timed: gym.Env[Any, Any] = TimeAwareObservation(env, flatten=False, normalize_time=True)
    return TransformObservation(timed, _joined, Dict({**spaces.spaces, "observation": longer}))


def _joined(observation: dict[str, Any]) -> dict[str, Any]:
    """The observation of Gymnasium's wrapper with the time in its vector."""
    kept = {name: value for name, value in observation.items() if name != "time"}
    seen = observation["observation"]
    return kept | {"observation": np.append(seen, observation["time"]).astype(seen.dtype)}
