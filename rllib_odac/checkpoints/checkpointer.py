"""`Checkpointer`: what a checkpoint of ODAC holds besides RLlib's files, written and read back.

RLlib's own checkpoints hold no replay and one learner's random state. Here each learner writes its
replay straight to where the checkpoint lies, on every path that RLlib and Tune take, and a manifest
with the checksum of every file makes the checkpoint whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_odac.checkpoints.atomic import atomic_directory
from rllib_odac.checkpoints.find import open_checkpoint, suggesting_whole_checkpoint
from rllib_odac.checkpoints.manifest import REPLAY_DIRECTORY, write_manifest
from rllib_odac.checkpoints.shards import check_shards, load_shards, save_shards, updates_saved
from rllib_odac.storage import Storage

Manifest = dict[str, Any]


class Checkpointer:
    """Writes and reads checkpoints of one algorithm.

    Args:
        learners: Which write and read the shards of the replay.
        signature: What a checkpoint must have in common with the algorithm it is restored into.
        plain_files: Gives the files that can be read without a pickle, by name.
        saves_replay: Whether checkpoints hold the replay.
    """

    def __init__(
        self,
        learners: LearnerGroup,
        signature: Mapping[str, Any],
        plain_files: Callable[[], Mapping[str, bytes]],
        saves_replay: bool,
    ) -> None:
        self._learners = learners
        self._signature = signature
        self._plain_files = plain_files
        self._saves_replay = saves_replay
        self._replay: Storage | None = None  # where the replay lies, if not in the checkpoint

    @contextlib.contextmanager
    def replay_in(self, storage: Storage) -> Iterator[None]:
        """Lets replay be written to and read from a directory of its own meanwhile."""
        self._replay = storage
        try:
            yield
        finally:
            self._replay = None

    @contextlib.contextmanager
    def writing(self, checkpoint: Storage, content: Mapping[str, Any]) -> Iterator[Storage]:
        """The directory that RLlib is to write its files into; the rest is added afterwards.

        Args:
            checkpoint: The directory of the checkpoint.
            content: What the manifest is to say besides.

        Raises:
            OSError: If it cannot be written; then nothing of it is left.
        """
        with atomic_directory(checkpoint) as target:
            yield target
            for name, file in self._plain_files().items():
                (target / name).parent.make_directory()
                (target / name).write_bytes(file)
            learner_updates = updates_saved(self._learners)
            shards = None
            if self._saves_replay:
                shards = save_shards(self._learners, self._replay or target / REPLAY_DIRECTORY)
            manifest = {
                **self._signature,
                **content,
                "learner_updates": learner_updates,
                "replay_shards": None if shards is None else list(map(os.path.basename, shards)),
            }
            write_manifest(target, manifest, elsewhere=shards or {})

    def open(self, path: Any, filesystem: Any = None) -> tuple[Storage, Manifest]:
        """A checkpoint of this algorithm and its manifest, when every byte of it is checked.

        Raises:
            DamagedCheckpoint: If it is not whole.
            ValueError: If it is one of another version, environment or objective.
        """
        checkpoint, manifest = open_checkpoint(path, filesystem)
        for name, ours in self._signature.items():
            if manifest.get(name, ours) != ours:
                raise ValueError(
                    f"The checkpoint '{checkpoint}' is of {manifest[name]!r}, but this is "
                    f"{ours!r}; restore it into an algorithm for the same environment and "
                    "objective."
                )
        with suggesting_whole_checkpoint(checkpoint):
            check_shards(self._learners, self._replay_of(checkpoint), manifest)
        return checkpoint, manifest

    def load_replay(self, checkpoint: Storage, manifest: Manifest) -> int | None:
        """Lets learners load the replay, or empties theirs if the checkpoint has none.

        Returns:
            Transitions in the smallest replay; None if all begin empty.
        """
        transitions = load_shards(self._learners, self._replay_of(checkpoint), manifest)
        return None if manifest["replay_shards"] is None else transitions

    def _replay_of(self, checkpoint: Storage) -> Storage:
        return self._replay or checkpoint / REPLAY_DIRECTORY
