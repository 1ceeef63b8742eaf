"""`Discriminator`: which goal something was reached for, learned as a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.networks import mlp
from rllib_odac.agent.objectives.auxiliary import Auxiliary, AuxiliaryOutput
from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.agent.actor_critic import ActorCritic
    from rllib_odac.agent.batch import Batch


class Discriminator(Auxiliary):
    """q(g | x) = softmax over {g, d₁ ... d_K} of β e(·)ᵀe(x), at g, for embeddings e of length one.

    A classifier without further parameters, whose log-likelihood is a lower bound on the mutual
    information of goals and what is reached (Warde-Farley et al. 2019, section 3). The decoys d are
    goals of other rows of the batch, which are independent draws.

    It learns from pairs of goal and what was reached in pursuit of it. For an episode's own goal
    that is the state that the episode ended in, as in the paper. For a goal given in hindsight it
    is the state that the goal was taken from. The paper rewards these by one instead of asking the
    discriminator; without them a policy that reaches nothing yet would leave nothing to learn from.

    Args:
        num_decoys: K; at most one less than the batch has rows.
        sharpness: β.
        embedding_dim: Width of e.
        clipped: Whether the reward is the paper's own, max(0, e(g)ᵀe(φ(s'))), in which decoys have
            no part, instead of log q(g | φ(s')).
    """

    name = "discriminator"
    goal_source = RelabelStrategy.FINAL

    def __init__(
        self, num_decoys: int, sharpness: float, embedding_dim: int, clipped: bool
    ) -> None:
        self.num_decoys = num_decoys
        self.sharpness = sharpness
        self.embedding_dim = embedding_dim
        self.clipped = clipped

    def build_networks(
        self, goal_dim: int, state_action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        return mlp([goal_dim, *hidden, self.embedding_dim])

    def evaluate(
        self, networks: ActorCritic, batch: Batch, next_actions: Tensor
    ) -> AuxiliaryOutput:
        """The classifier's loss, and the reward of each transition."""
        logits, next_logits = self.logits(networks, batch)
        if self.clipped:
            reward = (next_logits[:, 0] / self.sharpness).clamp(0, 1)
        else:
            reward = next_logits.log_softmax(-1)[:, 0]
        return AuxiliaryOutput(-logits.log_softmax(-1)[:, 0].mean(), reward)

    def logits(self, networks: ActorCritic, batch: Batch) -> tuple[Tensor, Tensor]:
        """β e(d)ᵀe(x) of what was reached, and of φ(s') without gradient; the true goal's first.

        Returns:
            (B, K + 1) each.
        """
        goal, relabelled = batch.transitions.goal, batch.transitions.relabelled
        final_goal = batch.transitions.auxiliary_goal
        assert final_goal is not None, "the replay draws goals by `goal_source`"
        reached = torch.where(relabelled.unsqueeze(-1), goal, final_goal)
        embedded = _embed(networks, torch.cat([goal, reached]))
        goal_embedding, reached_embedding = embedded.chunk(2)
        with torch.no_grad():
            next_embedding = _embed(networks, batch.transitions.next_achieved_goal)
            next_logits = self.similarities(next_embedding, goal_embedding)
        return self.similarities(reached_embedding, goal_embedding), next_logits

    def similarities(self, reached: Tensor, goal: Tensor) -> Tensor:
        """(B, K + 1) β e(d)ᵀe(x) for embeddings (B, E) of x, to their own goal and K others."""
        size = len(goal)
        row = torch.arange(size, device=goal.device)
        candidates = (row[:, None] + row[: self.num_decoys + 1]) % size
        return self.sharpness * (reached @ goal.T).gather(1, candidates)


def _embed(networks: ActorCritic, goals: Tensor) -> Tensor:
    """(B, E) embeddings of unit length of (B, G) goals in the environment's units."""
    assert networks.auxiliary is not None
    return F.normalize(networks.auxiliary(networks.normalize_goal(goals)), dim=-1)
