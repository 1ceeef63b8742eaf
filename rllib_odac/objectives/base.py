"""What makes one goal-reaching method differ from another: a rule for reward and discount."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Backup:
    """Reward and discount of a batch of transitions, judged by their goals.

    Attributes:
        reward: (B,).
        discount: (B,) in [0, 1], the weight of the next state's value.
        metrics: Quantities worth plotting, by name.
    """

    reward: Tensor
    discount: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """A rule `(batch, next_value) -> (reward, discount)`; everything else is shared.

    Replay, networks, exploration and updates are the same for every objective, so a comparison
    of objectives compares nothing else.
    """

    @abstractmethod
    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        """Reward and discount of each transition, without gradients.

        Args:
            batch: A relabelled replay batch with `log_prob_goal` (B,), log p_ψ(g | s, a), added.
                `terminated` (B,) transitions must get a discount of zero.
            next_value: (B,) V̂(s', g) of the target networks.
        """

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        """Bounds that the true value function keeps; targets are clamped to them.

        Args:
            max_log_prob: Largest value of log p_ψ(g | s, a), in nats.
        """
        return None, None
