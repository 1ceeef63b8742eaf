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
from rllib_odac.agent.objectives.auxiliary import LearnedValues
from rllib_odac.agent.objectives.base import JudgedTransitions, Objective, RewardAndDiscount
from rllib_odac.agent.value_ahead import value_ahead
from rllib_odac.maths.losses import (
    action_prior_kl,
    bellman_target,
    critic_loss,
    dynamics_loss,
    policy_loss,
    soft_value,
    temperature_loss,
)


class Predictions(NamedTuple):
    """What the networks say of a batch; the last three are None where there are no critics.

    Attributes:
        q_values: (E, B) Q(s, a, g) of the replayed actions.
        policy_q: (B,) min_i Q_i of fresh actions at s, differentiable to the policy alone; the mean
            where targets draw their critics.
        policy_kl: (B,) one-sample KL(π‖p) at s.
        kl_weight: () constant.
        log_prob_next: (B,) log p_ψ(φ(s') | s, a) of what was reached.
        log_scale: (B, G) log b of p_ψ, constant.
        next_value: (B,) V̂(s', g) of the target networks, within the objective's bounds, constant.
    """

    q_values: Tensor
    policy_q: Tensor
    policy_kl: Tensor
    kl_weight: Tensor
    log_prob_next: Tensor | None = None
    log_scale: Tensor | None = None
    next_value: Tensor | None = None


class Update(NamedTuple):
    """What one update computes.

    Attributes:
        losses: () each, by the name of its metric. Their gradients reach disjoint parameters, so
            that their sum is minimised by one backward pass.
        predictions: What the networks said.
        target: (B,) what critics learn, constant; None without critics.
        backup: Reward and discount, of which the target is made.
    """

    losses: dict[str, Tensor]
    predictions: Predictions
    target: Tensor | None = None
    backup: RewardAndDiscount | None = None

    @property
    def total_loss(self) -> Tensor:
        """() the sum of the losses."""
        return functools.reduce(torch.add, self.losses.values())


def compute_update(networks: ActorCritic, objective: Objective, batch: Batch) -> Update:
    """Losses of one update and everything that they are made of.

    Args:
        networks: The actor-critic that is trained.
        objective: Which gives reward and discount.
        batch: B relabelled transitions.
    """
    if isinstance(objective.auxiliary, LearnedValues):
        return _update_without_critics(networks, objective.auxiliary, batch)
    transitions, inputs = batch.transitions, batch.inputs
    noise, next_noise = batch.noise
    kl_weight = networks.log_kl_weight.detach().exp()

    # Networks. The policy makes two passes: in a common one the backward pass would go through both
    # halves, although only the actions at s have a gradient.
    with torch.no_grad():
        next_actions, next_log_prob = networks.policy.sample(inputs.next_state_goal, next_noise)
        next_q = networks.target_critic(inputs.next_state_goal, next_actions)
        if batch.target_critics is not None:
            next_q = next_q[batch.target_critics]
        next_q = next_q.amin(0)
        next_kl = action_prior_kl(next_log_prob, next_actions)
    actions, log_prob = networks.policy.sample(inputs.state_goal, noise)
    policy_q = networks.critic(inputs.state_goal, actions, frozen=True)
    # The minimum of many critics would be too pessimistic: their mean, as in REDQ.
    policy_q = policy_q.amin(0) if batch.target_critics is None else policy_q.mean(0)
    policy_kl = action_prior_kl(log_prob, actions)
    q_values = networks.critic(inputs.state_goal, transitions.actions)
    mean, log_scale = networks.dynamics(inputs.state_action)
    to_goal = inputs.goal_offset - inputs.displacement  # g − φ(s')
    outcomes = torch.stack([inputs.goal - to_goal, inputs.goal])
    ways = torch.stack([inputs.displacement, inputs.goal_offset])
    log_prob_next, log_prob_goal = networks.dynamics.log_prob(outcomes, ways - mean, log_scale)
    log_prob_goal = log_prob_goal.detach()
    auxiliary = (
        None
        if objective.auxiliary is None
        else objective.auxiliary.evaluate(networks, batch, next_actions)
    )

    # Target: r + discount · V̂(s', g), reward and discount from the objective.
    with torch.no_grad():
        if auxiliary is not None and auxiliary.next_q_bound is not None:
            next_q = torch.maximum(next_q, auxiliary.next_q_bound)
        next_value = soft_value(next_q, next_kl, kl_weight)
        low, high = objective.value_bounds(networks.max_log_prob)
        if low is not None or high is not None:
            next_value = next_value.clamp(low, high)
        reward = None if auxiliary is None else auxiliary.reward
        judged = JudgedTransitions(transitions, log_prob_goal, networks.goal_scale, reward)
        next_value = value_ahead(
            networks, objective, batch, judged, next_value, kl_weight * next_kl
        )
        backup = objective.reward_and_discount(judged, next_value)
        target = bellman_target(backup.reward, backup.discount, next_value)

    # Losses.
    losses = {
        "critic_loss": critic_loss(q_values, target),
        "policy_loss": policy_loss(policy_q, policy_kl, kl_weight),
    }
    if networks.dynamics.is_learned:
        losses["dynamics_loss"] = dynamics_loss(log_prob_next)
    losses |= _temperature_loss(networks, policy_kl)
    if objective.auxiliary is not None and auxiliary is not None:
        losses[f"{objective.auxiliary.name}_loss"] = auxiliary.loss
    predictions = Predictions(
        q_values, policy_q, policy_kl, kl_weight, log_prob_next, log_scale.detach(), next_value
    )
    return Update(losses, predictions, target, backup)


def _temperature_loss(networks: ActorCritic, policy_kl: Tensor) -> dict[str, Tensor]:
    weight = networks.log_kl_weight
    if not weight.requires_grad:
        return {}
    return {"temperature_loss": temperature_loss(weight, policy_kl, networks.target_kl)}


def predict_without_critics(
    networks: ActorCritic, values: LearnedValues, batch: Batch
) -> Predictions:
    """What the networks of an objective say that gives the policy's values itself."""
    with torch.no_grad():
        q_values = values.action_value(networks, batch.inputs, batch.transitions.actions)
    actions, log_prob = networks.policy.sample(batch.inputs.state_goal, batch.noise[0])
    policy_q = values.action_value(networks, batch.inputs, actions)
    kl_weight = networks.log_kl_weight.detach().exp()
    return Predictions(
        q_values.unsqueeze(0), policy_q, action_prior_kl(log_prob, actions), kl_weight
    )


def _update_without_critics(networks: ActorCritic, values: LearnedValues, batch: Batch) -> Update:
    said = predict_without_critics(networks, values, batch)
    losses = {
        f"{values.name}_loss": values.evaluate(networks, batch).loss,
        "policy_loss": policy_loss(said.policy_q, said.policy_kl, said.kl_weight),
        **_temperature_loss(networks, said.policy_kl),
    }
    return Update(losses, said)
