"""A log that passes through a replay: every episode once a pass, shared by learners, in pace."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import pytest

from rllib_odac.data.window import Log, Window
from rllib_odac.envs.actions import actions_of
from rllib_odac.replay.episodes import GoalEpisode

ACTIONS = actions_of(gym.spaces.Box(-1, 1, (1,)))
STEPS = 3


def log_of(folder, files, episodes=4, num_learners=1, capacity=50):
    """Episodes of three steps whose observations are their number."""
    for number in range(files):
        first = number * episodes
        values = np.repeat(np.arange(first, first + episodes), STEPS + 1)
        terminals = np.tile([0] * STEPS + [1], episodes)
        np.savez_compressed(
            folder / f"{number:02d}.npz",
            observations=values[:, None].astype(np.float32),
            actions=np.zeros((len(values), 1)),
            terminals=terminals,
        )
    return Log(str(folder), None, ACTIONS, capacity, num_learners)


def numbers(episodes, count):
    return [int(e.observation[0, 0]) for e in itertools.islice(episodes, count)]


def test_every_pass_has_each_episode_once_in_another_order(tmp_path):
    log = log_of(tmp_path, files=5)
    seen = numbers(log.endless(0, seed=[0, 0]), 3 * 20)
    passes = [seen[start : start + 20] for start in (0, 20, 40)]
    assert [sorted(each) for each in passes] == [list(range(20))] * 3
    assert len({tuple(each) for each in passes}) == 3
    assert seen == numbers(log.endless(0, seed=[0, 0]), 60)
    assert seen != numbers(log.endless(0, seed=[0, 1]), 60)  # resumed elsewhere


@pytest.mark.parametrize(("files", "episodes"), [(4, 3), (1, 12)])
def test_learners_share_each_pass(tmp_path, files, episodes):
    log = log_of(tmp_path, files, episodes, num_learners=2)
    one, other = (numbers(log.endless(learner, [7]), 12) for learner in (0, 1))
    for each in (slice(0, 6), slice(6, 12)):
        assert sorted(one[each] + other[each]) == list(range(12))


def test_learners_of_an_odd_number_of_files_see_all_in_the_long_run(tmp_path):
    log = log_of(tmp_path, files=3, episodes=2, num_learners=2)
    for learner in (0, 1):
        assert set(numbers(log.endless(learner, [7]), 40)) == set(range(6))


def test_a_replay_is_filled_and_then_renewed_in_pace():
    def episodes():
        for number in itertools.count():
            rows = np.full((STEPS + 1, 1), number, np.float32)
            yield GoalEpisode(rows, rows, rows, np.zeros((STEPS, 1), np.float32))

    window = Window(episodes(), steps_per_update=0.5, capacity=40)
    assert numbers(window.fill(), 100) == list(range(10))
    assert [numbers(window.advance(4), 100) for _ in range(6)] == [
        [10], [11], [], [12], [13], []  # 2 steps each
    ]  # fmt: skip
    assert numbers(window.advance(10_000), 100) == [14, 15, 16, 17]  # a quarter at once


def test_an_episode_that_no_replay_holds_is_named(tmp_path):
    log = log_of(tmp_path, files=1, capacity=STEPS)
    sentence = r"00\.npz', episode 0: observation has 4 rows, but must have at most replay_capacity"
    with pytest.raises(ValueError, match=sentence):
        next(log.once(0))


def test_what_is_wrong_later_is_raised_where_it_is_taken(tmp_path):
    log = log_of(tmp_path, files=1, episodes=4)
    window = Window(log.endless(0, [0]), steps_per_update=1, capacity=8000)
    assert len(list(window.fill())) == 2000
    (tmp_path / "00.npz").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"00\.npz' is damaged: "):
        [list(window.advance(3000)) for _ in range(100)]
