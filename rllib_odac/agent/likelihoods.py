"""What p_ψ says of a batch: log-likelihoods of what was reached and of the goal, from one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch, Inputs
from rllib_odac.agent.rules import RETURNS


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


def likelihoods_ahead(networks: ActorCritic, batch: Batch) -> list[tuple[Tensor, Tensor | None]]:
    """(B,) log p_ψ(g | s, a) of each later step, and the disagreement there, as of `Likelihoods`.

    Where values are of "returns", which pays for many steps, only of the one that ends nearest the
    goal. The others count as background, so that values are still a lower bound.
    """
    goal, steps = batch.inputs.goal, batch.following
    if networks.rules.values != RETURNS or len(steps) < 2:
        return [
            _likelihood_ahead(networks, step.state_action, step.goal_offset, goal) for step in steps
        ]
    ends = torch.stack([step.transitions.next_achieved_goal for step in steps])
    nearest = (ends - batch.transitions.goal).norm(dim=-1).argmin(0)
    chosen = nearest, torch.arange(len(nearest), device=nearest.device)
    state_action = torch.stack([step.state_action for step in steps])[chosen]
    offset = torch.stack([step.goal_offset for step in steps])[chosen]
    log_prob, disagreement = _likelihood_ahead(networks, state_action, offset, goal)
    background = networks.dynamics.log_prob_of_background(goal)
    return [
        (
            torch.where(nearest == index, log_prob, background),
            None if disagreement is None else disagreement * (nearest == index),
        )
        for index in range(len(steps))
    ]


def _likelihood_ahead(
    networks: ActorCritic, state_action: Tensor, goal_offset: Tensor, goal: Tensor
) -> tuple[Tensor, Tensor | None]:
    dynamics = networks.dynamics
    mean, log_scale = dynamics(state_action)
    log_probs = dynamics.member_log_probs(goal, goal_offset, mean, log_scale)
    return dynamics.mixed(log_probs), dynamics.disagreement(mean)
