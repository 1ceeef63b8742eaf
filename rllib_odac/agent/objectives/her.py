"""Hindsight experience replay: a sparse reward on relabelled goals, discounted by a constant."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rllib_odac.agent.objectives.base import (
    DiscountedObjective,
    JudgedTransitions,
    RewardAndDiscount,
)
from rllib_odac.envs.goals import Goals, own_reward

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig

REWARDS = ("success", "environment")


class HERObjective(DiscountedObjective):
    """r = 0 where the goal is reached, as the environment judges it, else −1; discount γ.

    Andrychowicz et al. 2017, with soft actor-critic as the learner below it. Reaching the goal ends
    no episode.

    Args:
        goals: When a goal is reached.
        discount: γ.
        reward: "success" for the above, or "environment" for the environment's own
            `compute_reward`, whatever it pays.
        make_env: Makes the environment that is asked for it; None if it has no `compute_reward`.
    """

    def __init__(
        self,
        goals: Goals,
        discount: float = 0.95,
        reward: str = "success",
        make_env: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(discount)
        if reward not in REWARDS:
            raise ValueError(f"reward is '{reward}', but must be one of {list(REWARDS)}.")
        if reward == "success" and not (goals.success_distance or 0) > 0:
            raise ValueError(f"success_distance is {goals.success_distance}, but must be positive.")
        self.goals = goals
        self.reward = reward
        if reward == "environment" and make_env is None:
            raise ValueError(
                "reward is 'environment', but must be 'success' for an environment that has no "
                "compute_reward."
            )
        self._make_env = make_env

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        asked = config.objective_settings.get("reward", "success")
        goals = config.goals if asked == "environment" else config.judged_goals
        make_env = config.make_env if config.environment_pays else None
        return super().settings(config) | {"goals": goals, "make_env": make_env}

    @cached_property
    def _environment(self) -> Any:
        assert self._make_env is not None
        return self._make_env()

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        transitions = batch.transitions
        achieved, goal = transitions.next_achieved_goal, transitions.goal
        if self.reward == "success":
            reward = self.goals.reached(achieved, goal).to(next_value.dtype) - 1
        else:
            paid = own_reward(self._environment, achieved.cpu().numpy(), goal.cpu().numpy())
            reward = torch.as_tensor(paid, dtype=next_value.dtype, device=goal.device)
        return self.discounted(reward)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # The clip of Andrychowicz et al. 2017, appendix A. It cuts off what the KL costs where no
        # goal is in reach, which no choice of an action depends on.
        return (-1 / (1 - self.discount), 0.0) if self.reward == "success" else (None, None)
