"""`ODACTorchLearner`: a replay shard of its own and K gradient updates in one call.

RLlib's stock path draws each batch in the driver and turns it into tensors through connectors,
which costs several times the update itself. Here episodes come once, as arrays; the learner keeps
them, relabels them and updates from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ALL_MODULES, WEIGHTS_SEQ_NO
from torch import Tensor

from rllib_odac.agent.divergence import DivergenceGuard
from rllib_odac.agent.precision import flushed_denormals, matmul_precision
from rllib_odac.maths.losses import (
    bellman_target,
    critic_loss,
    dynamics_loss,
    effective_horizon,
    policy_loss,
    temperature_loss,
)
from rllib_odac.metrics import quantiles
from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.replay.relabelling import ExplorationGoals, validate_exploration_goals
from rllib_odac.rl_module import ODACRLModule

NUM_UPDATES_LIFETIME = "num_updates_lifetime"
REPLAY_TRANSITIONS = "replay_transitions"
UPDATES_SKIPPED = "updates_skipped"  # because they were not finite
SAMPLES_LOST = "samples_lost"  # with their env runner or node: each some episodes
UPDATES_PER_DRAW = 16  # updates whose batches are drawn from the replay at once
LEARNER_STATE = "odac_learner"


class ODACTorchLearner(TorchLearner):
    """Learner of `ODAC`, of its ablations and of any other `Objective`."""

    _weights_seq_no: int
    save_error: OSError | None = None  # of the last `save_to_path`

    @override(TorchLearner)
    def build(self) -> None:
        config = self.config
        torch.set_num_threads(config.num_threads)
        super().build()
        module = self.goal_module
        if config.torch_compile_learner:
            # Else code compiled for CPUs spends half of an update's time on storing ReLUs' masks.
            torch._functorch.config.aggressive_recomputation = True
        if self._torch_compile_forward_train:
            # RLlib 2.60 means to do this, but asks the MultiRLModule whether it can be compiled.
            module.compile(self._torch_compile_cfg)
        seed = config.seed if config.seed is not None else torch.seed() % 2**31
        # RLlib gives each learner the same seed: they have to draw different batches and noise.
        seed += 7919 * self._learner_index
        self.replay = GoalReplay(
            capacity=config.replay_capacity,
            observation_dim=len(module.observation_normalizer.mean),
            goal_dim=module.goal_dim,
            action_dim=module.action_dim,
            relabel=config.relabelling,
            device=self._device,
            seed=seed,
            extra_goals=module.objective.extra_goals,
            discount=config.prior_discount,
        )
        self.objective = module.objective
        self.value_bounds = self.objective.value_bounds(module.dynamics.max_log_prob)
        self._noise = torch.Generator(device=self._device)
        self._noise.manual_seed(seed + 1)
        self._learns_dynamics = config.learns_dynamics
        self._num_updates = 0
        self.num_transitions = 0  # taken in by this learner
        self._update_number = 0  # of the update that is being made
        self._log_update = False
        self._guard = DivergenceGuard(
            module,
            skips=config.on_divergence == "skip",
            reads_at_once=self._device.type == "cpu",
        )

    @property
    def goal_module(self) -> ODACRLModule:
        """The module being trained, without RLlib's and DDP's wrappers."""
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    @property
    def num_updates(self) -> int:
        """Updates made since the beginning of the run, skipped ones included."""
        return self._num_updates

    @override(TorchLearner)
    def configure_optimizers_for_module(
        self, module_id: str, config: AlgorithmConfig | None = None
    ) -> None:
        config = config or self.config
        # One fused optimizer for every network: their parameters are disjoint in the summed loss.
        params = [p for p in self.module[module_id].parameters() if p.requires_grad]
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(params, fused=True),
            params=params,
            lr_or_lr_schedule=config.lr,
        )

    @override(Learner)
    @flushed_denormals()
    def update(
        self,
        *,
        episodes: Iterable[GoalEpisode] = (),
        episodes_refs: Sequence[ray.ObjectRef] = (),
        num_updates: int = 0,
        timesteps: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Takes in new episodes and makes `num_updates` gradient updates from the replay.

        Args:
            episodes: New episodes.
            episodes_refs: References to lists of new episodes; one that was lost with its owner
                or node is dropped, and counted in the metric "samples_lost".
            num_updates: K. With several learners it must be equal on all of them.
            timesteps: RLlib's counters, for learning rate schedules.

        Returns:
            The reduced metrics, those of the losses from the last update.
        """
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps or {})
        self.add_episodes(self._arrived(episodes, episodes_refs))
        self._weights_seq_no += 1
        batch_size = self.config.train_batch_size_per_learner
        module = self.goal_module
        if num_updates and not module.goal_scale_known:
            self._set_goal_scale()
        for start in range(0, num_updates, UPDATES_PER_DRAW):
            count = min(UPDATES_PER_DRAW, num_updates - start)
            draw = module.prepare(self.replay.sample(count * batch_size))
            columns = {name: torch.split(column, batch_size) for name, column in draw.items()}
            noise = torch.randn(
                (count, 2, batch_size, module.action_dim),
                generator=self._noise,
                device=self._device,
            )
            if self.objective.extra_goals:
                shape = draw["goal"].shape
                goal_noise = torch.randn(shape, generator=self._noise, device=self._device)
                columns["goal_noise"] = torch.split(goal_noise, batch_size)
            for i in range(count):
                batch = {name: column[i] for name, column in columns.items()}
                batch["noise"] = noise[i]
                self._log_update = start + i + 1 == num_updates
                self._update_number = self._num_updates + start + i + 1
                self._update({DEFAULT_MODULE_ID: batch})
                module.update_targets(self.config.tau)
            self._guard.read()
        if num_updates:
            self._guard.check_parameters(self._update_number)
        self._num_updates += num_updates
        self.after_gradient_based_update(timesteps=timesteps or {})
        self.metrics.log_dict(
            {
                NUM_UPDATES_LIFETIME: self._num_updates,
                REPLAY_TRANSITIONS: len(self.replay),
                "replay_episodes": self.replay.num_episodes,
            },
            key=ALL_MODULES,
            window=1,
        )
        skipped = self._guard.take_skipped()
        skipped *= self._learner_index == 0  # the same on all learners: one of them counts
        self.metrics.log_value((ALL_MODULES, UPDATES_SKIPPED), skipped, reduce="lifetime_sum")
        return self.metrics.reduce()

    def _arrived(
        self, episodes: Iterable[GoalEpisode], references: Sequence[ray.ObjectRef]
    ) -> Iterator[GoalEpisode]:
        """The episodes, those that were referred to included, and counts references to none."""
        lost = 0
        yield from episodes
        for reference in references:
            try:
                yield from ray.get(reference)
            except (ray.exceptions.ObjectLostError, ray.exceptions.RayActorError):
                lost += 1  # its env runner or node is gone, and the episodes with it
        # Zeros too: a sum over all learners and the whole run is to be there from the beginning.
        self.metrics.log_value((ALL_MODULES, SAMPLES_LOST), lost, reduce="lifetime_sum")

    def add_episodes(self, episodes: Iterable[GoalEpisode]) -> None:
        """Stores episodes in the replay shard and takes them into the input statistics."""
        normalizer = self.goal_module.observation_normalizer
        statistics = torch.zeros(2, len(normalizer.mean) + 1, dtype=torch.float64)
        for episode in episodes:
            self.replay.add(episode)
            self.num_transitions += len(episode)
            rows = torch.from_numpy(episode.observation.astype(np.float64))
            statistics[0, 0] += len(rows)
            statistics[0, 1:] += rows.sum(0)
            statistics[1, 1:] += rows.square().sum(0)
        statistics = self._sum_over_learners(statistics)
        if statistics[0, 0] > 0:
            normalizer.merge(statistics[0, 0], statistics[0, 1:], statistics[1, 1:])

    def draw_exploration_goals(self, count: int) -> np.ndarray | None:
        """Achieved goals (N, G) for coming episodes, in the mixture that the config asks for.

        None if it asks for none, or as long as the replay is empty.
        """
        mixture = validate_exploration_goals(self.config.exploration_goals)
        achieved = mixture.get(ExplorationGoals.ACHIEVED, 0.0)
        rare = mixture.get(ExplorationGoals.RARE, 0.0)
        if achieved + rare == 0 or len(self.replay) == 0:
            return None
        num_rare = round(count * rare / (achieved + rare))
        measured = self.config.environment_facts["measured"]
        goals = [
            self.replay.sample_achieved(count - num_rare),
            self.replay.sample_achieved(num_rare, rare=True, measured=measured),
        ]
        return torch.cat(goals).cpu().numpy()

    def _set_goal_scale(self) -> None:
        """Fixes the unit of goals, once: the environment's, if it names one.

        Else it is the half-width of the goals seen so far in the widest direction.

        A value in nats depends on the unit that densities are measured in, so it may not move.
        """
        first_goals = [episode.desired_goal[0] for episode in self.replay.episodes()]
        goals = torch.from_numpy(np.stack(first_goals)).double()
        statistics = torch.stack(
            [torch.full_like(goals[0], len(goals)), goals.sum(0), goals.square().sum(0)]
        )
        count, total, squares = self._sum_over_learners(statistics)
        center = total / count
        scale = self.config.goal_scale
        if scale == "auto":
            scale = self.config.environment_facts["goal_scale"]
        if scale is None:
            deviation = (squares / count - center.square()).clamp_min(0).sqrt().max()
            scale = float(np.sqrt(3) * deviation)  # half-width of a uniform distribution
            if scale < 1e-6:
                raise ValueError(
                    "goal_scale is 'auto', but the environment names none and the goals seen so "
                    "far are all alike; it must be a positive number in the task's units."
                )
        self.goal_module.set_goal_units(center, scale)

    def _sum_over_learners(self, values: Tensor) -> Tensor:
        if self.distributed:
            values = values.to(self._device)
            torch.distributed.all_reduce(values)
        return values.cpu()

    @override(Learner)
    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: AlgorithmConfig,
        batch: dict[str, Tensor],
        fwd_out: dict[str, Tensor],
    ) -> Tensor:
        kl_weight = fwd_out["log_kl_weight"].detach().exp()
        with torch.no_grad():
            next_value, backup = self.objective.infer(batch, fwd_out, self.value_bounds)
            target = bellman_target(backup.reward, backup.discount, next_value)

        losses = {
            "critic_loss": critic_loss(fwd_out["q_values"], target),
            "policy_loss": policy_loss(fwd_out["policy_q"], fwd_out["policy_kl"], kl_weight),
        }
        if self._learns_dynamics:
            losses["dynamics_loss"] = dynamics_loss(fwd_out["log_prob_next"])
        if config.kl_weight == "auto":
            losses["temperature_loss"] = temperature_loss(
                fwd_out["log_kl_weight"], fwd_out["policy_kl"], self.goal_module.target_kl
            )
        losses |= self.objective.losses(fwd_out)
        targets = {"target": target, "reward": backup.reward, "discount": backup.discount}
        outcome = {name: fwd_out[name] for name in ("q_values", "log_prob_next")}
        total = self._guard.watch(
            self._update_number, losses, targets | outcome | {"goal": batch["goal"]}
        )
        if self._log_update:
            quantities = {
                "target": target,
                "reward": backup.reward,
                "discount": backup.discount,
                "effective_horizon": effective_horizon(backup.discount),
                **backup.metrics,
                **self._batch_quantities(batch, fwd_out),
            }
            losses |= {"total_loss": total, "kl_weight": kl_weight}
            self._log(module_id, losses | quantities | quantiles(quantities))
        return total

    def _batch_quantities(
        self, batch: dict[str, Tensor], fwd_out: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        distance = (batch["goal"] - batch["achieved_goal"]).norm(dim=-1)
        is_trivial = distance < self.goal_module.trivial_distance
        reached = is_trivial[batch["relabelled"]]
        own_and_far = ~(batch["relabelled"] | is_trivial)
        # Where an episode's own goal is not reached yet. As long as the policy reaches none of them
        # these values must be low: here over-estimation shows.
        unreached = {"unreached_value": fwd_out["q_values"][:, own_and_far]}
        return {
            "q_value": fwd_out["q_values"],
            "policy_kl": fwd_out["policy_kl"],
            "log_prob_next": fwd_out["log_prob_next"],
            "dynamics_scale": fwd_out["log_scale"].exp(),
            "relabelled_share": batch["relabelled"].double(),
            # Relabelled goals that are reached already teach little.
            "trivial_goal_share": reached.double().mean() if len(reached) else reached.sum(),
            **(unreached if own_and_far.any() else {}),
        }

    def _log(self, module_id: str, quantities: dict[str, Tensor]) -> None:
        """Logs the mean of each quantity of the last update, and stops training that diverges."""
        values = {name: float(value.detach().double().mean()) for name, value in quantities.items()}
        values = self._guard.finite(self._update_number, values)
        self.metrics.log_dict(values, key=module_id, window=1)

    @override(TorchLearner)
    def _update(self, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        with matmul_precision(self.config.matmul_precision):
            return super()._update(batch)

    @override(TorchLearner)
    def _compute_off_policyness(self, batch: dict[str, Any]) -> None:
        pass  # RLlib would log, at every update, what a replay batch does not carry

    # RLlib regroups all gradients by optimizer twice an update; without clipping there is no need,
    # nor for the optimizer to look for those of the update before.

    @override(TorchLearner)
    def compute_gradients(
        self, loss_per_module: dict[str, Tensor], **kwargs: Any
    ) -> dict[Any, Tensor]:
        for parameter in self._params.values():
            parameter.grad = None
        loss_per_module[DEFAULT_MODULE_ID].backward()  # type: ignore[no-untyped-call]
        return {name: parameter.grad for name, parameter in self._params.items()}

    @override(Learner)
    def postprocess_gradients(self, gradients_dict: dict[Any, Tensor]) -> dict[Any, Tensor]:
        if self.config.grad_clip is None and not self.config.log_gradients:
            return {}
        return super().postprocess_gradients(gradients_dict)

    @override(TorchLearner)
    def apply_gradients(self, gradients_dict: dict[Any, Tensor]) -> None:
        for parameter, gradient in gradients_dict.items():
            parameter.grad = gradient
        found_inf = self._guard.found_inf()
        for optimizer in self._named_optimizers.values():
            optimizer.found_inf = found_inf
            optimizer.step()

    # State ----------------------------------------------------------------------------------------

    @override(Learner)
    def save_to_path(self, *args: Any, **kwargs: Any) -> str:
        """RLlib's, whose errors nobody hears of where the learner is remote; see `save_error`."""
        self.save_error = None
        try:
            return super().save_to_path(*args, **kwargs)
        except OSError as error:
            self.save_error = error
            return ""

    @override(Learner)
    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, **kwargs)
        if self._check_component(LEARNER_STATE, components, kwargs.get("not_components")):
            state[LEARNER_STATE] = {
                "num_updates": self._num_updates,
                "noise": self._noise.get_state().numpy(),
                "device": self._device.type,
            }
        return state

    @override(Learner)
    def set_state(self, state: dict[str, Any]) -> None:
        # RLlib ignores weights that are not newer than its own; going back is what restoring is.
        if state.get(WEIGHTS_SEQ_NO, 0) <= self._weights_seq_no:
            self._weights_seq_no = 0
        super().set_state(state)
        if LEARNER_STATE in state:
            self._num_updates = state[LEARNER_STATE]["num_updates"]
            # RLlib saves one learner for all: the others must not share its noise. And generators
            # of different devices are not alike.
            if self._learner_index == 0 and state[LEARNER_STATE]["device"] == self._device.type:
                self._noise.set_state(torch.from_numpy(state[LEARNER_STATE]["noise"].copy()))
            else:
                self._noise.manual_seed(7919 * self._learner_index + self._num_updates)
