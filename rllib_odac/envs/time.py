"""`ShowsTime`: the time of an episode as a part of what is observed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class ShowsTime(gym.Wrapper[Any, Any, Any, Any]):
    """A goal environment whose `observation` (D + 1,) ends with t / T, the share of its time gone.

    It is 0 at the beginning and 1 in the state after the last step: what has to be done by then
    depends on how much time is left.

    Args:
        env: With a time limit of T steps.

    Raises:
        ValueError: If it has no time limit.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        if env.spec is None or env.spec.max_episode_steps is None:
            raise ValueError(f"shows_time is True, but must be False for {env}: it has no limit.")
        self.horizon = env.spec.max_episode_steps
        self._steps = 0
        space: Any = env.observation_space
        box = space["observation"]
        self.observation_space = gym.spaces.Dict(
            dict(space.spaces)
            | {
                "observation": gym.spaces.Box(
                    np.append(box.low, 0), np.append(box.high, 1), dtype=box.dtype
                )
            }
        )

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, at time 0."""
        observation, info = self.env.reset(**kwargs)
        self._steps = 0
        return self._with_time(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step of the environment."""
        observation, *rest = self.env.step(action)
        self._steps += 1
        return self._with_time(observation), *rest  # type: ignore[return-value]

    def _with_time(self, observation: dict[str, Any]) -> dict[str, Any]:
        seen = observation["observation"]
        return observation | {
            "observation": np.append(seen, self._steps / self.horizon).astype(seen.dtype)
        }
