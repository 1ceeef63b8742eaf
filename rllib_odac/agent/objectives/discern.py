"""DISCERN: the reward is how well a learned discriminator tells the goal from what was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.networks import mlp
from rllib_odac.agent.objectives.base import Backup, Objective, constant_discount
from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig
    from rllib_odac.rl_module import ODACRLModule

REWARDS = ("log_likelihood", "clipped")


class DISCERNObjective(Objective):
    """r = log q(g | φ(s')), the discriminator's log-likelihood of the goal among K decoys.

    Warde-Farley et al. 2019 (arXiv 1811.11359). An embedding e of unit length, shared by goals and
    achieved goals, makes a classifier without parameters of its own, a lower bound on the mutual
    information of goals and what is reached in pursuit of them:

        log q(g | x) = log softmax over {g, d₁ ... d_K} of β e(·)ᵀe(x),   at g

    The decoys d are goals of other rows of the batch, which are independent draws. The paper's own
    reward is "clipped": max(0, e(g)ᵀe(φ(s'))), which does without the noise of the decoys.

    The discriminator learns from pairs (what was reached, what for). Of an episode's own goal that
    is the state that the episode ended in, as in the paper; of a goal given in hindsight it is the
    state that the goal was taken from, for which it would have been perfectly achieved. Without the
    latter, which the paper rewards by one instead of asking the discriminator, a policy that does
    not reach anything yet would give the discriminator nothing to learn from.

    The paper pays at the end of an episode, of fixed length; here every step is paid, as under the
    other objectives, and a terminal state for ever.

    Args:
        num_decoys: K; at most one less than the batch has rows.
        sharpness: β, or None for the paper's K + 1.
        reward: "log_likelihood" or "clipped".
        embedding_dim: Width of e.
        discount: γ.
    """

    extra_goals: ClassVar[Mapping[str, RelabelStrategy]] = {"final_goal": RelabelStrategy.FINAL}

    def __init__(
        self,
        num_decoys: int = 63,
        sharpness: float | None = None,
        reward: str = "log_likelihood",
        embedding_dim: int = 16,
        discount: float = 0.95,
    ) -> None:
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
        if not 0 < discount < 1:
            raise ValueError(f"discount is {discount}, but must be in (0, 1).")
        self.num_decoys = num_decoys
        self.sharpness = num_decoys + 1 if sharpness is None else sharpness
        self.reward = reward
        self.reward_is_local = reward == "clipped"  # else goals of other rows are the decoys
        self.embedding_dim = embedding_dim
        self.discount = discount

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return {"discount": config.prior_discount}

    def build_networks(
        self, goal_dim: int, state_action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        return mlp([goal_dim, *hidden, self.embedding_dim])

    def forward(
        self, module: ODACRLModule, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        goal, relabelled = batch["goal"], batch["relabelled"]
        reached = torch.where(relabelled.unsqueeze(-1), goal, batch["final_goal"])
        goal_embedding, reached_embedding = _embed(module, torch.cat([goal, reached])).chunk(2)
        with torch.no_grad():
            next_embedding = _embed(module, batch["next_achieved_goal"])
            next_logits = self.logits(next_embedding, goal_embedding)
            if self.reward == "clipped":
                reward = (next_logits[:, 0] / self.sharpness).clamp(0, 1)
            else:
                reward = next_logits.log_softmax(-1)[:, 0]
        logits = self.logits(reached_embedding, goal_embedding)
        return {"goal_log_likelihood": logits.log_softmax(-1)[:, 0], "discriminator_reward": reward}

    def logits(self, reached: Tensor, goal: Tensor) -> Tensor:
        """Similarity of what was reached to its goal and to those of other rows.

        Args:
            reached: (B, E) embeddings of unit length.
            goal: (B, E) those of the goals.

        Returns:
            (B, K + 1) logits, the true goal's first.
        """
        size = len(goal)
        row = torch.arange(size, device=goal.device)
        candidates = (row[:, None] + row[: self.num_decoys + 1]) % size
        return self.sharpness * (reached @ goal.T).gather(1, candidates)

    def losses(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"discriminator_loss": -outputs["goal_log_likelihood"].mean()}

    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        return constant_discount(batch["discriminator_reward"], self.discount, batch["terminated"])

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # The KL is not negative, and with its weight there is no bound from below.
        return None, 1 / (1 - self.discount) if self.reward == "clipped" else 0.0


def _embed(module: ODACRLModule, goals: Tensor) -> Tensor:
    """(B, E) embeddings of unit length of (B, G) goals in the task's units."""
    return F.normalize(module.objective_networks(module.normalize_goal(goals)), dim=-1)
