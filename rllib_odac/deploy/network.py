"""The policy as one PyTorch module, from observations to actions in the environment's units."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rllib_odac.agent.networks import FourierFeatures, RunningNormalizer, policy_inputs
from rllib_odac.agent.policies import CategoricalPolicy, SquashedGaussianPolicy
from rllib_odac.deploy.spec import ACTION, DESIRED_GOAL, OBSERVATION, PolicySpec


class PolicyNetwork(nn.Module):
    """π(a | s, g) with the normalisation of its inputs and the bounds of its actions inside.

    Its parameters and buffers have the names that `ODACRLModule` gives them, and it computes the
    same, operation by operation.

    Args:
        spec: Sizes, and the bounds of actions or all of them.
        arrays: The parameters and buffers by name.

    Raises:
        ValueError: If an array is missing or has another shape.
    """

    goal_center: Tensor
    goal_scale: Tensor
    action_low: Tensor
    action_high: Tensor
    action_range: Tensor
    choices: Tensor | None

    def __init__(self, spec: PolicySpec, arrays: dict[str, NDArray[Any]]) -> None:
        super().__init__()
        observation_dim, goal_dim = spec.spaces[OBSERVATION].size, spec.spaces[DESIRED_GOAL].size
        action = spec.spaces[ACTION]
        self.observation_normalizer = RunningNormalizer(observation_dim)
        self.register_buffer("goal_center", torch.zeros(goal_dim))
        self.register_buffer("goal_scale", torch.ones(()))
        input_dim = observation_dim + 2 * goal_dim
        parts, features = [observation_dim, goal_dim, goal_dim], None
        if (frequencies := arrays.get("policy.net.0.frequencies")) is not None:
            features = FourierFeatures(parts, frequencies.shape[-1])
        gains = [name for name, a in arrays.items() if name.endswith("weight") and a.ndim == 1]
        kind: type[SquashedGaussianPolicy | CategoricalPolicy]
        kind, width = SquashedGaussianPolicy, action.size
        if spec.choices is not None:
            kind, width = CategoricalPolicy, len(spec.choices)
        self.policy = kind(input_dim, width, spec.hidden, bool(gains), features)
        try:
            self.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
        except RuntimeError as error:
            raise ValueError(f"The arrays do not fit the policy: {error}") from None
        low, high = (np.array(bound, dtype=action.dtype) for bound in (action.low, action.high))
        self.is_unit_box = bool((low == -1).all() and (high == 1).all())
        for name, values in (("low", low), ("high", high), ("range", high - low)):
            self.register_buffer(f"action_{name}", torch.from_numpy(values), persistent=False)
        choices = None
        if spec.choices is not None:
            choices = torch.from_numpy(np.array(spec.choices, dtype=action.dtype))
        self.register_buffer("choices", choices, persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, observation: Tensor, achieved_goal: Tensor, desired_goal: Tensor) -> Tensor:
        """Deterministic actions (B, A) for float32 `observation` (B, D) and goals (B, G)."""
        inputs = self._inputs(observation, achieved_goal, desired_goal)
        return self._to_env(self.policy.mode(inputs))

    def sample(
        self, observation: Tensor, achieved_goal: Tensor, desired_goal: Tensor, noise: Tensor
    ) -> Tensor:
        """Sampled actions (B, A) for standard normal `noise` (B, `policy.action_dim`)."""
        inputs = self._inputs(observation, achieved_goal, desired_goal)
        return self._to_env(self.policy.sample(inputs, noise)[0])

    def _inputs(self, observation: Tensor, achieved_goal: Tensor, goal: Tensor) -> Tensor:
        return policy_inputs(
            self.observation_normalizer,
            self.goal_center,
            self.goal_scale,
            observation,
            achieved_goal,
            goal,
        )

    def _to_env(self, actions: Tensor) -> Tensor:
        """From the policy's actions to the environment's, as `GoalEnvRunner` does."""
        if self.choices is not None:
            return self.choices[actions.argmax(-1)]
        if self.is_unit_box:
            return actions
        scaled = self.action_low + (actions + 1) / 2 * self.action_range
        return torch.clamp(scaled, self.action_low, self.action_high)  # rounding may exceed them
