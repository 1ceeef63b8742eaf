"""What makes one goal-reaching method differ from another: a rule for reward and discount."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from rllib_odac.maths.losses import soft_value
from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig
    from rllib_odac.rl_module import ODACRLModule


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


def constant_discount(reward: Tensor, discount: float, terminated: Tensor) -> Backup:
    """A reward (B,) discounted by a constant.

    A terminal state pays its reward for ever: with rewards below zero, dying would else be better
    than failing.
    """
    return Backup(
        torch.where(terminated, reward / (1 - discount), reward),
        torch.where(terminated, 0.0, discount),
    )


class Objective(ABC):
    """A rule `(batch, next_value) -> (reward, discount)`; everything else is shared.

    Networks, exploration and updates are the same for every objective, so a comparison compares
    objectives and what each says of relabelling and of bounds on values. One that learns something
    of its own, such as a discriminator, names networks, their forward pass and their losses; they
    are trained by the learner's optimizer, and saved and averaged over learners as all others are.

    Attributes:
        uses_dynamics: Whether the backup needs p_ψ; else the model is not learned.
        relabel: Where the goals of a batch come from, unless the configuration says otherwise.
        extra_goals: Achieved goals (B, G) that a batch brings along besides `goal`: the name of
            the column and where they come from.
        reward_is_local: Whether a transition and its goal alone decide the reward, whatever else
            is in the batch.
    """

    uses_dynamics: ClassVar[bool] = False
    relabel: ClassVar[Mapping[str, float]] = {"future": 0.8, "own": 0.2}
    extra_goals: ClassVar[Mapping[str, RelabelStrategy]] = {}
    reward_is_local: bool = True

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        """Keyword arguments of this class that a configuration has settings for."""
        return {}

    @abstractmethod
    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        """Reward and discount of each transition, without gradients.

        Args:
            batch: A relabelled replay batch and what `ODACRLModule` and `forward` made of it, among
                it `log_prob_goal` (B,), log p_ψ(g | s, a). `terminated` (B,) transitions must get a
                discount of zero.
            next_value: (B,) V̂(s', g) of the target networks.
        """

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        """Bounds that the true value function keeps; targets are clamped to them.

        Args:
            max_log_prob: Largest value of log p_ψ(g | s, a), in nats.
        """
        return None, None

    def build_networks(
        self, goal_dim: int, state_action_dim: int, hidden: Sequence[int]
    ) -> nn.Module | None:
        """The networks that only this objective has, or None.

        Args:
            goal_dim: G.
            state_action_dim: Width of `ODACRLModule.dynamics_inputs`.
            hidden: Widths of hidden layers.
        """
        return None

    def forward(
        self, module: ODACRLModule, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Passes of `module.objective_networks`, within the module's own forward pass.

        Args:
            module: Holds the networks and how their inputs are normalised.
            batch: A relabelled replay batch, with its `extra_goals` and, if there are any, standard
                normal `goal_noise` (B, G) that may be wanted on them.
            outputs: What the actor-critic's passes gave, see `ODACRLModule`.

        Returns:
            Further outputs, for `losses`, `bound_next_q` and `backup`.
        """
        return {}

    def losses(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses () of the networks of this objective, by name."""
        return {}

    def bound_next_q(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """(B,) Q̂(s', a', g) of the target critics, moved into bounds known for each of them."""
        return outputs["next_q"]

    def infer(
        self,
        batch: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        value_bounds: tuple[float | None, float | None],
    ) -> tuple[Tensor, Backup]:
        """What critics learn from: V̂(s', g) of the target networks, and the backup that it gives.

        Args:
            batch: A relabelled replay batch.
            outputs: What `ODACRLModule.forward_train` made of it.
            value_bounds: See `value_bounds`.

        Returns:
            (B,) values within the bounds, and the backup.
        """
        kl_weight = outputs["log_kl_weight"].detach().exp()
        next_value = soft_value(self.bound_next_q(outputs), outputs["next_kl"], kl_weight)
        low, high = value_bounds
        if low is not None or high is not None:
            next_value = next_value.clamp(low, high)
        return next_value, self.backup({**batch, **outputs}, next_value)
