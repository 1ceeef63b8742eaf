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
    goals of other rows of the batch, which are independent draws, but for those that are the same
    as g: of an object that has not moved a batch holds the one goal many times.

    It learns from an episode's own goals and the states that the episodes ended in. A goal given in
    hindsight teaches it nothing, for it was taken from the state that it would be compared with:
    there, where s' is the state it was taken from, the reward is the best there is, without asking
    the discriminator, as in the paper.

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
        self, goal_dim: int, state_dim: int, action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        return mlp([goal_dim, *hidden, self.embedding_dim])

    def evaluate(
        self, networks: ActorCritic, batch: Batch, next_actions: Tensor | None = None
    ) -> AuxiliaryOutput:
        """The classifier's loss, and the reward of each transition."""
        logits, next_logits = self.logits(networks, batch)
        rows = batch.transitions
        if self.clipped:
            reward, best = (next_logits[:, 0] / self.sharpness).clamp(0, 1), 1.0
        else:
            reward, best = next_logits.log_softmax(-1)[:, 0], 0.0
        is_source = rows.relabelled & (rows.next_achieved_goal == rows.goal).all(-1)
        own = (~rows.relabelled).to(logits.dtype)
        loss = -(own * logits.log_softmax(-1)[:, 0]).sum() / own.sum().clamp_min(1)
        return AuxiliaryOutput(loss, reward.masked_fill(is_source, best))

    def logits(self, networks: ActorCritic, batch: Batch) -> tuple[Tensor, Tensor]:
        """β e(d)ᵀe(x) of the episode's end, and of φ(s') without gradient; the true goal's first.

        Returns:
            (B, K + 1) each.
        """
        goal, final_goal = batch.transitions.goal, batch.transitions.auxiliary_goal
        assert final_goal is not None, "the replay draws goals by `goal_source`"
        embedded = _embed(networks, torch.cat([goal, final_goal]))
        goal_embedding, reached_embedding = embedded.chunk(2)
        is_same = torch.cdist(goal, goal) < networks.trivial_distance
        with torch.no_grad():
            next_embedding = _embed(networks, batch.transitions.next_achieved_goal)
            next_logits = self.similarities(next_embedding, goal_embedding, is_same)
        return self.similarities(reached_embedding, goal_embedding, is_same), next_logits

    def similarities(self, reached: Tensor, goal: Tensor, is_same: Tensor) -> Tensor:
        """(B, K + 1) β e(d)ᵀe(x) for embeddings (B, E) of x, to their own goal and K others.

        Those of goals that are the same as its own, by (B, B) flags, are −inf.
        """
        size = len(goal)
        row = torch.arange(size, device=goal.device)
        candidates = (row[:, None] + row[: self.num_decoys + 1]) % size
        is_no_decoy = torch.where(candidates == row[:, None], False, is_same.gather(1, candidates))
        similarity = self.sharpness * (reached @ goal.T).gather(1, candidates)
        return similarity.masked_fill(is_no_decoy, -torch.inf)


def _embed(networks: ActorCritic, goals: Tensor) -> Tensor:
    """(B, E) embeddings of unit length of (B, G) goals in the environment's units."""
    assert networks.auxiliary is not None
    return F.normalize(networks.auxiliary(networks.normalize_goal(goals)), dim=-1)
