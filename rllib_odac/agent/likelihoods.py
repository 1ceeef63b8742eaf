"""log p_ψ(φ(s') | s, a) and log p_ψ(g | s, a) of a batch, from one pass of the dynamics."""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Inputs


def log_likelihoods(networks: ActorCritic, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """log p_ψ of what was reached (B,) and, constant, of the goal (B,); and log b (B, G)."""
    mean, log_scale = networks.dynamics(inputs.state_action)
    to_goal = inputs.goal_offset - inputs.displacement  # g − φ(s')
    outcomes = torch.stack([inputs.goal - to_goal, inputs.goal])
    ways = torch.stack([inputs.displacement, inputs.goal_offset])
    log_prob_next, log_prob_goal = networks.dynamics.log_prob(outcomes, ways - mean, log_scale)
    return log_prob_next, log_prob_goal.detach(), log_scale
