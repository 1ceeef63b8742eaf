"""What one gradient update is made from: transitions, network inputs and noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.replay.transitions import Transitions, split


class Inputs(NamedTuple):
    """Normalised network inputs of B transitions.

    Attributes:
        state_goal: (B, D + 2G) of policy and critics at s.
        next_state_goal: (B, D + 2G) the same at s'.
        state_action: (B, D + G + A) of the dynamics.
        displacement: (B, G) φ(s') − φ(s) in goal scales.
        goal_offset: (B, G) g − φ(s) in goal scales.
    """

    state_goal: Tensor
    next_state_goal: Tensor
    state_action: Tensor
    displacement: Tensor
    goal_offset: Tensor


class Batch(NamedTuple):
    """B transitions with everything that an update computes from.

    Attributes:
        transitions: In the environment's units.
        inputs: Normalised.
        noise: (2, B, A) standard normal, for the actions at s and at s'. Given from outside, so
            that an update is a function.
        auxiliary_noise: (B, G) standard normal, where the objective has an `Auxiliary`.
    """

    transitions: Transitions
    inputs: Inputs
    noise: Tensor
    auxiliary_noise: Tensor | None = None


@torch.no_grad()
def prepare(networks: ActorCritic, transitions: Transitions) -> Inputs:
    """Normalised inputs of the networks, in one pass however many updates they are for."""
    observation, achieved = transitions.observation, transitions.achieved_goal
    next_achieved, goal = transitions.next_achieved_goal, transitions.goal
    state_goal = networks.policy_inputs(observation, achieved, goal)
    normalized = state_goal[:, : observation.shape[-1]]
    return Inputs(
        state_goal=state_goal,
        next_state_goal=networks.policy_inputs(transitions.next_observation, next_achieved, goal),
        state_action=networks.dynamics_inputs(
            observation, achieved, transitions.actions, normalized
        ),
        displacement=(next_achieved - achieved) / networks.goal_scale,
        goal_offset=(goal - achieved) / networks.goal_scale,
    )


def make_batches(
    networks: ActorCritic, draw: Transitions, batch_size: int, generator: torch.Generator
) -> list[Batch]:
    """Batches for several updates from one draw of the replay.

    Args:
        networks: Whose statistics normalise.
        draw: Transitions for all of them.
        batch_size: B.
        generator: Of the noise.
    """
    transitions = split(draw, batch_size)
    inputs = split(prepare(networks, draw), batch_size)
    device = draw.goal.device
    shape = (len(transitions), 2, batch_size, networks.action_dim)
    noise = torch.randn(shape, generator=generator, device=device)
    auxiliary_noise: list[Tensor | None] = [None] * len(transitions)
    if draw.auxiliary_goal is not None:
        drawn = torch.randn(draw.goal.shape, generator=generator, device=device)
        auxiliary_noise = list(torch.split(drawn, batch_size))
    columns = zip(transitions, inputs, noise, auxiliary_noise, strict=True)
    return [Batch(*rows) for rows in columns]
