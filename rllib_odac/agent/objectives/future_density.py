"""`FutureDensity`: a normalising flow over discounted futures, which bounds values from below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rllib_odac.agent.flow import ConditionalFlow
from rllib_odac.agent.objectives.auxiliary import Auxiliary, AuxiliaryOutput
from rllib_odac.envs.goals import Goals
from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.agent.actor_critic import ActorCritic
    from rllib_odac.agent.batch import Batch


class FutureDensity(Auxiliary):
    """F(g | s, a) = (1 − γ) Σ_t γᵗ p(φ(s_{t+1}) = g | s, a), and the bound c·F on Q(s, a, g).

    F is fitted by maximum likelihood to states of a replayed episode's future, drawn by a geometric
    clock (Schroecker & Isbell 2020). Its futures are those of past policies.

    The constant c makes a density a probability. With B the ball of radius ε around g and |B| its
    volume,

        Q(s, a, g) = Σ_t γᵗ P(φ(s_{t+1}) ∈ B) = ∫_B F(x | s, a) dx / (1 − γ).

    Futures are repeated exactly wherever an object lies still, where a density is infinite. The
    flow is therefore fitted to futures with Gaussian noise, of the deviation
    σ = |B|^(1/G) / √(2π), whose density is 1 / |B| at its mean. The noisy F then obeys

        |B| F(g | s, a) / (1 − γ) = Σ_t γᵗ E[ exp(−‖φ(s_{t+1}) − g‖² / 2σ²) ],

    without error: the value of a smooth ball of volume |B|. So c = |B| / (1 − γ), and
    c F ≤ 1 / (1 − γ) but for the flow's error, to which it is clamped. F and |B| are in goal
    scales, and F is a density of the offset from φ(s), because near futures are the likely ones. Of
    goals with several parts g stands for the G coordinates that success is judged by.

    Not in F are the cost of the actions' KL, small at the weights that suit a reward of one, and
    that a terminal state pays for ever. Towards the end of an episode that is cut, less of the
    future is seen, so that there the near future counts for more than it is worth.

    Args:
        goals: Whose success distance is ε, of which coordinates.
        discount: γ. The replay draws futures by `prior_discount`, which has to be the same.
        hidden: Width of the flow's hidden layers.
        num_layers: Its coupling layers.
    """

    name = "flow"
    goal_source = RelabelStrategy.DISCOUNTED

    def __init__(self, goals: Goals, discount: float, hidden: int, num_layers: int) -> None:
        assert goals.success_distance is not None
        self.success_distance = goals.success_distance
        self.judged = goals.judged_coordinates
        self.discount = discount
        self.hidden = hidden
        self.num_layers = num_layers

    def build_networks(
        self, goal_dim: int, state_dim: int, action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        num_judged = len(range(goal_dim)[self.judged])
        return ConditionalFlow(num_judged, state_dim + action_dim, self.hidden, self.num_layers)

    def log_ball_volume(self, goal_dim: int) -> float:
        """log |B| in G dimensions, in the environment's units to the power G."""
        half = 0.5 * goal_dim
        unit_ball = half * math.log(math.pi) - math.lgamma(half + 1)
        return unit_ball + goal_dim * math.log(self.success_distance)

    def evaluate(
        self, networks: ActorCritic, batch: Batch, next_actions: Tensor | None = None
    ) -> AuxiliaryOutput:
        """The flow's negative log-likelihood of futures, and the bound at (s', a')."""
        transitions = batch.transitions
        assert transitions.auxiliary_goal is not None, "the replay draws goals by `goal_source`"
        assert batch.auxiliary_noise is not None
        assert next_actions is not None
        flow, scale = networks.auxiliary, networks.goal_scale
        assert isinstance(flow, ConditionalFlow)
        goal_dim = flow.dim
        log_volume = self.log_ball_volume(goal_dim) - goal_dim * scale.log()
        deviation = torch.exp(log_volume / goal_dim) / math.sqrt(2 * math.pi)
        future = (transitions.auxiliary_goal - transitions.achieved_goal) / scale
        future = torch.addcmul(future, deviation, batch.auxiliary_noise)[:, self.judged]
        with torch.no_grad():
            next_achieved = transitions.next_achieved_goal
            next_offset = ((transitions.goal - next_achieved) / scale)[:, self.judged]

            def probability(actions: Tensor) -> Tensor:
                next_state_action = networks.dynamics_inputs(
                    transitions.next_observation, next_achieved, actions
                )
                log_probability = flow.log_prob(next_offset, next_state_action) + log_volume
                return log_probability.clamp_max(0).exp()

            bound = networks.policy.expectation(probability, next_actions) / (1 - self.discount)
        log_prob = flow.log_prob(future, batch.inputs.state_action)
        return AuxiliaryOutput(-log_prob.mean(), next_q_bound=bound)
