"""The replay in a checkpoint: each learner writes and reads its own shard, past the driver.

Restored onto another number of learners, the episodes of all shards are dealt out anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_odac.checkpoints.manifest import REPLAY_DIRECTORY, check_fingerprint
from rllib_odac.learner import ODACTorchLearner
from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.storage import Fingerprint, Storage

T = TypeVar("T")


def updates_saved(group: LearnerGroup) -> int:
    """Updates that the learners had made when they were saved.

    Raises:
        OSError: If one could not be saved, which RLlib does not look at.
    """
    return on_each(group, _updates_saved)[0]


def save_shards(group: LearnerGroup, place: Storage) -> dict[str, Fingerprint]:
    """Lets each learner write its replay into a new directory, which all of them can reach.

    Returns:
        Fingerprints of the files, by their name in the checkpoint.

    Raises:
        OSError: If one cannot be written, or this process does not see it.
    """
    place.remove()  # what a save that was killed may have left
    place.make_directory()
    try:
        shards = dict(sorted(on_each(group, functools.partial(_save, place=place))))
        for name, fingerprint in shards.items():
            if (place / name).size != fingerprint["bytes"]:
                raise OSError(
                    f"a learner's '{name}' is not seen by the driver: the path must be on storage "
                    "that all nodes share"
                )
    except BaseException:
        place.remove()
        raise
    return {f"{REPLAY_DIRECTORY}/{name}": fingerprint for name, fingerprint in shards.items()}


def check_shards(group: LearnerGroup, place: Storage, manifest: Mapping[str, Any]) -> None:
    """Lets learners check the contents of the shards, each some of them.

    Raises:
        DamagedCheckpoint: If one is not what was written.
    """
    shards = {
        name: manifest["files"][f"{REPLAY_DIRECTORY}/{name}"]
        for name in manifest["replay_shards"] or []
    }
    on_each(
        group, functools.partial(_check, place=place, shards=shards, num_learners=number_of(group))
    )


def load_shards(group: LearnerGroup, place: Storage, manifest: Mapping[str, Any]) -> int:
    """Lets each learner load its shard, or its part of all if their number has changed.

    Without replay in the checkpoint, replays are emptied.

    Args:
        group: The learners.
        place: The directory of the shards.
        manifest: The checkpoint's.

    Returns:
        Transitions in the smallest replay.

    Raises:
        RuntimeError: If a learner has not taken over the rest of the checkpoint before, which RLlib
            does not look at.
    """
    names = manifest["replay_shards"] or []
    load = functools.partial(_load, place=place, names=names, num_learners=number_of(group))
    results = on_each(group, load)
    if any(updates != manifest["learner_updates"] for _, updates in results):
        raise RuntimeError("A learner could not read the checkpoint: see Ray's log for the reason.")
    return min(transitions for transitions, _ in results)


def number_of(group: LearnerGroup) -> int:
    """How many learners there are."""
    return max(1, len(group))  # RLlib does not count a learner in this process


def on_each(group: LearnerGroup, function: Callable[[ODACTorchLearner], T]) -> list[T]:
    """Results of all learners, each called with itself.

    Raises:
        OSError: That a learner met, or a ValueError. RLlib would restart it for one.
    """
    results = [r.get() for r in group.foreach_learner(functools.partial(_guarded, function))]
    for result in results:
        if isinstance(result, Exception):
            raise result
    if len(results) < number_of(group):
        raise RuntimeError("A learner has failed: build the algorithm anew.")
    return results


def _guarded(function: Callable[[ODACTorchLearner], T], learner: ODACTorchLearner) -> T | Exception:
    try:
        return function(learner)
    except (OSError, ValueError) as error:
        return error


def _updates_saved(learner: ODACTorchLearner) -> int:
    if learner.save_error is not None:
        raise learner.save_error
    return learner.num_updates


def _save(learner: ODACTorchLearner, place: Storage) -> tuple[str, Fingerprint]:
    name = f"shard_{learner._learner_index:05d}.npz"
    return name, (place / name).write(learner.replay.write)


def _check(
    learner: ODACTorchLearner,
    place: Storage,
    shards: Mapping[str, Fingerprint],
    num_learners: int,
) -> None:
    learner.copies.drop()
    for name in list(shards)[learner._learner_index :: num_learners]:
        file = place / name
        # What comes over a network is kept until it is loaded.
        found = file.fingerprint() if file.is_local else learner.copies.fetch(file)
        check_fingerprint(file, found, shards[name])


def _load(
    learner: ODACTorchLearner, place: Storage, names: Sequence[str], num_learners: int
) -> tuple[int, int]:
    replay = learner.replay
    try:
        if len(names) == num_learners:
            file = place / names[learner._learner_index]
            with learner.copies.open(file) as stream:
                replay.read(stream, str(file))
        else:
            _redistribute(learner, place, names, num_learners)
    finally:
        learner.copies.drop()
    return len(replay), learner.num_updates


def _redistribute(
    learner: ODACTorchLearner, place: Storage, names: Sequence[str], num_learners: int
) -> None:
    """Loads every so-many-th episode of all shards."""
    replay = learner.replay
    shard = GoalReplay(replay.capacity, *replay.widths, relabel=learner.config.relabelling)
    mine: list[tuple[float, int, GoalEpisode]] = []
    number = 0
    for name in names:
        with learner.copies.open(place / name) as stream:
            shard.read(stream, str(place / name))
        episodes = shard.episodes()
        for index, episode in enumerate(episodes):
            if number % num_learners == learner._learner_index:
                mine.append((index / len(episodes), number, episode))
            number += 1
    replay.clear()
    # Oldest first, whatever shard they were in: what has no room is to be what is old.
    for *_, episode in sorted(mine, key=lambda each: each[:2]):
        replay.add(episode)
