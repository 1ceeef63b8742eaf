"""The policy, critics, dynamics and normalisers of ODAC as one RLlib RLModule.

The module takes the Dict observation of a goal environment as it is. RLlib's own flattening and
filtering connectors would write changed observations back into the episodes and so break
relabelling; normalising inside the module keeps the replay in the environment's units.
"""

from __future__ import annotations

import math
from typing import Any, Self

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor, nn

from rllib_odac.agent.networks import (
    CriticEnsemble,
    GoalDynamics,
    RunningNormalizer,
    SquashedGaussianPolicy,
    policy_inputs,
)
from rllib_odac.agent.objectives.base import Objective
from rllib_odac.maths.losses import LOG_2, action_prior_kl

INITIAL_KL_WEIGHT = 0.1  # where `kl_weight="auto"` starts


class ODACRLModule(TorchRLModule, InferenceOnlyAPI):
    """π(a|s,g), Q_φ(s,a,g) with targets, p_ψ(φ(s')|s,a), the KL weight and input normalisers.

    Forward passes take a batch whose `obs` is the dict of a goal environment, with `observation`
    (B, D), `achieved_goal` (B, G) and `desired_goal` (B, G) in the environment's units. Actions are
    in [−1, 1]^A, RLlib's convention for normalised actions (`normalize_actions=True`).
    """

    @override(RLModule)
    def setup(self) -> None:
        space: gym.spaces.Dict = self.observation_space
        config = self.model_config  # filled by `ODACConfig`
        observation_dim = gym.spaces.flatdim(space["observation"])
        self.goal_dim = gym.spaces.flatdim(space["desired_goal"])
        self.action_dim = gym.spaces.flatdim(self.action_space)
        hidden = tuple(config["hidden"])
        state_dim = observation_dim + self.goal_dim

        self.observation_normalizer = RunningNormalizer(observation_dim)
        # One scale for all goal coordinates keeps distances what they are, up to the unit.
        self.register_buffer("goal_center", torch.zeros(self.goal_dim))
        self.register_buffer("goal_scale", torch.ones(()))
        self.register_buffer("goal_scale_known", torch.zeros((), dtype=torch.bool))
        self.policy = SquashedGaussianPolicy(state_dim + self.goal_dim, self.action_dim, hidden)
        self._setup_kl_weight(config["kl_weight"])
        if self.inference_only:
            return
        critic_args = (state_dim + self.goal_dim + self.action_dim, hidden)
        critic_options = (config["num_critics"], config["critic_layer_norm"])
        self.critic = CriticEnsemble(*critic_args, *critic_options)
        self.target_critic = CriticEnsemble(*critic_args, *critic_options).requires_grad_(False)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.objective: Objective = config["objective"]
        self.dynamics = GoalDynamics(
            state_dim + self.action_dim,
            self.goal_dim,
            hidden,
            distribution=config["dynamics_distribution"],
            min_scale=config["dynamics_min_scale"],
            background=config["dynamics_background"],
            learned=config["learn_dynamics"],
            fixed_scale=config["fixed_dynamics_scale"],
        )
        # Modules look their parameters up by name, which at every update is a part of its time.
        self._averaged: tuple[list[Tensor], list[Tensor]] = (
            list(self.target_critic.parameters()),
            list(self.critic.parameters()),
        )
        self.objective_networks = self.objective.build_networks(
            self.goal_dim, state_dim + self.action_dim, hidden
        )

    def _setup_kl_weight(self, kl_weight: float | str) -> None:
        if isinstance(kl_weight, str):  # "auto"
            self.log_kl_weight = nn.Parameter(torch.tensor(math.log(INITIAL_KL_WEIGHT)))
        else:  # a constant: DDP wants no parameter that takes no part in the loss
            log_kl_weight = math.log(kl_weight) if kl_weight > 0 else -math.inf
            self.register_buffer("log_kl_weight", torch.tensor(log_kl_weight))

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        return ["critic", "target_critic", "dynamics", "objective_networks"]

    # RLlib halves float64 on the way out and in; the normaliser's sums need every digit.

    @override(TorchRLModule)
    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(*args, **kwargs)
        for name, buffer in self.named_buffers():
            if buffer.dtype == torch.float64 and name in state:
                state[name] = buffer.cpu().numpy().copy()
        return state

    @override(TorchRLModule)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for name, buffer in self.named_buffers():
            if buffer.dtype == torch.float64 and name in state:
                buffer.copy_(torch.as_tensor(state[name]))

    # Inputs ---------------------------------------------------------------------------------------

    def set_goal_units(self, center: Tensor, scale: float) -> None:
        """Sets the point and the unit, in the task's own, that goals are measured from and in."""
        self.goal_center.copy_(center)
        self.goal_scale.fill_(scale)
        self.goal_scale_known.fill_(True)

    @property
    def trivial_distance(self) -> Tensor:
        """Distance below which a goal counts as where one already is, in the task's units."""
        return self.goal_scale * float(self.model_config["dynamics_min_scale"])

    def normalize_goal(self, goal: Tensor) -> Tensor:
        """Goals (..., G) in goal scales around the centre of those seen."""
        return (goal - self.goal_center) / self.goal_scale

    def policy_inputs(self, observation: Tensor, achieved_goal: Tensor, goal: Tensor) -> Tensor:
        """(B, D + 2G) normalised observation, goal, and the way from the achieved goal to it."""
        return policy_inputs(
            *(self.observation_normalizer, self.goal_center, self.goal_scale),
            *(observation, achieved_goal, goal),
        )

    def dynamics_inputs(
        self, observation: Tensor, achieved_goal: Tensor, actions: Tensor
    ) -> Tensor:
        """(B, D + G + A) normalised state and action; the goal has no part in the dynamics."""
        normalized = self.observation_normalizer(observation)
        return self._dynamics_inputs(normalized, achieved_goal, actions)

    def _dynamics_inputs(
        self, normalized: Tensor, achieved_goal: Tensor, actions: Tensor
    ) -> Tensor:
        clip = self.observation_normalizer.clip
        place = self.normalize_goal(achieved_goal).clamp(-clip, clip)
        return torch.cat([normalized, place, actions], dim=-1)

    # Acting ---------------------------------------------------------------------------------------

    @override(TorchRLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Deterministic actions: the squashed mean, always inside the bounds."""
        with torch.no_grad():
            mean, _ = self.policy(self._inputs_of(batch))
            return {Columns.ACTIONS: torch.tanh(mean)}

    @override(TorchRLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Sampled actions; `batch["noise"]` (B, A) may bring the standard normal noise along."""
        with torch.no_grad():
            inputs = self._inputs_of(batch)
            noise = batch.get("noise")
            if noise is None:
                noise = torch.randn(len(inputs), self.action_dim, device=inputs.device)
            actions, log_prob = self.policy.sample(inputs, noise)
            return {Columns.ACTIONS: actions, Columns.ACTION_LOGP: log_prob}

    def _inputs_of(self, batch: dict[str, Any]) -> Tensor:
        obs = {name: value.float() for name, value in batch[Columns.OBS].items()}
        return self.policy_inputs(obs["observation"], obs["achieved_goal"], obs["desired_goal"])

    # Learning -------------------------------------------------------------------------------------

    @override(nn.Module)
    def train(self, mode: bool = True) -> Self:
        # RLlib calls this at every update; no layer here behaves otherwise in training.
        self.training = mode
        return self

    @torch.no_grad()
    def prepare(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Normalised inputs of a replay batch: one pass over all the updates of a draw.

        Args:
            batch: What `GoalReplay.sample` gives.

        Returns:
            The batch, with `inputs`, `next_inputs` and `dynamics_inputs` of the networks and with
            `way_made` and `way_wanted` (B, G), from φ(s) to φ(s') and to the goal in goal scales.
        """
        observation, achieved = batch["observation"], batch["achieved_goal"]
        next_achieved, goal = batch["next_achieved_goal"], batch["goal"]
        inputs = self.policy_inputs(observation, achieved, goal)
        normalized = inputs[:, : observation.shape[-1]]
        return batch | {
            "inputs": inputs,
            "next_inputs": self.policy_inputs(batch["next_observation"], next_achieved, goal),
            "dynamics_inputs": self._dynamics_inputs(normalized, achieved, batch["actions"]),
            "way_made": (next_achieved - achieved) / self.goal_scale,
            "way_wanted": (goal - achieved) / self.goal_scale,
        }

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Every network pass of one update, each made once.

        Args:
            batch: What `prepare` gives, with `noise` (2, B, A) for the actions at s and at s'.

        Returns:
            (B,) tensors unless said otherwise:
            `q_values` (E, B) of the replayed actions; `policy_q`, `policy_kl` of fresh actions at
            s, differentiable to the policy alone; `next_q`, `next_kl` of fresh actions at s' from
            the target critics, constant; `log_prob_next` of φ(s'), differentiable; `log_prob_goal`
            of the goal, constant; `log_kl_weight` (); `next_actions` (B, A), the fresh ones at s';
            and what the objective's own networks give.
        """
        inputs, next_inputs = batch["inputs"], batch["next_inputs"]
        noise, next_noise = batch["noise"]

        # Two passes of the policy: batched into one, the backward pass would go through both
        # halves, although only the first needs it, and cost more than the call that it saves.
        with torch.no_grad():
            next_actions, next_log_prob = self.policy.sample(next_inputs, next_noise)
            next_q = self.target_critic(next_inputs, next_actions)

        policy_actions, log_prob = self.policy.sample(inputs, noise)
        policy_q = self.critic(inputs, policy_actions, frozen=True)
        q_values = self.critic(inputs, batch["actions"])

        displacement, log_scale = self.dynamics(batch["dynamics_inputs"])
        ways = torch.stack([batch["way_made"], batch["way_wanted"]])
        log_prob_next, log_prob_goal = self.dynamics.log_prob(ways - displacement, log_scale)
        outputs = {
            "q_values": q_values,
            "policy_q": policy_q.amin(0),
            "policy_kl": action_prior_kl(log_prob, policy_actions),
            "next_q": next_q.amin(0),
            "next_kl": action_prior_kl(next_log_prob, next_actions),
            "log_prob_next": log_prob_next,
            "log_prob_goal": log_prob_goal.detach(),
            "log_scale": log_scale.detach(),
            "log_kl_weight": self.log_kl_weight,
            "next_actions": next_actions,
        }
        return outputs | self.objective.forward(self, batch, outputs)

    @property
    def target_kl(self) -> float:
        """KL to the uniform action prior that a policy of entropy −A nats has."""
        return self.action_dim * (1 + LOG_2)

    @torch.no_grad()
    def update_targets(self, tau: float) -> None:
        """Polyak averaging of the target critics towards the critics."""
        torch._foreach_lerp_(*self._averaged, tau)
