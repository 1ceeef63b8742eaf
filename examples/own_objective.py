"""An objective of your own: a rule that gives each transition its reward and discount.

    python examples/own_objective.py

Networks, replay, relabelling and exploration are the library's; only what counts as good is new.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from rllib_odac import ODACConfig
from rllib_odac.agent.objectives import (
    DiscountedObjective,
    JudgedTransitions,
    RewardAndDiscount,
)


class SoftReach(DiscountedObjective):
    """r = exp(−½ (d / width)²) − 1 for the distance d that is left: a smooth version of HER's.

    Args:
        width: Distance, in the task's units, at which being near begins to pay.
        discount: γ.
    """

    def __init__(self, width: float, discount: float) -> None:
        super().__init__(discount)
        if not width > 0:
            raise ValueError(f"width is {width}, but must be positive.")
        self.width = width

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        """Reward and discount (B,) of replayed transitions, judged by their relabelled goals."""
        transitions = batch.transitions
        distance = (transitions.next_achieved_goal - transitions.goal).norm(dim=-1)
        reward = torch.exp(-0.5 * (distance / self.width).square()) - 1
        return self.discounted(reward)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        """Rewards are never positive, so neither is a value."""
        return None, 0.0


def main() -> None:
    """Trains a robot arm with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    config = (
        ODACConfig()
        .environment("FetchReach-v4")
        .training(objective=SoftReach, objective_settings={"width": 0.1})
        .reporting(min_sample_timesteps_per_iteration=min(options.steps, 1000))
        .debugging(seed=0, log_level="ERROR")
    )
    algo = config.build_algo()
    while algo.env_steps < options.steps:
        result = algo.train()["evaluation"]["env_runners"]
        print(f"{algo.env_steps} steps: {result['success_rate']:.0%} reached", flush=True)
    algo.stop()


if __name__ == "__main__":
    main()
