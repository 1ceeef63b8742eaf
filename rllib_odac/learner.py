"""`ODACTorchLearner`: a replay shard of its own and K gradient updates in one call.

RLlib's stock path draws each batch in the driver and turns it into tensors through connectors,
which costs several times the update itself. Here episodes come once, as arrays; the learner keeps
them, relabels them and updates from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch, make_batches
from rllib_odac.agent.distributed import (
    copy_from_first_learner,
    mean_over_learners,
    sum_over_learners,
)
from rllib_odac.agent.divergence import DivergenceGuard
from rllib_odac.agent.executor import (
    Executor,
    Updated,
    fit_optimizer,
    learning_rate,
    obstacle,
    set_learning_rate,
)
from rllib_odac.agent.goal_units import goal_units
from rllib_odac.agent.networks import power_sums
from rllib_odac.agent.precision import flushed_denormals, matmul_precision, round_products
from rllib_odac.agent.rollouts import update_rule
from rllib_odac.agent.update import Update
from rllib_odac.agent.update_metrics import compute_metrics
from rllib_odac.metrics import means, quantiles
from rllib_odac.ray_compat import recompute_in_backward_pass
from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.replay.exploration_goals import (
    draw_exploration_goals,
    validate_exploration_goals,
)
from rllib_odac.storage import Copies

NUM_UPDATES_LIFETIME = "num_updates_lifetime"
REPLAY_TRANSITIONS = "replay_transitions"
UPDATES_SKIPPED = "updates_skipped"  # because they were not finite
SAMPLES_LOST = "samples_lost"  # with their env runner or node: each some episodes
UPDATES_PER_DRAW = 16  # updates whose batches are drawn from the replay at once
LEARNER_STATE = "odac_learner"
SEED_STRIDE = 7919  # between the seeds of learners, to each of which RLlib gives the same


class ODACTorchLearner(TorchLearner):
    """Learner of `ODAC`, of its ablations and of any other objective."""

    _weights_seq_no: int
    save_error: OSError | None = None  # of the last `save_to_path`
    _get_optimizer_lr = staticmethod(learning_rate)
    _set_optimizer_lr = staticmethod(set_learning_rate)

    @override(TorchLearner)
    def build(self) -> None:
        config = self.config
        torch.set_num_threads(config.num_threads)
        super().build()
        networks = self.networks
        round_products(networks, config.autocast)
        self.objective = config.build_objective()
        self._compute_update = update_rule(self.objective, networks.rules)
        if config.torch_compile_learner:
            recompute_in_backward_pass()
            self._compute_update = torch.compile(
                self._compute_update,
                backend=config.torch_compile_learner_dynamo_backend,
                mode=config.torch_compile_learner_dynamo_mode,
            )
        seed = torch.seed() % 2**31 if config.seed is None else config.seed
        self._base_seed = seed + SEED_STRIDE * self._learner_index
        auxiliary = self.objective.auxiliary
        self.replay = GoalReplay(
            capacity=config.replay_capacity,
            observation_dim=len(networks.observation_normalizer.mean),
            goal_dim=networks.goal_dim,
            action_dim=networks.action_dim,
            relabel=config.relabelling,
            device=self._device,
            seed=self._base_seed,
            auxiliary_goal=None if auxiliary is None else auxiliary.goal_source,
            discount=config.prior_discount,
            candidates=config.relabel_candidates,
            logged_share=config.data_share,
        )
        self._noise = torch.Generator(device=self._device)
        self._noise.manual_seed(self._base_seed + 1)
        self.num_updates = 0  # since the beginning of the run, skipped ones included
        self.copies = Copies()  # of its replay in a checkpoint, between checking and loading
        self.refresh_replay: Callable[[int], object] = lambda num_updates: None  # `data.window`
        skips = config.on_divergence == "skip"
        self._executor = Executor(
            config.executor,
            self._updates_of_one_draw,
            self._note_repetition,
            self._device,
            generators=(self._noise, self.replay.generator),
            obstacle=obstacle(networks, skips=skips, distributed=self.distributed),
        )
        reads_at_once = self._device.type == "cpu" and not self._executor.is_captured
        self._guard = DivergenceGuard(networks, skips, reads_at_once)

    @property
    def networks(self) -> ActorCritic:
        """The networks being trained."""
        networks: ActorCritic = self.module[DEFAULT_MODULE_ID].networks
        return networks

    @override(TorchLearner)
    def configure_optimizers_for_module(
        self, module_id: str, config: AlgorithmConfig | None = None
    ) -> None:
        config = config or self.config
        # One fused optimizer for every network: their parameters are disjoint in the summed loss.
        params = [p for p in self.module[module_id].parameters() if p.requires_grad]
        adam = torch.optim.Adam(params, fused=True)
        fit_optimizer(adam, config.executor)
        self.register_optimizer(
            module_id=module_id,
            optimizer=adam,
            params=params,
            lr_or_lr_schedule=config.lr,
        )

    @override(TorchLearner)
    def _make_modules_ddp_if_necessary(self) -> None:
        # DDP averages gradients from within a module's forward pass. Ours are averaged by one
        # all-reduce in `compute_gradients`; what DDP would do besides is to make learners alike.
        if self.distributed:
            copy_from_first_learner(self.networks.parameters())

    # Updating -------------------------------------------------------------------------------------

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

        Raises:
            FloatingPointError: If an update is not finite, unless `on_divergence` is "skip".
        """
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps or {})
        self.add_episodes(self._resolve(episodes, episodes_refs))
        self._weights_seq_no += 1
        if num_updates and not self.networks.goal_scale_known:
            self._set_goal_units()
        last = self.num_updates + num_updates
        while self.num_updates < last:
            count = min(last - self.num_updates, UPDATES_PER_DRAW)
            updated = self._executor(count, self.replay.has_terminal_states)
            self._guard.read()
        if num_updates:
            self._log_update(updated.batch, updated.update)
            self._guard.check_parameters(self.num_updates)
        self.after_gradient_based_update(timesteps=timesteps or {})
        self._log_counts()
        return self.metrics.reduce()

    def _updates_of_one_draw(self, count: int) -> Updated:
        """Makes `count` updates from one draw of the replay."""
        batch_size = self.config.train_batch_size_per_learner
        draw = self.replay.sample_steps(
            count * batch_size, self.config.target_steps, self.networks.trivial_distance
        )
        for batch in make_batches(self.networks, draw, batch_size, self._noise):
            self.num_updates += 1
            update = self._step(batch)
        return Updated(batch, update, self._guard.unread)

    def _note_repetition(self, updated: Updated) -> None:
        """Counts updates that were repeated as recorded, and watches their losses."""
        for watched in updated.watched:
            self.num_updates += 1
            self._guard.unread.append(watched._replace(number=self.num_updates))

    def _step(self, batch: Batch) -> Update:
        """One gradient update of all networks, and of the target critics."""
        networks = self.networks
        with matmul_precision(self.config.matmul_precision, self._device):
            update: Update = self._compute_update(networks, self.objective, batch)
            loss = self.compute_loss_for_module(
                module_id=DEFAULT_MODULE_ID, config=self.config, batch=batch, fwd_out=update
            )
            gradients = self.compute_gradients({DEFAULT_MODULE_ID: loss})
        self.apply_gradients(self.postprocess_gradients(gradients))
        networks.update_targets(self.config.tau)
        networks.action_prior.follow(networks.policy, self.num_updates)
        return update

    @override(Learner)
    def compute_loss_for_module(
        self, *, module_id: str, config: AlgorithmConfig, batch: Batch, fwd_out: Update
    ) -> Tensor:
        """The sum of the losses of an update, checked to be finite."""
        return self._guard.watch(self.num_updates, fwd_out, batch)

    @override(TorchLearner)
    def compute_gradients(
        self, loss_per_module: dict[str, Tensor], **kwargs: Any
    ) -> dict[Any, Tensor]:
        for parameter in self._params.values():
            parameter.grad = None
        loss_per_module[DEFAULT_MODULE_ID].backward()  # type: ignore[no-untyped-call]
        gradients = {name: parameter.grad for name, parameter in self._params.items()}
        return mean_over_learners(gradients) if self.distributed else gradients

    @override(Learner)
    def postprocess_gradients(self, gradients_dict: dict[Any, Tensor]) -> dict[Any, Tensor]:
        return gradients_dict  # clipped below: RLlib takes one norm over all networks

    @override(TorchLearner)
    def apply_gradients(self, gradients_dict: dict[Any, Tensor]) -> None:
        for parameter, gradient in gradients_dict.items():
            parameter.grad = gradient
        if self.config.grad_clip is not None:
            for network in self.networks.children():
                if trained := [p for p in network.parameters() if p.requires_grad]:
                    torch.nn.utils.clip_grad_norm_(trained, self.config.grad_clip)
        found_inf = self._guard.found_inf()
        for optimizer in self._named_optimizers.values():
            optimizer.found_inf = found_inf
            optimizer.step()

    # Metrics --------------------------------------------------------------------------------------

    def _log_update(self, batch: Batch, update: Update) -> None:
        """Logs the means of the quantities of the last update, and some of their quantiles."""
        quantities = compute_metrics(self.networks, batch, update)
        summed = {"total_loss": update.total_loss, "kl_weight": update.predictions.kl_weight}
        tensors = update.losses | summed | quantities | quantiles(quantities)
        values = self._guard.finite(self.num_updates, means(tensors))
        self.metrics.log_dict(values, key=DEFAULT_MODULE_ID, window=1)

    def _log_counts(self) -> None:
        counts = {
            NUM_UPDATES_LIFETIME: self.num_updates,
            REPLAY_TRANSITIONS: len(self.replay),
            "replay_episodes": self.replay.num_episodes,
        }
        self.metrics.log_dict(counts, key=ALL_MODULES, window=1)
        skipped = self._guard.take_skipped()
        if self._learner_index > 0:
            skipped = 0  # all learners skip the same updates, and their counts are added up
        self.metrics.log_value((ALL_MODULES, UPDATES_SKIPPED), skipped, reduce="lifetime_sum")

    # Replay ---------------------------------------------------------------------------------------

    def _resolve(
        self, episodes: Iterable[GoalEpisode], references: Sequence[ray.ObjectRef]
    ) -> Iterator[GoalEpisode]:
        """All episodes, those referred to included; counts references whose object is lost."""
        lost = 0
        yield from episodes
        for reference in references:
            try:
                yield from ray.get(reference)
            except (ray.exceptions.ObjectLostError, ray.exceptions.RayActorError):
                lost += 1  # its env runner or node is gone, and the episodes with it
        # Zeros too, so that the sum over the run is there from the beginning.
        self.metrics.log_value((ALL_MODULES, SAMPLES_LOST), lost, reduce="lifetime_sum")

    def add_episodes(self, episodes: Iterable[GoalEpisode]) -> None:
        """Stores episodes in the replay shard and in the input statistics of all learners."""
        self.networks.observation_normalizer.merge(self._sum_over_learners(self.store(episodes)))

    def store(self, episodes: Iterable[GoalEpisode]) -> Tensor:
        """Stores episodes in the replay shard alone; returns their `power_sums` (3, D)."""
        moments = torch.zeros(3, self.replay.widths[0], dtype=torch.float64)

        def counted() -> Iterator[GoalEpisode]:
            for episode in episodes:
                moments.add_(power_sums(torch.from_numpy(episode.observation.astype(np.float64))))
                yield episode

        self.replay.extend(counted())
        return moments

    def draw_exploration_goals(self, count: int) -> dict[str, np.ndarray]:
        """Goals (N, G) for coming episodes, of each source that the config asks for."""
        sources = validate_exploration_goals(self.config.exploration_goals)
        goals = self.config.goals
        least = goals.success_distance or self.networks.trivial_distance
        drawn = draw_exploration_goals(self.replay, sources, count, least, goals.measured)
        return {source: goals.cpu().numpy() for source, goals in drawn.items()}

    def _set_goal_units(self) -> None:
        """Fixes the unit of goals, once, since a value in nats depends on the density's unit.

        It is the setting's or the environment's, or else that of the goals seen so far.
        """
        sums = [power_sums(goals) for goals in self.replay.goals_of_episodes()]
        scale = self.config.goal_scale
        scale = self.config.goals.scale if scale == "auto" else scale
        self.networks.set_goal_units(*goal_units(map(self._sum_over_learners, sums), scale))

    def _sum_over_learners(self, values: Tensor) -> Tensor:
        return sum_over_learners(values, self._device) if self.distributed else values

    # State ----------------------------------------------------------------------------------------

    @override(Learner)
    def save_to_path(self, *args: Any, **kwargs: Any) -> str:
        """RLlib's, but for errors, which RLlib loses where the learner is remote: `save_error`."""
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
                "num_updates": self.num_updates,
                "noise": self._noise.get_state().numpy(),
                "draws": self.replay.generator.get_state().numpy(),
                "device": self._device.type,
            }
        return state

    @override(Learner)
    def set_state(self, state: dict[str, Any]) -> None:
        # RLlib ignores weights that are not newer than its own; a restore may go back in time.
        if state.get(WEIGHTS_SEQ_NO, 0) <= self._weights_seq_no:
            self._weights_seq_no = 0
        super().set_state(state)
        for optimizer in self._named_optimizers.values():
            fit_optimizer(optimizer, self.config.executor)  # whatever saved it
        self._executor.forget()  # the optimizer's state has been replaced
        if LEARNER_STATE in state:
            self.num_updates = state[LEARNER_STATE]["num_updates"]
            # RLlib saves one learner for all, whose noise the others must not share. Random states
            # are not picklable between types of devices.
            if self._learner_index == 0 and state[LEARNER_STATE]["device"] == self._device.type:
                for name, generator in (("noise", self._noise), ("draws", self.replay.generator)):
                    generator.set_state(torch.from_numpy(state[LEARNER_STATE][name].copy()))
            else:
                self._noise.manual_seed(self._base_seed + self.num_updates)
