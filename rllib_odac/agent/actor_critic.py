"""`ActorCritic`: every network that training changes, with the normalisation of their inputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rllib_odac.agent.action_prior import ActionPriorFactory, make_action_prior
from rllib_odac.agent.critics import ActionCritics, CriticEnsemble, StateCritics
from rllib_odac.agent.dynamics_ensemble import DynamicsEnsemble
from rllib_odac.agent.networks import (
    FourierFeatures,
    GoalDynamics,
    RunningNormalizer,
    mlp,
    policy_inputs,
)
from rllib_odac.agent.objectives.auxiliary import Auxiliary
from rllib_odac.agent.objectives.base import DirectObjective
from rllib_odac.agent.policies import CategoricalPolicy, SquashedGaussianPolicy
from rllib_odac.agent.rules import RETURNS, Rules

EXPLICIT_POSTERIOR = Rules()
INITIAL_KL_WEIGHT = 0.1  # where `kl_weight="auto"` starts


class ActorCritic(nn.Module):
    """π(a|s,g), Q_φ(s,a,g) with target critics, p_ψ(φ(s')|s,a), p(a|s), KL weight and normalisers.

    Methods take observations (B, D) and goals (B, G) in the environment's units.

    Args:
        observation_dim: D.
        goal_dim: G.
        action_dim: A, or n of finitely many actions, which are one-hot rows of n numbers.
        hidden: Widths of the hidden layers of every network.
        kl_weight: Weight of KL(π‖p) in the value, or "auto" to learn it.
        num_critics: E.
        fourier_features: Sines of their inputs that policy and values see besides.
        layer_norm: Whose hidden layers are normalised: "none", those of "critics" or of "all".
        target_critics: M, of which the target takes the minimum; None for all E.
        dynamics_distribution: "laplace" or "gaussian".
        dynamics_min_scale: Floor of the density's scale, in goal scales.
        dynamics_background: Weight ε of the density's background.
        dynamics_members: Models that p_ψ is a mixture of, where it is learned.
        learn_dynamics: Whether p_ψ is learned.
        fixed_dynamics_scale: Scale of p_ψ where it is not, in goal scales.
        action_prior: p(a|s); see `make_action_prior`.
        behavior_components: Components of the prior "behavior".
        previous_policy_updates: Updates between two moves of the prior "previous".
        rules: How values are estimated and the policy follows them.
        auxiliary: What an objective learns besides, or None.
        is_finite: Whether there are finitely many actions.
        acting_only: Whether to build only what acting needs.
    """

    goal_center: Tensor
    goal_scale: Tensor
    goal_scale_known: Tensor
    log_kl_weight: Tensor

    def __init__(
        self,
        observation_dim: int,
        goal_dim: int,
        action_dim: int,
        *,
        hidden: Sequence[int],
        kl_weight: float | str,
        num_critics: int = 2,
        fourier_features: int = 0,
        layer_norm: str = "none",
        target_critics: int | None = None,
        dynamics_distribution: str = "laplace",
        dynamics_min_scale: float = 0.01,
        dynamics_background: float = 0.05,
        dynamics_members: int = 1,
        learn_dynamics: bool = True,
        fixed_dynamics_scale: float = 0.05,
        action_prior: str | ActionPriorFactory = "uniform",
        behavior_components: int = 5,
        previous_policy_updates: int = 1000,
        rules: Rules = EXPLICIT_POSTERIOR,
        auxiliary: Auxiliary | None = None,
        is_finite: bool = False,
        acting_only: bool = False,
    ) -> None:
        super().__init__()
        self.rules = rules
        self.goal_dim = goal_dim
        self.action_dim = action_dim
        self.num_critics = num_critics
        self.num_target_critics = target_critics or num_critics
        self.min_scale = dynamics_min_scale
        state_dim = observation_dim + goal_dim
        self.observation_normalizer = RunningNormalizer(observation_dim)
        # One scale for all coordinates of a goal keeps distances what they are, up to the unit.
        self.register_buffer("goal_center", torch.zeros(goal_dim))
        self.register_buffer("goal_scale", torch.ones(()))
        self.register_buffer("goal_scale_known", torch.zeros((), dtype=torch.bool))
        everywhere = layer_norm == "all"
        policy_class = CategoricalPolicy if is_finite else SquashedGaussianPolicy

        def features() -> FourierFeatures | None:
            parts = [observation_dim, goal_dim, goal_dim]  # of `policy_inputs`
            return FourierFeatures(parts, fourier_features) if fourier_features else None

        self.policy = policy_class(state_dim + goal_dim, action_dim, hidden, everywhere, features())
        if isinstance(kl_weight, str):  # "auto"
            self.log_kl_weight = nn.Parameter(torch.tensor(math.log(INITIAL_KL_WEIGHT)))
        else:
            log_kl_weight = math.log(kl_weight) if kl_weight > 0 else -math.inf
            self.register_buffer("log_kl_weight", torch.tensor(log_kl_weight))
        if acting_only:
            return
        if isinstance(auxiliary, DirectObjective):
            num_critics = 0  # it has its own
        critic_class = ActionCritics if is_finite else CriticEnsemble
        if rules.values == RETURNS:
            critic_class = StateCritics
        self.critic, self.target_critic = (
            critic_class(
                state_dim + goal_dim,
                action_dim,
                hidden,
                num_critics,
                layer_norm != "none",
                features(),
            )
            for _ in range(2)
        )
        self.target_critic.requires_grad_(False).load_state_dict(self.critic.state_dict())
        make_dynamics: Callable[..., GoalDynamics] = (
            functools.partial(DynamicsEnsemble, num_members=dynamics_members)
            if learn_dynamics and dynamics_members > 1
            else functools.partial(
                GoalDynamics, learned=learn_dynamics, fixed_scale=fixed_dynamics_scale
            )
        )
        self.dynamics = make_dynamics(
            state_dim + action_dim,
            goal_dim,
            hidden,
            distribution=dynamics_distribution,
            min_scale=dynamics_min_scale,
            background=dynamics_background,
            layer_norm=everywhere,
        )
        self.max_log_prob = self.dynamics.max_log_prob
        self.auxiliary = (
            None
            if auxiliary is None
            else auxiliary.build_networks(goal_dim, state_dim, action_dim, hidden)
        )
        self.action_prior = make_action_prior(
            action_prior,
            self.policy,
            state_dim,
            hidden,
            num_components=behavior_components,
            interval=previous_policy_updates,
        )
        self.state_value = (
            mlp([state_dim + goal_dim, *hidden, 1], layer_norm != "none", features())
            if rules.fits_values_to_critics
            else None
        )
        # Looking parameters up by name would be a measurable part of an update's time.
        self._target_parameters: list[Tensor] = list(self.target_critic.parameters())
        self._critic_parameters: list[Tensor] = list(self.critic.parameters())

    def set_goal_units(self, center: Tensor, scale: float) -> None:
        """Sets the point that goals are measured from and their unit, in the environment's units.

        Args:
            center: (G,).
            scale: Positive.
        """
        self.goal_center.copy_(center)
        self.goal_scale.fill_(scale)
        self.goal_scale_known.fill_(True)

    @property
    def trivial_distance(self) -> Tensor:
        """Distance in the environment's units below which a goal counts as reached already."""
        return self.goal_scale * self.min_scale

    @property
    def target_kl(self) -> float:
        """KL to the uniform action prior, in nats, that `kl_weight="auto"` keeps."""
        return self.policy.target_kl

    def normalize_goal(self, goal: Tensor) -> Tensor:
        """Goals (..., G) in goal scales around the centre of those seen."""
        return (goal - self.goal_center) / self.goal_scale

    def policy_inputs(self, observation: Tensor, achieved_goal: Tensor, goal: Tensor) -> Tensor:
        """(B, D + 2G) normalised observation, goal, and offset of the goal from φ(s)."""
        return policy_inputs(
            self.observation_normalizer,
            self.goal_center,
            self.goal_scale,
            observation,
            achieved_goal,
            goal,
        )

    def dynamics_inputs(
        self,
        observation: Tensor,
        achieved_goal: Tensor,
        actions: Tensor | None = None,
        normalized: Tensor | None = None,
    ) -> Tensor:
        """(B, D + G + A) normalised state and action; the dynamics know nothing of the goal.

        Args:
            observation: (B, D).
            achieved_goal: (B, G).
            actions: (B, A), or None for the state alone.
            normalized: (B, D) the normalised observation, where it is at hand.
        """
        normalizer = self.observation_normalizer
        if normalized is None:
            normalized = normalizer(observation)
        position = self.normalize_goal(achieved_goal).clamp(-normalizer.clip, normalizer.clip)
        parts = [normalized, position, *([] if actions is None else [actions])]
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def update_targets(self, tau: float) -> None:
        """Moves the target critics a share `tau` of the way to the critics (Polyak averaging)."""
        torch._foreach_lerp_(self._target_parameters, self._critic_parameters, tau)
