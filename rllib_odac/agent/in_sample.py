"""Values and policies from replayed actions alone, for logs that no new action can be added to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch
from rllib_odac.agent.critics import ActionCritics
from rllib_odac.agent.rules import ADVANTAGE, EXPECTILE, IMITATION, POSTERIOR, RETURNS, Rules
from rllib_odac.maths.losses import (
    LOG_2,
    advantage_weights,
    critic_loss,
    expectile_loss,
    linex_loss,
    policy_loss,
)


class InSampleValue(NamedTuple):
    """What the network V(s, g) says of a batch.

    Attributes:
        next_value: (B,) V(s', g), constant.
        advantage: (B,) Q̄(s, a, g) − V(s, g) of replayed actions, differentiable to V alone.
        loss: () that fits V. Both are None where V is in the critics' place.
    """

    next_value: Tensor
    advantage: Tensor | None = None
    loss: Tensor | None = None


def in_sample_value(networks: ActorCritic, batch: Batch, kl_weight: Tensor) -> InSampleValue:
    """V(s, g) from the target critics' values of replayed actions.

    Args:
        networks: With `state_value`, or with values of "returns".
        batch: B transitions.
        kl_weight: () w, the temperature of the soft value.
    """
    inputs, rules = batch.inputs, networks.rules
    if rules.values == RETURNS:
        actions = batch.transitions.actions  # which it does not look at
        with torch.no_grad():
            return InSampleValue(networks.target_critic.lowest(inputs.next_state_goal, actions))
    assert networks.state_value is not None
    with torch.no_grad():
        q_value = networks.target_critic.lowest(inputs.state_goal, batch.transitions.actions)
        next_value = networks.state_value(inputs.next_state_goal).squeeze(-1)
    advantage = q_value - networks.state_value(inputs.state_goal).squeeze(-1)
    if rules.values == EXPECTILE:
        loss = expectile_loss(advantage, rules.expectile)
    else:
        loss = linex_loss(advantage, kl_weight)
    return InSampleValue(next_value, advantage, loss)


def fit_loss(
    rules: Rules, q_values: Tensor, target: Tensor, in_sample: InSampleValue | None
) -> tuple[Tensor, Tensor | None]:
    """() loss of critics, and the advantage (B,) of the logged steps as far as there is one.

    Args:
        rules: Of the update.
        q_values: (E, B) of replayed actions, or V(s, g) where values are of "returns".
        target: (B,) constant.
        in_sample: What V(s, g) says, if there is one.
    """
    if rules.values == RETURNS:
        difference = target - q_values
        return len(q_values) * expectile_loss(difference, rules.expectile), difference.amin(0)
    return critic_loss(q_values, target), None if in_sample is None else in_sample.advantage


def extraction_loss(
    networks: ActorCritic,
    batch: Batch,
    policy_q: Tensor,
    policy_kl: Tensor,
    kl_weight: Tensor,
    advantage: Tensor | None,
) -> Tensor:
    """() loss of the policy, by the rule for it.

    Args:
        networks: The actor-critic.
        batch: B transitions.
        policy_q: (B,) Q(s, a, g) of the policy's actions, differentiable to them.
        policy_kl: (B,) KL(π‖p).
        kl_weight: () w.
        advantage: (B,) of replayed actions; None where values are explicit.
    """
    rules = networks.rules
    if rules.extraction == POSTERIOR:
        return policy_loss(policy_q, policy_kl, kl_weight)
    log_prob = networks.policy.log_prob(batch.inputs.state_goal, batch.transitions.actions)
    if rules.extraction == IMITATION:
        return -log_prob.mean()
    if rules.extraction == ADVANTAGE:
        assert advantage is not None
        return -(advantage_weights(advantage.detach(), kl_weight) * log_prob).mean()
    unit = policy_q.detach().abs().mean() + 1e-6
    return -policy_q.mean() / unit - rules.bc_weight * log_prob.mean()


def conservative_loss(networks: ActorCritic, batch: Batch, q_values: Tensor) -> Tensor:
    """() log ∫ exp Q(s, a, g) da − Q of replayed actions, summed over critics.

    Conservative Q-learning's regulariser (Kumar et al. 2020, arXiv 2006.04779, eq. 4). The integral
    is estimated from one uniform action and one of the policy, each weighted by its density; of
    finitely many actions it is their sum.

    Args:
        networks: The actor-critic.
        batch: B transitions.
        q_values: (E, B) of replayed actions.
    """
    state_goal = batch.inputs.state_goal
    if isinstance(networks.critic, ActionCritics):
        return (networks.critic.each(state_goal).logsumexp(-1) - q_values).mean(-1).sum()
    with torch.no_grad():
        uniform = 2 * torch.special.ndtr(batch.noise[1]) - 1  # of a normal one
        actions, log_prob = networks.policy.sample(state_goal, batch.noise[0])
    of_uniform = networks.critic(state_goal, uniform) + networks.action_dim * LOG_2
    of_policy = networks.critic(state_goal, actions) - log_prob
    return (torch.logaddexp(of_uniform, of_policy) - LOG_2 - q_values).mean(-1).sum()


def losses_of_the_log(
    networks: ActorCritic, batch: Batch, q_values: Tensor, in_sample: InSampleValue | None
) -> dict[str, Tensor]:
    """Losses () by name of V(s, g), of the penalty and of a learned prior, as far as there are any.

    Args:
        networks: The actor-critic.
        batch: B transitions.
        q_values: (E, B) of replayed actions.
        in_sample: What V(s, g) says, if it is learned.
    """
    losses = {}
    if in_sample is not None and in_sample.loss is not None:
        losses["state_value_loss"] = in_sample.loss
    if (weight := networks.rules.conservative_weight) > 0:
        losses["conservative_loss"] = weight * conservative_loss(networks, batch, q_values)
    prior_loss = networks.action_prior.loss(batch.prior_inputs, batch.transitions.actions)
    if prior_loss is not None:
        losses["action_prior_loss"] = prior_loss
    return losses
