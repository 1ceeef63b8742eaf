"""Contrastive RL: values are a classifier's logits, learned without a Bellman backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.networks import call_frozen, mlp
from rllib_odac.agent.objectives.auxiliary import AuxiliaryOutput
from rllib_odac.agent.objectives.base import DirectObjective
from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.agent.actor_critic import ActorCritic
    from rllib_odac.agent.batch import Batch, Inputs


class ContrastiveObjective(DirectObjective):
    """Q(s, a, g) = φ(s, a)ᵀψ(g), whose encoders say whether g is a future of (s, a).

    Eysenbach et al. 2022 (arXiv 2206.07568), with binary noise contrastive estimation. The policy
    seeks the episode's own futures and random goals, half of each.

    Of a batch of B pairs, each a state with its action and a future drawn by a geometric clock of
    `prior_discount`, every state is paired with every future, and only its own is a positive
    example. At the optimum

        φ(s, a)ᵀψ(g) = log p^γ(g | s, a) − log p(g) − log(B − 1),

    with p^γ the discounted distribution of futures and p its mean over the replay. The last two
    do not depend on the action.

    Args:
        embedding_dim: Width of φ and ψ.
    """

    relabel: ClassVar[Mapping[str, float]] = {"discounted": 0.5, "random": 0.5}
    name = "contrastive"
    goal_source = RelabelStrategy.DISCOUNTED

    def __init__(self, embedding_dim: int = 64) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim is {embedding_dim}, but must be at least 1.")
        self.embedding_dim = embedding_dim

    def build_networks(
        self, goal_dim: int, state_dim: int, action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        return nn.ModuleDict(
            {
                "state_action": mlp([state_dim + action_dim, *hidden, self.embedding_dim]),
                "goal": mlp([goal_dim, *hidden, self.embedding_dim]),
            }
        )

    def evaluate(
        self, networks: ActorCritic, batch: Batch, next_actions: Tensor | None = None
    ) -> AuxiliaryOutput:
        """The classifier's loss, a mean over all B² pairs of a state and a future."""
        future = batch.transitions.auxiliary_goal
        assert future is not None, "the replay draws goals by `goal_source`"
        encoders = _encoders(networks)
        state_action = encoders["state_action"](batch.inputs.state_action)
        goal = encoders["goal"](networks.normalize_goal(future))
        is_own = torch.eye(len(goal), device=goal.device)
        loss = F.binary_cross_entropy_with_logits(state_action @ goal.T, is_own)
        return AuxiliaryOutput(loss)

    def action_value(self, networks: ActorCritic, inputs: Inputs, actions: Tensor) -> Tensor:
        encoders = _encoders(networks)
        state = inputs.state_action[:, : -actions.shape[-1]]
        state_action = torch.cat([state, actions], dim=-1)
        embedded = call_frozen(encoders["state_action"], state_action)
        value: Tensor = (embedded * call_frozen(encoders["goal"], inputs.goal)).sum(-1)
        return value


def _encoders(networks: ActorCritic) -> nn.ModuleDict:
    assert isinstance(networks.auxiliary, nn.ModuleDict)
    return networks.auxiliary
