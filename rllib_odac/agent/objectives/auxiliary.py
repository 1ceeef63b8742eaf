"""`Auxiliary`: networks that one objective learns besides actor, critics and model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.agent.actor_critic import ActorCritic
    from rllib_odac.agent.batch import Batch


class AuxiliaryOutput(NamedTuple):
    """What the networks of an `Auxiliary` say of a batch.

    Attributes:
        loss: () to minimise, differentiable to these networks alone.
        reward: (B,) constant, for objectives whose reward is learned.
        next_q_bound: (B,) constant, a lower bound on E_{a'~π}[Q(s', a', g)].
    """

    loss: Tensor
    reward: Tensor | None = None
    next_q_bound: Tensor | None = None


class Auxiliary(ABC):
    """Networks, loss and bound of an objective's own.

    They are trained by the same optimizer, saved, and averaged over learners as all others are.

    Attributes:
        name: What the loss is called in metrics, as "NAME_loss".
        goal_source: Where `Transitions.auxiliary_goal` comes from.
    """

    name: str
    goal_source: RelabelStrategy

    @abstractmethod
    def build_networks(
        self, goal_dim: int, state_dim: int, action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        """The networks, which become `ActorCritic.auxiliary`.

        Args:
            goal_dim: G.
            state_dim: D + G, the width of the state in `Inputs.state_action`.
            action_dim: A, the width of the rest of it.
            hidden: Widths of hidden layers.
        """

    @abstractmethod
    def evaluate(
        self, networks: ActorCritic, batch: Batch, next_actions: Tensor | None = None
    ) -> AuxiliaryOutput:
        """Loss, and reward or bound, of a batch.

        Args:
            networks: All of them.
            batch: With `transitions.auxiliary_goal` and `auxiliary_noise`.
            next_actions: (B, A) the policy's `mixture` at s', where there are critics.
        """
