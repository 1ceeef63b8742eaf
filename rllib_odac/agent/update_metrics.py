"""What an update says of itself: quantities that are worth a plot."""

from __future__ import annotations

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch
from rllib_odac.agent.update import Update
from rllib_odac.maths.losses import effective_horizon


@torch.no_grad()
def compute_metrics(networks: ActorCritic, batch: Batch, update: Update) -> dict[str, Tensor]:
    """Quantities of an update that are worth a plot, by the names that `metrics.py` explains.

    Returns:
        Tensors of any shape, of which a report gives means and quantiles.
    """
    transitions, predictions = batch.transitions, update.predictions
    relabelled = transitions.relabelled
    distance = (transitions.goal - transitions.achieved_goal).norm(dim=-1)
    is_trivial = distance < networks.trivial_distance
    trivial_relabelled = is_trivial[relabelled]
    quantities = {
        "q_value": predictions.q_values,
        "policy_kl": predictions.policy_kl,
        "relabelled_share": relabelled.double(),
        # A goal that is reached already teaches little.
        "trivial_goal_share": (
            trivial_relabelled.double().mean()
            if len(trivial_relabelled)
            else trivial_relabelled.sum()
        ),
    }
    quantities |= _of_the_backup(update)
    # As long as the policy reaches none of the episodes' own goals, their values must be low: here
    # over-estimation shows.
    unreached = ~(relabelled | is_trivial)
    if unreached.any():
        quantities["unreached_value"] = predictions.q_values[:, unreached]
    return quantities


def _of_the_backup(update: Update) -> dict[str, Tensor]:
    """What critics learn from; nothing where there are none."""
    target = update.target
    if target is None:
        return {}
    reward, discount, metrics = target.backup
    return {
        "target": target.value,
        "reward": reward,
        "discount": discount,
        "effective_horizon": effective_horizon(discount),
        **metrics,
        "log_prob_next": target.log_prob_next,
        "dynamics_scale": target.log_scale.exp(),
    }
