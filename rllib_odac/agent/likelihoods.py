"""What p_ψ says of a batch: log-likelihoods of what was reached and of the goal, from one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import FollowingStep, Inputs


class Likelihoods(NamedTuple):
    """What p_ψ says of B transitions.

    Attributes:
        log_prob_next: (B,) log p_ψ(φ(s') | s, a) of what was reached, or (E, B) by each model of
            an ensemble, which learns by its own.
        log_prob_goal: (B,) log p_ψ(g | s, a), constant.
        log_scale: (B, G) log b, or (E, B, G).
        disagreement: (B,) of an ensemble, in goal scales, constant; else None.
    """

    log_prob_next: Tensor
    log_prob_goal: Tensor
    log_scale: Tensor
    disagreement: Tensor | None


def log_likelihoods(networks: ActorCritic, inputs: Inputs) -> Likelihoods:
    """Of what was reached and of the goal."""
    dynamics = networks.dynamics
    mean, log_scale = dynamics(inputs.state_action)
    to_goal = inputs.goal_offset - inputs.displacement  # g − φ(s')
    outcomes = torch.stack([inputs.goal - to_goal, inputs.goal])
    ways = torch.stack([inputs.displacement, inputs.goal_offset])
    log_prob_next, log_prob_goal = dynamics.member_log_probs(outcomes, ways, mean, log_scale)
    log_prob_goal = dynamics.mixed(log_prob_goal.detach())
    return Likelihoods(log_prob_next, log_prob_goal, log_scale, dynamics.disagreement(mean))


def likelihood_ahead(
    networks: ActorCritic, step: FollowingStep, goal: Tensor
) -> tuple[Tensor, Tensor | None]:
    """(B,) log p_ψ(g | s, a) of a later step, and the disagreement there, as of `Likelihoods`."""
    dynamics = networks.dynamics
    mean, log_scale = dynamics(step.state_action)
    log_probs = dynamics.member_log_probs(goal, step.goal_offset, mean, log_scale)
    return dynamics.mixed(log_probs), dynamics.disagreement(mean)
