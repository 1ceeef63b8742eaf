"""p_ψ as a mixture of models that start apart: where they disagree, the data do not say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rllib_odac.agent.mlp_ensemble import MLPEnsemble
from rllib_odac.agent.networks import GoalDynamics


class DynamicsEnsemble(GoalDynamics):
    """E densities p_e, computed by one batched product a layer, and their mixture.

        p_ψ(φ(s') | s, a) = (1/E) Σ_e p_e(φ(s') | s, a)

    Each member learns by its own likelihood. They see the same batches and differ by their
    initialisation, which suffices for ensembles of networks (Lakshminarayanan et al. 2017, arXiv
    1612.01474, section 2.4); a bootstrap would leave each of them a part of the data.

    Args:
        input_dim: Width of the normalised input (state and action, no goal).
        goal_dim: G.
        hidden: Widths of the hidden layers of each member.
        distribution: "laplace" or "gaussian".
        num_members: E.
        min_scale: As of `GoalDynamics`, like the two that follow.
        background: ε.
        layer_norm: Normalise each hidden layer before its ReLU.
    """

    is_learned = True

    def __init__(
        self,
        input_dim: int,
        goal_dim: int,
        hidden: Sequence[int],
        distribution: str = "laplace",
        *,
        num_members: int,
        min_scale: float = 0.01,
        background: float = 0.05,
        layer_norm: bool = False,
    ) -> None:
        # Its one network is left out.
        super().__init__(
            input_dim, goal_dim, hidden, distribution,
            background=background, learned=False, fixed_scale=min_scale,
        )  # fmt: skip
        self.members = MLPEnsemble([input_dim, *hidden, 2 * goal_dim], num_members, layer_norm)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements μ_e (E, B, G) and log scales log b_e (E, B, G), in goal scales."""
        displacement, scale = self.members.each(inputs).chunk(2, dim=-1)
        return displacement, self.log_min_scale * torch.sigmoid(scale)

    def member_log_probs(
        self, goal: Tensor, way: Tensor, displacement: Tensor, log_scale: Tensor
    ) -> Tensor:
        """(..., E, B) log p_e of goals (..., B, G); see `GoalDynamics`."""
        return self.log_prob(goal.unsqueeze(-3), way.unsqueeze(-3) - displacement, log_scale)

    def mixed(self, log_probs: Tensor) -> Tensor:
        """(..., B) log p_ψ = log (1/E) Σ_e p_e from the members' (..., E, B)."""
        return log_probs.logsumexp(-2) - math.log(self.members.num_members)

    def averaged(self, values: Tensor) -> Tensor:
        """(B, G) the mean over members of (E, B, G)."""
        return values.mean(0)

    def draw(self, displacement: Tensor, log_scale: Tensor, chance: Tensor) -> Tensor:
        """(B, G) each by one of the members; see `GoalDynamics`."""
        chosen = (chance[:, -1] * self.members.num_members).long()
        rows = torch.arange(len(chosen), device=chosen.device)
        return super().draw(displacement[chosen, rows], log_scale[chosen, rows], chance)

    def disagreement(self, displacement: Tensor) -> Tensor:
        """(B,) ( (1/E) Σ_e ‖μ_e − μ̄‖² )^½ in goal scales, constant.

        What the mixture's deviation has besides that of its members, by the law of total variance.
        """
        return displacement.detach().var(0, correction=0).sum(-1).sqrt()

    def central_probability(self, delta: Tensor, log_scale: Tensor) -> Tensor:
        """(B, G) |2 F − 1|, F the mixture's distribution function of each coordinate.

        Args:
            delta: (E, B, G) as of `GoalDynamics.log_prob`.
            log_scale: (E, B, G) log b_e.
        """
        return (delta.sign() * super().central_probability(delta, log_scale)).mean(0).abs()
