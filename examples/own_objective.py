"""An objective of your own: a rule that gives each transition its reward and discount.

    python examples/own_objective.py

Networks, replay, relabelling and exploration are the library's; only what counts as good is new.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rllib_odac import Objective, ODACConfig
from rllib_odac.agent.objectives import Backup


class SoftReach(Objective):
    """r = exp(−½ (d / width)²) − 1 for the distance d that is left: a smooth version of HER's.

    Args:
        width: Distance, in the task's units, at which being near begins to pay.
        discount: γ.
    """

    def __init__(self, width: float, discount: float) -> None:
        if not width > 0:
            raise ValueError(f"width is {width}, but must be positive.")
        self.width = width
        self.discount = discount

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        """What the configuration has a setting of its own for; `width` is the user's to give."""
        return {"discount": config.prior_discount}

    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        """Reward and discount (B,) of replayed transitions, judged by their relabelled goals."""
        distance = (batch["next_achieved_goal"] - batch["goal"]).norm(dim=-1)
        reward = torch.exp(-0.5 * (distance / self.width).square()) - 1
        # A terminal state has no future.
        discount = torch.where(batch["terminated"], 0.0, self.discount)
        return Backup(reward, discount, metrics={"distance_left": distance.mean()})

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
