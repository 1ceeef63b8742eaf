"""DISCERN: the reward is how well a learned discriminator tells the goal from what was reached."""

from __future__ import annotations

from torch import Tensor

from rllib_odac.agent.objectives.base import (
    DiscountedObjective,
    JudgedTransitions,
    RewardAndDiscount,
)
from rllib_odac.agent.objectives.discriminator import Discriminator

REWARDS = ("log_likelihood", "clipped")


class DISCERNObjective(DiscountedObjective):
    """r = log q(g | φ(s')), the discriminator's log-likelihood of the goal among K decoys.

    Warde-Farley et al. 2019 (arXiv 1811.11359). The paper pays at the end of an episode of fixed
    length; here every step is paid, as under the other objectives, and a terminal state for ever.

    Args:
        num_decoys: K; at most one less than the batch has rows.
        sharpness: β, or None for the paper's K + 1.
        reward: "log_likelihood", or "clipped" for the paper's own.
        embedding_dim: Width of e.
        discount: γ.
    """

    def __init__(
        self,
        num_decoys: int = 63,
        sharpness: float | None = None,
        reward: str = "log_likelihood",
        embedding_dim: int = 16,
        discount: float = 0.95,
    ) -> None:
        super().__init__(discount)
        if not (isinstance(num_decoys, int) and num_decoys >= 1):
            raise ValueError(
                f"num_decoys is {num_decoys!r}, but must be a whole number of at least 1."
            )
        if sharpness is not None and not sharpness > 0:
            raise ValueError(f"sharpness is {sharpness}, but must be positive, or None.")
        if reward not in REWARDS:
            raise ValueError(f"reward is '{reward}', but must be one of {list(REWARDS)}.")
        if embedding_dim < 2:
            raise ValueError(f"embedding_dim is {embedding_dim}, but must be at least 2.")
        beta = num_decoys + 1 if sharpness is None else sharpness
        is_clipped = reward == "clipped"
        self.auxiliary = Discriminator(num_decoys, beta, embedding_dim, is_clipped)
        self.reward_is_local = is_clipped  # else it depends on the decoys

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        assert batch.learned_reward is not None, "the discriminator gives one"
        return self.discounted(batch.learned_reward)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # The KL is not negative, and with its weight there is no bound from below.
        return None, 1 / (1 - self.discount) if self.reward_is_local else 0.0
