"""What one gradient update is made from: transitions, network inputs and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rllib_odac.agent.action_prior import PriorInputs
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
        goal: (B, G) g in goal scales, from the centre of goals.
        next_state: (B, D + G) as `state_action` without the action, at s', if the action prior
            needs it.
    """

    state_goal: Tensor
    next_state_goal: Tensor
    state_action: Tensor
    displacement: Tensor
    goal_offset: Tensor
    goal: Tensor
    next_state: Tensor | None = None


class FollowingStep(NamedTuple):
    """A later step of each of B transitions, for targets of several steps.

    Attributes:
        transitions: In the environment's units.
        state_action: (B, D + G + A) of the dynamics.
        goal_offset: (B, G) g − φ(s) in goal scales.
    """

    transitions: Transitions
    state_action: Tensor
    goal_offset: Tensor


class Batch(NamedTuple):
    """B transitions with everything that an update computes from.

    Attributes:
        transitions: In the environment's units.
        inputs: Normalised.
        noise: (2, B, A) standard normal, for the actions at s and at s'. Given from outside, so
            that an update is a function.
        target_critics: (M,) the critics whose minimum the target takes; None for all.
        auxiliary_noise: (B, G) standard normal, where the objective has an `Auxiliary`.
        following: The n − 1 steps that follow, where targets are of n steps.
        chance: (B, G + 1) uniform in [0, 1), where p_ψ makes up steps.
    """

    transitions: Transitions
    inputs: Inputs
    noise: Tensor
    target_critics: Tensor | None = None
    auxiliary_noise: Tensor | None = None
    following: tuple[FollowingStep, ...] = ()
    chance: Tensor | None = None

    @property
    def last(self) -> Transitions:
        """The last transitions that targets are made of."""
        return self.following[-1].transitions if self.following else self.transitions

    @property
    def prior_inputs(self) -> PriorInputs:
        """s, as action priors take it."""
        inputs, actions = self.inputs, self.transitions.actions
        state = inputs.state_action[:, : -actions.shape[-1]]
        return PriorInputs(self.transitions.observation, state, inputs.state_goal)

    @property
    def next_prior_inputs(self) -> PriorInputs:
        """s', as action priors take it."""
        inputs = self.inputs
        return PriorInputs(self.last.next_observation, inputs.next_state, inputs.next_state_goal)


@torch.no_grad()
def prepare(
    networks: ActorCritic, transitions: Transitions, last: Transitions | None = None
) -> Inputs:
    """Normalised inputs of the networks, in one pass however many updates they are for.

    Args:
        networks: Whose statistics normalise.
        transitions: B.
        last: The last step of their targets, if these are of several.
    """
    last = last or transitions
    observation, achieved = transitions.observation, transitions.achieved_goal
    next_achieved, goal = transitions.next_achieved_goal, transitions.goal
    state_goal = networks.policy_inputs(observation, achieved, goal)
    normalized = state_goal[:, : observation.shape[-1]]
    next_state_goal = networks.policy_inputs(last.next_observation, last.next_achieved_goal, goal)
    next_state = None
    if networks.action_prior.needs_state:
        next_normalized = next_state_goal[:, : observation.shape[-1]]
        next_state = networks.dynamics_inputs(
            last.next_observation, last.next_achieved_goal, normalized=next_normalized
        )
    return Inputs(
        state_goal=state_goal,
        next_state_goal=next_state_goal,
        state_action=networks.dynamics_inputs(
            observation, achieved, transitions.actions, normalized
        ),
        displacement=(next_achieved - achieved) / networks.goal_scale,
        goal_offset=(goal - achieved) / networks.goal_scale,
        goal=networks.normalize_goal(goal),
        next_state=next_state,
    )


@torch.no_grad()
def prepare_following(
    networks: ActorCritic, steps: Sequence[Transitions], batch_size: int
) -> Iterator[tuple[FollowingStep, ...]]:
    """The steps that follow those of each batch."""
    columns = []
    for step in steps:
        inputs = networks.dynamics_inputs(step.observation, step.achieved_goal, step.actions)
        offset = (step.goal - step.achieved_goal) / networks.goal_scale
        parts = [torch.split(values, batch_size) for values in (inputs, offset)]
        rows = zip(split(step, batch_size), *parts, strict=True)
        columns.append([FollowingStep(*row) for row in rows])
    return zip(*columns, strict=True)


def make_batches(
    networks: ActorCritic, steps: Sequence[Transitions], batch_size: int, generator: torch.Generator
) -> list[Batch]:
    """Batches for several updates from one draw of the replay.

    Args:
        networks: Whose statistics normalise.
        steps: Transitions for all of them, and the steps that follow them.
        batch_size: B.
        generator: Of the noise.
    """
    draw = steps[0]
    transitions = split(draw, batch_size)
    inputs = split(prepare(networks, draw, steps[-1]), batch_size)
    device = draw.goal.device
    shape = (len(transitions), 2, batch_size, networks.action_dim)
    noise = torch.randn(shape, generator=generator, device=device)
    chosen: list[Tensor | None] = [None] * len(transitions)
    if networks.num_target_critics < networks.num_critics:
        order = torch.rand(len(chosen), networks.num_critics, generator=generator, device=device)
        chosen = list(order.argsort(-1)[:, : networks.num_target_critics])
    auxiliary_noise: list[Tensor | None] = [None] * len(transitions)
    if draw.auxiliary_goal is not None:
        drawn = torch.randn(draw.goal.shape, generator=generator, device=device)
        auxiliary_noise = list(torch.split(drawn, batch_size))
    following: list[tuple[FollowingStep, ...]] = [()] * len(transitions)
    if len(steps) > 1:
        following = list(prepare_following(networks, steps[1:], batch_size))
    chance: list[Tensor | None] = [None] * len(transitions)
    if networks.rules.rollout_weight > 0:
        size = len(draw.goal), networks.goal_dim + 1
        drawn = torch.rand(size, generator=generator, device=device)
        chance = list(torch.split(drawn, batch_size))
    columns = (transitions, inputs, noise, chosen, auxiliary_noise, following, chance)
    return [Batch(*rows) for rows in zip(*columns, strict=True)]
