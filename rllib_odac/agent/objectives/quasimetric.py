"""Quasimetric RL: values are distances in steps, the largest that single steps allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.networks import call_frozen, mlp
from rllib_odac.agent.objectives.auxiliary import AuxiliaryOutput
from rllib_odac.agent.objectives.base import DirectObjective
from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.agent.actor_critic import ActorCritic
    from rllib_odac.agent.batch import Batch, Inputs

COMPONENTS = 16  # of the quasimetric
TOLERANCE = 0.25  # steps that a single step may be longer than one, root mean square (paper)
MULTIPLIER_GAIN = 10.0  # how much faster than the networks the multiplier goes, under one Adam


class QuasimetricObjective(DirectObjective):
    """Q(s, a, g) = −d(s', g), the negative number of steps that the goal is away after a.

    Wang et al. 2023 (arXiv 2304.01203). The paper's goals are states. Where they are less, the goal
    φ(s) is a node of its own in the quasimetric, at no distance from s. Distances of random pairs
    are as large as the steps that were seen allow:

        max_d E[d(s, g)]   so that   E[ relu(d(s, s') − 1)² + relu(d(s', φ(s')))² ] ≤ ε²

    That is the paper's problem, with the node of each goal besides. A quasimetric obeys the
    triangle inequality by its form, so that in a deterministic world d is the least number of
    steps. The constraint has a Lagrange multiplier, and E[d] a softplus, by which far pairs count
    less. A model T of the latent step, fitted to d(T(z, a), z') = d(z', T(z, a)) = 0, says where an
    action leads.

    Args:
        far: Distance in steps beyond which states are not pushed further apart.
        latent_dim: Width of embeddings, a multiple of 16.
    """

    relabel: ClassVar[Mapping[str, float]] = {"future": 0.5, "random": 0.5}
    name = "quasimetric"
    goal_source = RelabelStrategy.RANDOM

    def __init__(self, far: float = 50.0, latent_dim: int = 64) -> None:
        super().__init__()
        if not far > 0:
            raise ValueError(f"far is {far}, but must be positive.")
        if latent_dim < COMPONENTS or latent_dim % COMPONENTS:
            raise ValueError(
                f"latent_dim is {latent_dim}, but must be a positive multiple of {COMPONENTS}."
            )
        self.far = far
        self.latent_dim = latent_dim

    def build_networks(
        self, goal_dim: int, state_dim: int, action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        return _Networks(goal_dim, state_dim, action_dim, hidden, self.latent_dim)

    def evaluate(
        self, networks: ActorCritic, batch: Batch, next_actions: Tensor | None = None
    ) -> AuxiliaryOutput:
        """Spread, constraint and model of a batch; the multiplier's loss has the other sign."""
        learned, rows = _learned(networks), batch.transitions
        assert rows.auxiliary_goal is not None, "the replay draws goals by `goal_source`"
        state, actions = torch.split(batch.inputs.state_action, learned.widths, dim=-1)
        next_state = networks.dynamics_inputs(rows.next_observation, rows.next_achieved_goal)
        here, there = learned.state(torch.cat([state, next_state])).chunk(2)
        goals = torch.cat([rows.auxiliary_goal, rows.next_achieved_goal])
        goal, reached = learned.goal(networks.normalize_goal(goals)).chunk(2)
        predicted = learned.next_latent(here, actions)
        distance = learned.distance(
            torch.cat([here, here, there, predicted, there]),
            torch.cat([goal, there, reached, there, predicted]),
        )
        to_goal, step, to_itself, ahead, back = distance.chunk(5)
        spread = F.softplus(self.far - to_goal, beta=5 / self.far).mean()
        excess = F.relu(step - 1).square() + to_itself.square()
        violation = excess.mean() - TOLERANCE**2
        multiplier = F.softplus(MULTIPLIER_GAIN * learned.raw_multiplier)
        constraint = multiplier.detach() * violation - multiplier * violation.detach()
        model = 0.5 * (ahead.square() + back.square()).mean()
        return AuxiliaryOutput(spread + constraint + model)

    def action_value(self, networks: ActorCritic, inputs: Inputs, actions: Tensor) -> Tensor:
        learned = _learned(networks)
        state, _ = torch.split(inputs.state_action, learned.widths, dim=-1)
        value: Tensor = -call_frozen(learned, state, actions, inputs.goal)
        return value


class _Networks(nn.Module):
    """Encoders of states and goals, the latent model, the quasimetric and the multiplier."""

    def __init__(
        self,
        goal_dim: int,
        state_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        latent_dim: int,
    ) -> None:
        super().__init__()
        self.widths: list[int] = [state_dim, action_dim]
        self.state = mlp([state_dim, *hidden, latent_dim])
        self.goal = mlp([goal_dim, *hidden, latent_dim])
        self.step = mlp([latent_dim + action_dim, *hidden, latent_dim])
        self.raw_share = nn.Parameter(torch.zeros(()))
        self.raw_multiplier = nn.Parameter(torch.zeros(()))

    def next_latent(self, latent: Tensor, actions: Tensor) -> Tensor:
        """(B, L) where actions (B, A) lead from latents (B, L)."""
        change: Tensor = self.step(torch.cat([latent, actions], dim=-1))
        return latent + change

    def distance(self, start: Tensor, end: Tensor) -> Tensor:
        """(B,) d(start, end) in steps, of latents (B, L)."""
        shape = (len(start), COMPONENTS, -1)
        parts = interval_quasimetric(start.view(shape), end.view(shape))
        share = torch.sigmoid(self.raw_share)
        return share * parts.amax(-1) + (1 - share) * parts.mean(-1)

    def forward(self, state: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """(B,) d(s', g) after actions (B, A), of normalised states (B, D + G) and goals (B, G)."""
        return self.distance(self.next_latent(self.state(state), actions), self.goal(goal))


def _learned(networks: ActorCritic) -> _Networks:
    assert isinstance(networks.auxiliary, _Networks)
    return networks.auxiliary


def interval_quasimetric(start: Tensor, end: Tensor) -> Tensor:
    """(...) total length of the union of the intervals [start, max(start, end)], each (..., N).

    It is at least zero, zero from a point to itself, obeys the triangle inequality, and is not
    symmetric (Wang & Isola 2022, arXiv 2211.15120, "interval quasimetric embeddings").
    """
    bounds = torch.cat([start, torch.maximum(start, end)], dim=-1)
    places, order = bounds.sort(dim=-1)
    opens = torch.where(order < start.shape[-1], 1, -1)
    is_covered = opens.cumsum(-1)[..., :-1] > 0
    return (places.diff(dim=-1) * is_covered).sum(-1)
