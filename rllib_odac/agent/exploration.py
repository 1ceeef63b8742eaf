"""Exploration beyond the policy's own noise: random actions that are kept, and goals to seek."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllib_odac.replay.episodes import Array
from rllib_odac.replay.exploration_goals import ExplorationGoals


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
        mixture: Probabilities of sources.
    """

    def __init__(
        self, num_envs: int, goal_dim: int, mixture: Mapping[ExplorationGoals, float]
    ) -> None:
        self.mixture = mixture
        self.is_assigned = np.zeros(num_envs, dtype=bool)
        self._assigned = np.zeros((num_envs, goal_dim), dtype=np.float32)

    def choose(
        self,
        begins: Array,
        drawn: Mapping[str, Array],
        observation: Mapping[str, Array],
        rng: np.random.Generator,
    ) -> None:
        """Assigns goals to the episodes that begin; where a source has none, the environment's.

        Args:
            begins: (N,) bool.
            drawn: Goals (M, G) of each source.
            observation: With the achieved goals (N, G) φ(s_0), from which displacements lead, and
                the environment's own goals (N, G), near to which they have to lead.
            rng: Of what is drawn.
        """
        if not drawn or not begins.any():
            return
        num_envs = len(self.is_assigned)
        sources = list(self.mixture)
        source = rng.choice(len(sources), size=num_envs, p=list(self.mixture.values()))
        self.is_assigned[begins] = False
        for name, goals in drawn.items():
            where = begins & (source == sources.index(ExplorationGoals(name)))
            if name == ExplorationGoals.DISPLACED:
                start, own = observation["achieved_goal"][where], observation["desired_goal"][where]
                self._assigned[where] = nearest_displaced(start, goals, own)
            else:
                self._assigned[where] = goals[rng.integers(len(goals), size=where.sum())]
            self.is_assigned[where] = True

    def applied_to(self, observation: dict[str, Array]) -> dict[str, Any]:
        """The observation with the assigned goals in place of the environment's own."""
        if not self.is_assigned.any():
            return observation
        own = observation["desired_goal"]
        return observation | {
            "desired_goal": np.where(self.is_assigned[:, None], self._assigned, own)
        }


def nearest_displaced(start: Array, displacements: Array, goals: Array) -> Array:
    """(N, G) where the displacements (M, G) lead from (N, G) starts, as near as possible to goals.

    As in hindsight goal generation (Ren et al. 2019, arXiv 1906.04279): what was brought about
    before and leads towards what the task asks for. The more was brought about, the nearer it is.
    """
    reached = start[:, None] + displacements
    nearest = np.linalg.norm(reached - goals[:, None], axis=-1).argmin(1)
    return np.asarray(reached[np.arange(len(start)), nearest])
