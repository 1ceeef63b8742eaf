"""The gradient step of ODAC as one pure function: networks, target, losses.

`compute_update` is all of the mathematics of an update. The learner draws the batch, minimises the
summed loss and logs `update_metrics`; nothing else of an update happens elsewhere, but for the
target networks' averaging, `ActorCritic.update_targets`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch
from rllib_odac.agent.in_sample import (
    InSampleValue,
    extraction_loss,
    fit_loss,
    in_sample_value,
    losses_of_the_log,
)
from rllib_odac.agent.likelihoods import log_likelihoods
from rllib_odac.agent.objectives.auxiliary import AuxiliaryOutput
from rllib_odac.agent.objectives.base import JudgedTransitions, Objective, RewardAndDiscount
from rllib_odac.agent.value_ahead import back_up, policy_ahead, policy_here, value_ahead
from rllib_odac.maths.losses import bellman_target, dynamics_loss, temperature_loss


class Target(NamedTuple):
    """What critics learn from a batch, what it is made of, and what was said on the way.

    Attributes:
        value: (B,) r + discount · V̂(s', g), constant.
        backup: Reward and discount.
        next_value: (B,) V̂(s', g) of the target networks, within the objective's bounds, constant.
        log_prob_next: (B,) log p_ψ(φ(s') | s, a) of what was reached, or (E, B) by each model.
        log_scale: (B, G) log b of p_ψ, or (E, B, G), constant.
        in_sample: What V(s, g) says, where values come from replayed actions alone.
        auxiliary: What the objective's own networks say, where it has some.
    """

    value: Tensor
    backup: RewardAndDiscount
    next_value: Tensor
    log_prob_next: Tensor
    log_scale: Tensor
    in_sample: InSampleValue | None
    auxiliary: AuxiliaryOutput | None


class Predictions(NamedTuple):
    """What critics and policy say of a batch.

    Attributes:
        q_values: (E, B) Q(s, a, g) of the replayed actions.
        policy_q: (B,) E_{a~π}[min_i Q_i] at s, differentiable to the policy alone; of the critics'
            mean where targets draw their critics.
        policy_kl: (B,) KL(π‖p) at s. Both are estimated from one action, and are exact sums where
            there are finitely many.
        kl_weight: () constant.
    """

    q_values: Tensor
    policy_q: Tensor
    policy_kl: Tensor
    kl_weight: Tensor


class Update(NamedTuple):
    """What one update computes.

    Attributes:
        losses: () each, by the name of its metric. Their gradients reach disjoint parameters, so
            that their sum is minimised by one backward pass.
        predictions: What critics and policy said.
        target: What critics learn; None without critics.
    """

    losses: dict[str, Tensor]
    predictions: Predictions
    target: Target | None = None

    @property
    def total_loss(self) -> Tensor:
        """() the sum of the losses."""
        return functools.reduce(torch.add, self.losses.values())


def compute_target(networks: ActorCritic, objective: Objective, batch: Batch) -> Target:
    """r + discount · V̂(s', g), reward and discount from the objective.

    Args:
        networks: The actor-critic that is trained.
        objective: Which gives reward and discount.
        batch: B relabelled transitions.
    """
    kl_weight = networks.log_kl_weight.detach().exp()
    in_sample = in_sample_value(networks, batch, kl_weight) if networks.rules.is_in_sample else None
    ahead = policy_ahead(networks, batch, kl_weight) if in_sample is None else None
    said = log_likelihoods(networks, batch.inputs)
    auxiliary = (
        None
        if objective.auxiliary is None
        else objective.auxiliary.evaluate(networks, batch, None if ahead is None else ahead.actions)
    )
    with torch.no_grad():
        if ahead is None:
            assert in_sample is not None
            next_value, kl_cost = in_sample.next_value, torch.zeros(())
        else:
            next_value, kl_cost = ahead.q_value - ahead.kl_cost, ahead.kl_cost
            if auxiliary is not None and auxiliary.next_q_bound is not None:
                next_value = torch.maximum(next_value, auxiliary.next_q_bound - kl_cost)
        low, high = objective.value_bounds(networks.max_log_prob)
        if low is not None or high is not None:
            next_value = next_value.clamp(low, high)
        judged = JudgedTransitions(
            batch.transitions,
            said.log_prob_goal,
            networks.goal_scale,
            None if auxiliary is None else auxiliary.reward,
            said.disagreement,
        )
        next_value = value_ahead(networks, objective, batch, judged, next_value, kl_cost)
        backup = back_up(networks, objective, judged, next_value)
        value = bellman_target(backup.reward, backup.discount, next_value)
    log_scale = said.log_scale.detach()
    return Target(value, backup, next_value, said.log_prob_next, log_scale, in_sample, auxiliary)


def compute_update(networks: ActorCritic, objective: Objective, batch: Batch) -> Update:
    """Losses of one update and everything that they are made of; see `compute_target`.

    The policy makes two passes, at s' and at s: in a common one the backward pass would go through
    both halves, although only the actions at s have a gradient.
    """
    target = compute_target(networks, objective, batch)
    policy_q, policy_kl = policy_here(networks, batch)
    q_values = networks.critic(batch.inputs.state_goal, batch.transitions.actions)
    kl_weight = networks.log_kl_weight.detach().exp()
    fit, advantage = fit_loss(networks.rules, q_values, target.value, target.in_sample)
    to_policy = extraction_loss(networks, batch, policy_q, policy_kl, kl_weight, advantage)
    losses = {"critic_loss": fit, "policy_loss": to_policy}
    if networks.dynamics.is_learned:
        losses["dynamics_loss"] = dynamics_loss(target.log_prob_next)
    losses |= losses_of_the_log(networks, batch, q_values, target.in_sample)
    losses |= loss_of_temperature(networks, policy_kl)
    if objective.auxiliary is not None and target.auxiliary is not None:
        losses[f"{objective.auxiliary.name}_loss"] = target.auxiliary.loss
    return Update(losses, Predictions(q_values, policy_q, policy_kl, kl_weight), target)


def loss_of_temperature(networks: ActorCritic, policy_kl: Tensor) -> dict[str, Tensor]:
    """The loss () by which the KL weight is tuned, by name; nothing where it is a constant."""
    weight = networks.log_kl_weight
    if not weight.requires_grad:
        return {}
    return {"temperature_loss": temperature_loss(weight, policy_kl, networks.target_kl)}
