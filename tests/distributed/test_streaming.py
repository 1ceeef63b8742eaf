"""A log of four times the memory that learners may have, and one that turns out to be damaged."""

from __future__ import annotations

import functools
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle

from rllib_odac.data.read import read_episodes
from tests.conftest import small_config

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA limits memory on Linux alone"),
]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests

WIDTH, STEPS, EPISODES_PER_FILE = 1000, 50, 20  # 4 kB a state, 4 MB a file
ALLOWED = 48 << 20  # bytes that a learner's memory may grow by, its replay included
CAPACITY = 3_000  # states: 12 MB of that
UPDATES = 4  # in an iteration


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Four times ALLOWED, in float32; observations are near the number of their file."""
    folder, rng = tmp_path_factory.mktemp("log"), np.random.default_rng(0)
    rows = EPISODES_PER_FILE * (STEPS + 1)
    observations = rng.normal(scale=0.05, size=(rows, WIDTH)).astype(np.float32)
    for number in range(1 + 4 * ALLOWED // observations.nbytes):
        np.savez(
            folder / f"{number:02d}.npz",
            observations=observations + np.float32(number),
            actions=rng.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
            terminals=np.arange(rows) % (STEPS + 1) == STEPS,
        )
    return folder


def offline(log, num_learners, **settings):
    config = small_config(
        None,
        offline=True,
        data=str(log),
        data_goal=[0, 1],
        replay_capacity=CAPACITY,
        train_batch_size_per_learner=8,
        min_sample_timesteps_per_iteration=UPDATES,
        **settings,
    )
    return config.learners(num_learners=num_learners)


def each(algorithm, function):
    return [result.get() for result in algorithm.learner_group.foreach_learner(function)]


def cap(learner):
    """Lets a learner's memory grow by what ALLOWED leaves beside its replay."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    used = int(status["VmData"].split()[0]) * 1024  # what the limit is compared with
    replay = learner.replay._states.untyped_storage().nbytes()
    resource.setrlimit(resource.RLIMIT_DATA, (used + ALLOWED - replay, resource.RLIM_INFINITY))


def fits(log, learner):
    """Whether a learner could have read all of the log."""
    try:
        return len(list(read_episodes(log))) > 0
    except MemoryError:
        return False


def train(algorithm, times):
    for _ in range(times):
        algorithm.train()


def seen(learner):
    """The files whose episodes a replay holds."""
    return set(learner.replay.goals_of_episodes()[1][:, 0].round().int().tolist())


@pytest.mark.long
@pytest.mark.parametrize("num_learners", [1, 2])
def test_a_log_of_four_times_the_memory_trains(ray_cluster, log, num_learners, caplog):
    algorithm = offline(log, num_learners, data_reuse=0.02).build_algo()
    each(algorithm, cap)
    wanted, files = set(range(len(list(log.iterdir())))), set()
    while files != wanted and algorithm.updates < 100 * UPDATES:
        algorithm.train()
        files |= set().union(*each(algorithm, seen))
    assert files == wanted
    assert caplog.text.count("is more than replay_capacity") == 1
    assert not any(each(algorithm, functools.partial(fits, log)))  # the limit is one
    algorithm.stop()


@pytest.mark.long
def test_what_one_of_two_learners_finds_wrong_ends_a_run_with_one_sentence(
    ray_cluster, log, tmp_path
):
    folder = shutil.copytree(log, tmp_path / "log")
    good = dict(np.load(folder / "00.npz"))
    actions = good["actions"].copy()
    actions[STEPS + 3] = 2  # in the second episode, which is the second learner's
    np.savez(folder / "00.npz", **{**good, "actions": actions})
    algorithm = offline(folder, 2, data_reuse=0.02).build_algo()
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"00\.npz', episode 1: actions has 2 at step 2"):
        algorithm.train()
    assert each(algorithm, lambda learner: len(learner.replay)) == [0, 0]
    np.savez(folder / "00.npz", **good)
    algorithm.train()
    assert all(each(algorithm, lambda learner: len(learner.replay) > 0.9 * CAPACITY))
    for file in folder.iterdir():  # in the middle of the stream
        file.unlink()
        file.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"\.npz' is damaged: "):
        train(algorithm, 100)
    assert not algorithm.can_be_saved
    algorithm.stop()
    assert time.monotonic() - start < 300  # half of what learners may take: none waits for another
