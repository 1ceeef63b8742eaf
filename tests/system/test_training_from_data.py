"""Training that begins with a log: on one process, and dealt out over learners."""

from __future__ import annotations

import pytest

from rllib_odac import make_env
from rllib_odac.data.read import read_episodes
from rllib_odac.data.record import record
from tests.conftest import small_config

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log") / "box"
    record(make_env("odac/Box2D-v0"), 1000, folder)
    return str(folder)


def replays(algorithm):
    return [
        result.get()
        for result in algorithm.learner_group.foreach_learner(
            lambda learner: [episode.observation.tobytes() for episode in learner.replay.episodes()]
        )
    ]


def test_learning_begins_with_the_first_step_and_goes_on_bit_for_bit(ray_cluster, log, tmp_path):
    config = small_config(data=log, num_steps_before_learning=200, updates_per_env_step=0.1)
    algorithm = config.build_algo()
    algorithm.train()
    assert algorithm.env_steps == 400
    assert algorithm.updates == 40
    [held] = replays(algorithm)
    assert held[:20] == [episode.observation.tobytes() for episode in read_episodes(log)]
    assert len(held) == 20 + 400 // 50
    algorithm.save_to_path(str(tmp_path / "c"))
    first = algorithm.train()["learners"]["default_policy"]["critic_loss"]
    algorithm.stop()

    other = config.copy(copy_frozen=False).build_algo()
    other.restore_from_path(str(tmp_path / "c"))
    assert other.train()["learners"]["default_policy"]["critic_loss"] == first
    assert replays(other)[0][:20] == held[:20]  # the log is in the checkpoint, and came once
    other.stop()

    small = config.copy(copy_frozen=False).training(checkpoint_replay=False).build_algo()
    small.train()
    small.save_to_path(str(tmp_path / "small"))
    small.restore_from_path(str(tmp_path / "small"))
    small.train()
    assert small.updates == 80
    assert replays(small)[0][:20] == held[:20]
    small.stop()


@pytest.mark.slow
def test_learners_share_a_log(ray_cluster, log):
    config = small_config(data=log, updates_per_env_step=0.1)
    algorithm = config.env_runners(num_env_runners=1).learners(num_learners=2).build_algo()
    algorithm.train()
    algorithm.drain()
    shards = replays(algorithm)
    episodes = [episode.observation.tobytes() for episode in read_episodes(log)]
    assert [shard[:10] for shard in shards] == [episodes[::2], episodes[1::2]]
    assert algorithm.updates == int(algorithm.env_steps * 0.1)
    algorithm.stop()
