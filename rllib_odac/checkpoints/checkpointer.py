"""`ResumableAlgorithm`: an RLlib Algorithm whose checkpoints hold all that training needs.

RLlib's own hold no replay, no counters of ours and one learner's random state. Here each learner
writes its replay straight to where the checkpoint lies, on every path that RLlib and Tune take.
"""

from __future__ import annotations

import copy
import functools
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from pyarrow.fs import FileSystem
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.annotations import override
from ray.tune import Checkpoint

from rllib_odac.checkpoints.manifest import (
    REPLAY_DIRECTORY,
    checked,
    pointing_to_a_whole_one,
    whole_or_absent,
    write_manifest,
)
from rllib_odac.checkpoints.shards import check_shards, load_shards, save_shards, updates_saved
from rllib_odac.checkpoints.storage import Storage
from rllib_odac.config import ODACConfig
from rllib_odac.deploy.files import write_policy
from rllib_odac.env_runner import GoalEnvRunner

ALGORITHM_STATE = "odac"
EPISODES_DROPPED = "episodes_dropped"  # unfinished ones, which no checkpoint holds


class ResumableAlgorithm(Algorithm):
    """Saves and restores; what is under way, and the counters, are its subclass's."""

    config: ODACConfig
    env_steps: int
    updates: int
    _replay_place: Storage | None = None  # where Tune has the replay of a checkpoint

    @abstractmethod
    def drain(self) -> None:
        """Waits for all that is under way and not overdue, and makes every update owed."""

    @abstractmethod
    def forget_what_is_under_way(self) -> None:
        """Drops requests, calls and episodes that no learner has yet."""

    @abstractmethod
    def counters(self) -> dict[str, Any]:
        """What the driver knows of the run, for `set_counters`."""

    @abstractmethod
    def set_counters(self, counters: Mapping[str, Any]) -> None:
        """Takes over what `counters` gave."""

    @abstractmethod
    def weights_were_restored(self) -> None:
        """Hears that weights told of before are out of date."""

    @abstractmethod
    def replay_was_restored(self, transitions: int | None) -> None:
        """Hears of the transitions in the smallest replay; None if all begin empty."""

    @abstractmethod
    def sync_weights(self) -> None:
        """Gives env runners the learners' weights."""

    @override(Algorithm)
    def save_to_path(
        self, path: Any = None, *, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> str:
        """Saves everything that training needs to go on, the replay of every learner included.

        An env runner in this process drops the episodes that are going on, so that a run that
        continues and one that is restored do the same from here on. Remote ones just go on.

        Raises:
            OSError: If it cannot be written; then nothing of it is left.
        """
        self.drain()
        dropped, went_on = self._leave_unfinished_episodes()
        place = Storage.of(path, filesystem)
        with whole_or_absent(place) as target:
            super().save_to_path(target.path, filesystem=target.filesystem, **kwargs)
            write_policy(target, self)
            learner_updates = updates_saved(self.learner_group)
            shards = None
            if self.config.checkpoint_replay:
                shards = save_shards(
                    self.learner_group, self._replay_place or target / REPLAY_DIRECTORY
                )
            content = self._signature() | {
                "env_steps": self.env_steps,
                "updates": self.updates,
                "learner_updates": learner_updates,
                "unfinished_episodes": dropped + went_on,
                "went_on": went_on,
                "replay_shards": None if shards is None else list(map(os.path.basename, shards)),
            }
            write_manifest(target, content, elsewhere=shards or {})
        return place.path

    def _leave_unfinished_episodes(self) -> tuple[int, int]:
        """How many episodes are going on, which no checkpoint holds: dropped here, elsewhere not.

        The latter are lost to a run that is restored.
        """
        if self.env_runner_group.num_remote_env_runners() == 0:
            dropped = self.env_runner.drop_open_episodes()
            # Before the first update it has not heard yet what learners know of its observations.
            self.sync_weights()
            self._count_dropped(dropped)
            return dropped, 0
        counts = self.env_runner_group.foreach_env_runner(
            GoalEnvRunner.num_unfinished, local_env_runner=False, timeout_seconds=10
        )
        return 0, sum(counts)

    def _count_dropped(self, episodes: int) -> None:
        self.metrics.log_value(EPISODES_DROPPED, episodes, reduce="lifetime_sum")

    @override(Algorithm)
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves for Tune: replay goes where Tune will store the rest of the checkpoint, at once."""
        if self._storage is None:
            super().save_checkpoint(checkpoint_dir)
            return
        storage = copy.copy(self._storage)
        storage._update_checkpoint_index({})
        home = Storage(storage.storage_filesystem, storage.checkpoint_fs_path)
        self._replay_place = home / REPLAY_DIRECTORY
        try:
            super().save_checkpoint(checkpoint_dir)
        except BaseException:
            self._replay_place.remove()
            raise
        finally:
            self._replay_place = None

    @override(Algorithm)
    def restore(self, checkpoint_path: Any) -> None:
        """Restores what Tune has stored; learners read their replay straight from there."""
        checkpoint = getattr(checkpoint_path, "checkpoint", checkpoint_path)
        if isinstance(checkpoint, Checkpoint):
            home = Storage(checkpoint.filesystem, checkpoint.path)
            self._replay_place = home / REPLAY_DIRECTORY
        try:
            super().restore(checkpoint_path)
        finally:
            self._replay_place = None

    @classmethod
    @override(Algorithm)
    def from_checkpoint(
        cls, path: Any, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> Self:
        """A new algorithm from a checkpoint, which is checked first.

        Raises:
            DamagedCheckpoint: If it is not whole.
        """
        if isinstance(path, Checkpoint):
            path, filesystem = path.path, path.filesystem
        place, _ = checked(path, filesystem)
        algorithm: Self = super().from_checkpoint(place.path, place.filesystem, **kwargs)
        return algorithm

    def _signature(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the algorithm that it is restored into."""
        observation, action = self.spaces[DEFAULT_MODULE_ID]
        sizes = {name: list(space.shape) for name, space in observation.spaces.items()}
        return {
            "env": str(self.config.env),
            "spaces": sizes | {"actions": list(action.shape)},
            "objective": type(self.config.build_objective()).__name__,
        }

    @override(Algorithm)
    def restore_from_path(
        self, path: Any, *args: Any, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> None:
        """Goes on from a checkpoint, or takes over one `component` of it alone.

        Raises:
            DamagedCheckpoint: If it is not whole. The algorithm is then as it was.
        """
        if kwargs.get("component") is not None:
            place, manifest = Storage.of(path, filesystem), None
        else:
            place, manifest = checked(path, filesystem)
            replay = self._replay_place or place / REPLAY_DIRECTORY
            self._check_signature(place, manifest)
            with pointing_to_a_whole_one(place):
                check_shards(self.learner_group, replay, manifest)
            self.forget_what_is_under_way()
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(lambda runner: runner.forget_weights_version())
        self.env_runner_group.foreach_env_runner(lambda runner: runner.drop_open_episodes())
        super().restore_from_path(place.path, *args, filesystem=place.filesystem, **kwargs)
        self.weights_were_restored()
        self.env_runner_group.foreach_env_runner(
            functools.partial(GoalEnvRunner.reseed, env_steps=self.env_steps),
            local_env_runner=False,
        )
        if manifest is not None:
            transitions = load_shards(self.learner_group, replay, manifest)
            has_replay = manifest["replay_shards"] is not None
            self.replay_was_restored(transitions if has_replay else None)
            self._count_dropped(manifest["went_on"])
            if not place.is_local:  # RLlib looks for weights on this machine alone
                self.sync_weights()

    def _check_signature(self, place: Storage, manifest: Mapping[str, Any]) -> None:
        for name, ours in self._signature().items():
            if manifest.get(name, ours) != ours:
                raise ValueError(
                    f"The checkpoint '{place}' is of {manifest[name]!r}, but this is {ours!r}; "
                    "restore it into an algorithm for the same environment and objective."
                )

    @override(Algorithm)
    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, **kwargs)
        if self._check_component(ALGORITHM_STATE, components, kwargs.get("not_components")):
            state[ALGORITHM_STATE] = self.counters()
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if ALGORITHM_STATE in state:
            self.set_counters(state[ALGORITHM_STATE])
