"""What the policy is worth at s and at s', where s' may be terminal or several steps ahead."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch
from rllib_odac.agent.objectives.base import JudgedTransitions, Objective
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
        staying = judged._replace(transitions=last.staying(), log_prob_goal=stay)
        value = torch.where(last.terminated, objective.value_of_staying(staying), last_value)
    for step in reversed(batch.following):
        mean, log_scale = networks.dynamics(step.state_action)
        log_prob = networks.dynamics.log_prob(goal, step.goal_offset - mean, log_scale)
        further = judged._replace(transitions=step.transitions, log_prob_goal=log_prob)
        backup = objective.reward_and_discount(further, value)
        further_value = bellman_target(backup.reward, backup.discount, value) - kl_cost
        within = step.transitions.within
        value = further_value if within is None else torch.where(within, further_value, value)
    return value
