"""`ODACRLModule`: the actor-critic as an RLlib RLModule, which env runners act with.

The module takes the Dict observation of a goal environment as it is. RLlib's own flattening and
filtering connectors would write changed observations back into the episodes and so break
relabelling; normalising inside the module keeps the replay in the environment's units.
"""

from __future__ import annotations

from typing import Any, Self

import gymnasium as gym
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor, nn

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.envs.actions import actions_of

NETWORKS = "networks."  # before the name of each of its parameters
TRAINED_ALONE = (  # which acting does not need
    "critic", "target_critic", "dynamics", "action_prior", "state_value", "auxiliary",
)  # fmt: skip


class ODACRLModule(TorchRLModule, InferenceOnlyAPI):
    """Acts by π(a | s, g), and holds the networks that `agent.update` trains.

    Observations are the dict of a goal environment, with `observation` (B, D), `achieved_goal`
    (B, G) and `desired_goal` (B, G) in the environment's units. Actions are in [−1, 1]^A, RLlib's
    convention for normalised actions (`normalize_actions=True`), or one-hot rows of n numbers where
    there are finitely many, as `envs.actions` says. Training does not go through
    RLlib's `forward_train`: the learner calls `agent.update.compute_update` with `networks`.
    """

    @override(RLModule)
    def setup(self) -> None:
        space: gym.spaces.Dict = self.observation_space
        actions = actions_of(self.action_space)
        self.networks = ActorCritic(
            gym.spaces.flatdim(space["observation"]),
            gym.spaces.flatdim(space["desired_goal"]),
            actions.width,
            is_finite=actions.choices is not None,
            acting_only=self.inference_only,
            **self.model_config,  # what `ODACConfig` puts there
        )

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        return [f"networks.{name}" for name in TRAINED_ALONE]

    @override(TorchRLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Deterministic actions: the squashed mean, or the likeliest of finitely many."""
        with torch.no_grad():
            return {Columns.ACTIONS: self.networks.policy.mode(self._policy_inputs(batch))}

    @override(TorchRLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Sampled actions; `batch["noise"]` (B, A) may bring the standard normal noise along."""
        with torch.no_grad():
            inputs = self._policy_inputs(batch)
            noise = batch.get("noise")
            if noise is None:
                noise = torch.randn(len(inputs), self.networks.action_dim, device=inputs.device)
            actions, log_prob = self.networks.policy.sample(inputs, noise)
            return {Columns.ACTIONS: actions, Columns.ACTION_LOGP: log_prob}

    def _policy_inputs(self, batch: dict[str, Any]) -> Tensor:
        obs = {name: value.float() for name, value in batch[Columns.OBS].items()}
        return self.networks.policy_inputs(
            obs["observation"], obs["achieved_goal"], obs["desired_goal"]
        )

    # RLlib reduces float64 to float32 in states; the normaliser's sums need every digit.

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

    @override(nn.Module)
    def train(self, mode: bool = True) -> Self:
        # RLlib calls this often, and it would walk through every module; no layer here behaves
        # otherwise in training.
        self.training = mode
        return self
