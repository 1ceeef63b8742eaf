"""What the policy is worth at s and at s', where s' may be terminal or several steps ahead."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch
from rllib_odac.agent.likelihoods import likelihoods_ahead
from rllib_odac.agent.objectives.base import JudgedTransitions, Objective, RewardAndDiscount
from rllib_odac.maths.losses import bellman_target


class PolicyAhead(NamedTuple):
    """The policy at s': its `mixture` (B, A), E[min_i Q̄_i(s', a', g)] (B,) and w KL (B,)."""

    actions: Tensor
    q_value: Tensor
    kl_cost: Tensor


def policy_here(networks: ActorCritic, batch: Batch) -> tuple[Tensor, Tensor]:
    """E_{a~π}[min_i Q_i(s, a, g)] (B,), differentiable to the policy alone, and KL(π‖p) (B,) at s.

    Where targets draw their critics the mean of all takes the minimum's place, as in REDQ: the
    minimum of many would be too pessimistic.
    """
    inputs = batch.inputs.state_goal
    actions, log_prob = networks.policy.mixture(inputs, batch.noise[0])
    if batch.target_critics is None:
        q_value = networks.critic.lowest(inputs, actions, frozen=True)
    else:
        q_value = networks.critic(inputs, actions, frozen=True).mean(0)
    kl = networks.action_prior.kl(networks.policy, batch.prior_inputs, actions, log_prob)
    return q_value, kl


@torch.no_grad()
def policy_ahead(networks: ActorCritic, batch: Batch, kl_weight: Tensor) -> PolicyAhead:
    """What the target critics say of the policy's actions at s'."""
    inputs = batch.inputs.next_state_goal
    actions, log_prob = networks.policy.mixture(inputs, batch.noise[1])
    q_value = networks.target_critic.lowest(inputs, actions, batch.target_critics)
    kl = networks.action_prior.kl(networks.policy, batch.next_prior_inputs, actions, log_prob)
    return PolicyAhead(actions, q_value, kl_weight * kl)


def back_up(
    networks: ActorCritic, objective: Objective, judged: JudgedTransitions, next_value: Tensor
) -> RewardAndDiscount:
    """Reward and discount of transitions, the reward with w_u times the model's disagreement.

    A negative weight w_u is the penalty by which MOPO keeps to what a log shows (Yu et al. 2020,
    arXiv 2005.13239), a positive one a bonus for finding out. A step has it whether the outcome
    comes about in it or not, as it has the KL of its action, so that q_Δ is as without.

    Args:
        networks: The actor-critic.
        objective: Which gives reward and discount.
        judged: B transitions.
        next_value: (B,) V(s', g).
    """
    backup = objective.reward_and_discount(judged, next_value)
    if judged.disagreement is None:
        return backup
    reward = backup.reward + networks.rules.disagreement_weight * judged.disagreement
    metrics = {**backup.metrics, "disagreement": judged.disagreement}
    return backup._replace(reward=reward, metrics=metrics)


def value_ahead(
    networks: ActorCritic,
    objective: Objective,
    batch: Batch,
    judged: JudgedTransitions,
    last_value: Tensor,
    kl_cost: Tensor,
) -> Tensor:
    """(B,) V(s', g) as the steps that follow say, which may be none, and terminal states.

    Args:
        networks: The actor-critic.
        objective: Which gives reward and discount.
        batch: B transitions and the steps that follow.
        judged: The same transitions, judged.
        last_value: (B,) value of the state after the last of these steps.
        kl_cost: (B,) what acting costs a step, in nats.
    """
    goal, last = batch.inputs.goal, batch.last
    value = last_value
    if last.terminated is not None:
        to_goal = (last.goal - last.next_achieved_goal) / networks.goal_scale
        stay = networks.dynamics.log_prob_of_staying(goal, to_goal)
        staying = judged._replace(transitions=last.staying(), log_prob_goal=stay, disagreement=None)
        value = torch.where(last.terminated, objective.value_of_staying(staying), last_value)
    said = likelihoods_ahead(networks, batch)
    for step, (log_prob, disagreement) in reversed(list(zip(batch.following, said, strict=True))):
        further = judged._replace(
            transitions=step.transitions, log_prob_goal=log_prob, disagreement=disagreement
        )
        backup = back_up(networks, objective, further, value)
        further_value = bellman_target(backup.reward, backup.discount, value) - kl_cost
        within = step.transitions.within
        value = further_value if within is None else torch.where(within, further_value, value)
    return value
