"""Universal value density: a sparse reward, and values bounded by a learned density of futures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from rllib_odac.agent.flow import ConditionalFlow
from rllib_odac.agent.objectives.base import Backup, Objective, constant_discount
from rllib_odac.replay.relabelling import RelabelStrategy

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig
    from rllib_odac.rl_module import ODACRLModule


class UVDObjective(Objective):
    """r = 1 where φ(s') is within `success_distance` of g, else 0; Q(s',a',g) ≥ c·F(g | s',a').

    Schroecker & Isbell 2020 (arXiv 2002.06473). Values are discounted probabilities of being at the
    goal, so that whoever can estimate the density F of discounted futures,

        F(g | s, a) = (1 − γ) Σ_t γᵗ p(φ(s_{t+1}) = g | s, a),

    knows them without waiting for rewards to spread: a normalising flow, fitted by maximum
    likelihood to states drawn from a replayed episode's future as a geometric clock rings. Its
    futures are those of past policies, so it is combined with what the critics say by max(Q, c F).

    The constant c makes a density a probability. With B the ball of radius ε = `success_distance`
    around g and |B| its volume,

        Q(s, a, g) = Σ_t γᵗ P(φ(s_{t+1}) ∈ B) = ∫_B F(x | s, a) dx / (1 − γ).

    Futures are repeated exactly wherever an object lies still, and a density is infinite there. The
    flow is therefore fitted to futures with Gaussian noise, of the deviation
    σ = |B|^(1/G) / √(2π) whose density is 1 / |B| at its mean. The noisy F then obeys

        |B| F(g | s, a) / (1 − γ) = Σ_t γᵗ E[ exp(−‖φ(s_{t+1}) − g‖² / 2σ²) ],

    without error: the value of a smooth ball of volume |B|. So c = |B| / (1 − γ), and c F ≤ 1/(1−γ)
    but for the flow's error, for which it is clamped. F and |B| are in goal scales, and F is a
    density of the way from φ(s) to the goal, because near futures are the likely ones.

    What F leaves out: the cost of the actions' KL, which is small at the weights that suit a reward
    of one; that a terminal state pays for ever; and that an episode which is cut shows less of the
    future towards its end, so that there the near future counts for more than it is worth.

    The critics' goals are relabelled as under every other objective. Where chance decides, futures
    as goals make risks look small; `relabel={"random": 0.8, "own": 0.2}` does without them, since
    F tells of the futures.

    Args:
        success_distance: ε in the task's units, of all coordinates of a goal together.
        discount: γ. The replay draws futures by `prior_discount`, which has to be the same.
        flow_hidden: Width of the flow's hidden layers.
        flow_layers: Its coupling layers.
    """

    extra_goals: ClassVar[Mapping[str, RelabelStrategy]] = {
        "future_goal": RelabelStrategy.DISCOUNTED
    }

    def __init__(
        self,
        success_distance: float,
        discount: float = 0.95,
        flow_hidden: int = 64,
        flow_layers: int = 4,
    ) -> None:
        if not success_distance > 0:
            raise ValueError(f"success_distance is {success_distance}, but must be positive.")
        if not 0 < discount < 1:
            raise ValueError(f"discount is {discount}, but must be in (0, 1).")
        if flow_hidden < 1:
            raise ValueError(f"flow_hidden is {flow_hidden}, but must be at least 1.")
        if flow_layers < 2:  # each changes every other coordinate
            raise ValueError(f"flow_layers is {flow_layers}, but must be at least 2.")
        self.success_distance = success_distance
        self.discount = discount
        self.flow_hidden = flow_hidden
        self.flow_layers = flow_layers

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return {
            "success_distance": config.goal_success_distance,
            "discount": config.prior_discount,
        }

    def build_networks(
        self, goal_dim: int, state_action_dim: int, hidden: Sequence[int]
    ) -> nn.Module:
        return ConditionalFlow(goal_dim, state_action_dim, self.flow_hidden, self.flow_layers)

    def forward(
        self, module: ODACRLModule, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        flow, scale = module.objective_networks, module.goal_scale
        log_volume = self.log_ball_volume(module.goal_dim) - module.goal_dim * scale.log()
        noise = torch.exp(log_volume / module.goal_dim) / math.sqrt(2 * math.pi)
        way = (batch["future_goal"] - batch["achieved_goal"]) / scale
        way = torch.addcmul(way, noise, batch["goal_noise"])
        with torch.no_grad():
            next_achieved = batch["next_achieved_goal"]
            next_state_action = module.dynamics_inputs(
                batch["next_observation"], next_achieved, outputs["next_actions"]
            )
            next_way = (batch["goal"] - next_achieved) / scale
            log_probability = flow.log_prob(next_way, next_state_action) + log_volume
        return {
            "log_prob_future": flow.log_prob(way, batch["dynamics_inputs"]),
            "next_q_bound": log_probability.clamp_max(0).exp() / (1 - self.discount),
        }

    def log_ball_volume(self, goal_dim: int) -> float:
        """Log-volume of a ball of radius ε in G dimensions, in the task's units to the power G."""
        half = 0.5 * goal_dim
        unit_ball = half * math.log(math.pi) - math.lgamma(half + 1)
        return unit_ball + goal_dim * math.log(self.success_distance)

    def losses(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"flow_loss": -outputs["log_prob_future"].mean()}

    def bound_next_q(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return torch.maximum(outputs["next_q"], outputs["next_q_bound"])

    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        distance = (batch["next_achieved_goal"] - batch["goal"]).norm(dim=-1)
        reward = (distance < self.success_distance).to(next_value.dtype)
        backup = constant_discount(reward, self.discount, batch["terminated"])
        return replace(backup, metrics={"next_q_bound": batch["next_q_bound"]})

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # Not 0 from below: the KL of a policy that still seeks an unreachable goal is paid too.
        return None, 1 / (1 - self.discount)
