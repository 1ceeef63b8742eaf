"""`weigh`: goals whose coordinates count differently, in units in which they count alike."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from rllib_odac.envs.families import own_goal_weights
from rllib_odac.envs.flatten import GOAL_KEYS


def weigh(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The environment with weighted goals; itself if its family names no weights for them."""
    weights = own_goal_weights(env.unwrapped)
    spaces = getattr(env.observation_space, "spaces", {})
    goals = [spaces[key].shape for key in GOAL_KEYS[1:] if key in spaces]
    return env if weights is None or goals != [weights.shape] * 2 else WeightedGoals(env, weights)


class WeightedGoals(gym.ObservationWrapper[Any, Any, Any]):
    """Goals (G',) times their weights, without the coordinates that have none.

    What is observed stays, and so do rewards and success: the environment judges its own goals.

    Args:
        env: A goal environment of vectors.
        weights: (G,), one at least above zero.
    """

    def __init__(self, env: gym.Env[Any, Any], weights: NDArray[Any]) -> None:
        super().__init__(env)
        self._counting = np.flatnonzero(weights)
        self._weights = weights
        box = Box(-np.inf, np.inf, self._counting.shape, np.float32)
        spaces: Any = env.observation_space
        self.observation_space = Dict({**spaces.spaces, **dict.fromkeys(GOAL_KEYS[1:], box)})

    def observation(self, observation: Any) -> dict[str, Any]:
        """The same observation with goals (G',) float32."""
        goals = {
            key: (observation[key] * self._weights)[self._counting].astype(np.float32)
            for key in GOAL_KEYS[1:]
        }
        return {**observation, **goals}

    def compute_reward(self, achieved: NDArray[Any], goal: NDArray[Any], info: Any) -> Any:
        """What the environment pays for weighted goals (..., G')."""
        return self.env.get_wrapper_attr("compute_reward")(
            self._unweighted(achieved), self._unweighted(goal), info
        )

    def _unweighted(self, goal: NDArray[Any]) -> NDArray[np.float64]:
        """Goals (..., G) of the environment, zero where that makes no difference."""
        whole = np.zeros((*goal.shape[:-1], len(self._weights)))
        whole[..., self._counting] = goal / self._weights[self._counting]
        return whole
