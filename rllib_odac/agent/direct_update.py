"""The update of an objective that gives the values itself: actor, its own networks, no critics."""

from __future__ import annotations

import functools

import torch

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch
from rllib_odac.agent.objectives.base import DirectObjective
from rllib_odac.agent.update import Predictions, Update, loss_of_temperature
from rllib_odac.maths.losses import policy_loss


def direct_predictions(
    networks: ActorCritic, objective: DirectObjective, batch: Batch
) -> Predictions:
    """What the networks of such an objective say of a batch."""
    with torch.no_grad():
        q_values = objective.action_value(networks, batch.inputs, batch.transitions.actions)
    actions, log_prob = networks.policy.mixture(batch.inputs.state_goal, batch.noise[0])
    action_value = functools.partial(objective.action_value, networks, batch.inputs)
    policy_q = networks.policy.expectation(action_value, actions)
    kl_weight = networks.log_kl_weight.detach().exp()
    kl = networks.action_prior.kl(networks.policy, batch.prior_inputs, actions, log_prob)
    return Predictions(q_values.unsqueeze(0), policy_q, kl, kl_weight)


def direct_update(networks: ActorCritic, objective: DirectObjective, batch: Batch) -> Update:
    """Losses of one update and what they are made of; see `compute_update`."""
    said = direct_predictions(networks, objective, batch)
    losses = {
        f"{objective.name}_loss": objective.evaluate(networks, batch).loss,
        "policy_loss": policy_loss(said.policy_q, said.policy_kl, said.kl_weight),
        **loss_of_temperature(networks, said.policy_kl),
    }
    return Update(losses, said)
