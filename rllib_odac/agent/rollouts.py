"""Steps that p_ψ makes up, as further data for critics, where goals are all that is observed.

COMBO (Yu et al. 2021, arXiv 2102.08363) learns from replayed and made-up steps together, under a
penalty on values of actions that are not in the replay; MOPO (Yu et al. 2020, arXiv 2005.13239)
subtracts the model's disagreement from rewards. Both weights are settings of their own. Rollouts
here are of one step, made anew for each update from the states of its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch, prepare
from rllib_odac.agent.direct_update import direct_update
from rllib_odac.agent.objectives.base import AnyObjective, DirectObjective, Objective
from rllib_odac.agent.rules import Rules
from rllib_odac.agent.update import Update, compute_target, compute_update
from rllib_odac.maths.losses import critic_loss


@torch.no_grad()
def made_up(networks: ActorCritic, batch: Batch) -> Batch:
    """One step of the policy from each state of a batch, to where p_ψ says that it leads.

    The next achieved goal is drawn from the learned part of p_ψ, without the background, and is
    the next observation too. No such step ends an episode.

    Args:
        networks: The actor-critic.
        batch: B transitions, with `chance`.
    """
    assert batch.chance is not None
    rows, dynamics = batch.transitions, networks.dynamics
    actions, _ = networks.policy.sample(batch.inputs.state_goal, batch.noise[0])
    inputs = networks.dynamics_inputs(rows.observation, rows.achieved_goal, actions)
    displacement, log_scale = dynamics(inputs)
    way = dynamics.draw(displacement, log_scale, batch.chance)
    place = rows.achieved_goal + networks.goal_scale * way
    steps = rows._replace(
        actions=actions, next_observation=place, next_achieved_goal=place, terminated=None
    )
    return Batch(steps, prepare(networks, steps), batch.noise, target_critics=batch.target_critics)


def update_with_rollouts(networks: ActorCritic, objective: Objective, batch: Batch) -> Update:
    """`compute_update`, whose critics learn from as many made-up steps besides.

    Their targets are made as those of replayed steps, the penalty of disagreement included.

    Args:
        networks: The actor-critic that is trained.
        objective: Which gives reward and discount.
        batch: B relabelled transitions.
    """
    update = compute_update(networks, objective, batch)
    steps = made_up(networks, batch)
    with torch.no_grad():
        target = compute_target(networks, objective, steps).value
    q_values = networks.critic(steps.inputs.state_goal, steps.transitions.actions)
    loss = networks.rules.rollout_weight * critic_loss(q_values, target)
    return update._replace(losses=update.losses | {"rollout_loss": loss})


def update_rule(objective: AnyObjective, rules: Rules) -> Callable[..., Update]:
    """The function of networks, this objective and a batch that computes an update."""
    if isinstance(objective, DirectObjective):
        return direct_update
    return update_with_rollouts if rules.rollout_weight > 0 else compute_update
