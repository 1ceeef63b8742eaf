"""Exploration beyond the policy's own noise: random actions that are kept, and goals to seek."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_odac.replay.episodes import Array


class HeldRandomActions:
    """Uniformly random actions of N environments, each kept for some steps.

    An action that the next one does not take back gets farther, and finds what is far away.

    Args:
        num_envs: N.
        action_dim: A.
        steps: For how many steps an action is kept.
    """

    def __init__(self, num_envs: int, action_dim: int, steps: int) -> None:
        self.steps = steps
        self._actions = np.zeros((num_envs, action_dim), dtype=np.float32)
        self._steps_left = np.full(num_envs, -1)  # below 0: none is kept

    @property
    def is_held(self) -> Array:
        """(N,) bool, where an action is kept now."""
        return self._steps_left >= 0

    def release(self, where: Array) -> None:
        """Lets go of actions where episodes begin, (N,) bool."""
        self._steps_left[where] = -1

    def begin_probability(self, share: float) -> float:
        """Probability to begin a random action, so that a `share` of all steps is random."""
        return share / (self.steps - share * (self.steps - 1))

    def step(self, uniform: Array, begins: Array) -> Array:
        """The actions (N, A) of the next step, meaningful where `is_held`.

        Args:
            uniform: (N, A) new actions in [−1, 1].
            begins: (N,) bool, where one of them may begin unless another is still kept.
        """
        self._steps_left -= 1
        begins = begins & (self._steps_left < 0)
        self._actions = np.where(begins[:, None], uniform.astype(np.float32), self._actions)
        self._steps_left = np.where(begins, self.steps - 1, self._steps_left)
        return self._actions


class ExplorationGoalAssignment:
    """Which of N environments seek a goal to explore with, instead of their own.

    Args:
        num_envs: N.
        goal_dim: G.
        own_goal_share: Probability that an episode keeps the environment's own goal.
    """

    def __init__(self, num_envs: int, goal_dim: int, own_goal_share: float) -> None:
        self.own_goal_share = own_goal_share
        self.is_assigned = np.zeros(num_envs, dtype=bool)
        self._assigned = np.zeros((num_envs, goal_dim), dtype=np.float32)

    def choose(self, begins: Array, goals: Array | None, rng: np.random.Generator) -> None:
        """Draws goals from (M, G) for the episodes that begin, (N,) bool, if there are any."""
        if goals is None or not begins.any():
            return
        num_envs = len(self.is_assigned)
        asked = rng.random(num_envs) >= self.own_goal_share
        chosen = goals[rng.integers(len(goals), size=num_envs)]
        self.is_assigned = np.where(begins, asked, self.is_assigned)
        self._assigned = np.where(begins[:, None], chosen, self._assigned)

    def applied_to(self, observation: dict[str, Array]) -> dict[str, Any]:
        """The observation with the assigned goals in place of the environment's own."""
        if not self.is_assigned.any():
            return observation
        own = observation["desired_goal"]
        return observation | {
            "desired_goal": np.where(self.is_assigned[:, None], self._assigned, own)
        }
