"""The replay: invariants under any sequence of adds, relabelling strategies, files."""

from __future__ import annotations

import collections
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_odac.replay import blocks
from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.replay.relabelling import NUM_NEAR, RelabelStrategy

MIXED = {"future": 0.4, "final": 0.1, "episode": 0.1, "random": 0.2, "own": 0.2}


def make_replay(capacity=100, relabel=None, seed=0):
    return GoalReplay(capacity, 3, 2, 2, relabel or MIXED, seed=seed)


def save(replay, path):
    with open(path, "wb") as file:
        replay.write(file)


def load(replay, path):
    with open(path, "rb") as file:
        replay.read(file, str(path))


def check_batch(batch, alive):
    """Each number of `make_episode`'s episodes tells where it comes from."""
    number, time = batch.observation[:, 0], batch.observation[:, 1]
    assert set(number.int().tolist()) <= alive
    assert torch.equal(batch.next_observation[:, 0], number)
    assert torch.equal(batch.next_observation[:, 1], time + 1)
    assert torch.equal(batch.actions, torch.stack([number, time], -1))
    assert torch.equal(batch.achieved_goal, torch.stack([number, time], -1))
    assert torch.equal(batch.next_achieved_goal, torch.stack([number, time + 1], -1))
    own = ~batch.relabelled
    assert (batch.goal[own][:, 1] == -1).all()
    assert torch.equal(batch.goal[own][:, 0], number[own])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(31, 120))
def test_any_sequence_of_episodes_keeps_whole_newest_ones(lengths, capacity):
    replay = make_replay(capacity)
    held = collections.deque()
    for number, steps in enumerate(lengths):
        episode = _episode(steps, number)
        replay.add(episode)
        held.append((number, steps))
        while sum(steps + 1 for _, steps in held) > capacity:
            held.popleft()
        assert replay.num_episodes == len(held)
        assert len(replay) == sum(steps for _, steps in held)
        assert replay.num_states == sum(steps + 1 for _, steps in held) <= capacity
        check_batch(replay.sample(64), {number for number, _ in held})
    assert [len(episode) for episode in replay.episodes()] == [steps for _, steps in held]


def all_known(batch):
    """A batch that says of each transition that it is not terminal, where none is."""
    if batch.terminated is not None:
        return batch
    return batch._replace(terminated=torch.zeros_like(batch.relabelled))


def _episode(steps, number, terminated=False):
    time = np.arange(steps + 1, dtype=np.float32)
    label = np.full(steps + 1, number, dtype=np.float32)
    return GoalEpisode(
        observation=np.stack([label, time, 0 * time], axis=-1),
        achieved_goal=np.stack([label, time], axis=-1),
        desired_goal=np.stack([label, 0 * time - 1], axis=-1),
        actions=np.stack([label[:-1], time[:-1]], axis=-1),
        terminated=terminated,
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=40), st.integers(31, 120), st.integers(31, 120))
def test_episodes_stored_together_are_those_stored_one_after_the_other(lengths, capacity, rows):
    episodes = [_episode(steps, number, steps % 3 == 0) for number, steps in enumerate(lengths, 1)]
    together, alone = make_replay(capacity), make_replay(capacity)
    with mock.patch.object(blocks, "BLOCK_ROWS", rows):
        together.extend(episodes)
    for episode in episodes:
        alone.add(episode)
    assert len(together) == len(alone)
    if len(alone):
        for ours, theirs in zip(together.sample(50), alone.sample(50), strict=True):
            assert ours is theirs or torch.equal(ours, theirs)
    for ours, theirs in zip(together.episodes(), alone.episodes(), strict=True):
        assert ours.terminated == theirs.terminated
        assert np.array_equal(ours.observation, theirs.observation)
        assert np.array_equal(ours.actions, theirs.actions)


def test_of_a_block_with_a_bad_number_nothing_is_stored():
    replay = make_replay()
    bad = _episode(5, 2)
    bad.actions[3, 1] = np.inf
    with pytest.raises(ValueError, match="NaN or infinity in 'actions'"):
        replay.extend([_episode(5, 1), bad])
    assert len(replay) == 0


def test_every_transition_is_drawn_equally_often():
    replay = make_replay(60)
    for number in range(9):
        replay.add(_episode(10, number))
    batch = replay.sample(200_000)
    keys = (batch.observation[:, 0] * 100 + batch.observation[:, 1]).int()
    counts = torch.unique(keys, return_counts=True)[1]
    assert len(counts) == len(replay) == 50
    expected = 200_000 / 50
    assert ((counts - expected).abs() < 6 * expected**0.5).all()


@pytest.mark.parametrize(
    "strategy", ["future", "discounted", "final", "episode", "random", "near", "own"]
)
def test_strategies_draw_goals_from_where_they_say(strategy):
    replay = make_replay(200, {strategy: 1.0})
    for number, steps in enumerate([3, 20, 7, 11]):
        replay.add(_episode(steps, number))
    batch = replay.sample(20_000)
    number, time = batch.achieved_goal.unbind(-1)
    goal_number, goal_time = batch.goal.unbind(-1)
    length = torch.tensor([3, 20, 7, 11])[number.long()]
    assert batch.relabelled.all() == (strategy != "own")
    if strategy == "own":
        assert (goal_time == -1).all()
        return
    if strategy in ("random", "near"):
        assert (goal_number != number).any()
        assert (goal_time >= 1).all()  # states that a step has reached
        return
    assert torch.equal(goal_number, number)
    if strategy in ("future", "discounted"):
        assert (goal_time > time).all()
        assert (goal_time <= length).all()
        from_start = goal_time[(number == 1) & (time == 0)]
        assert set(from_start.int().tolist()) == set(range(1, 21))
    if strategy == "final":
        assert torch.equal(goal_time, length.float())
    if strategy == "episode":
        assert (goal_time < time).any()
        assert (goal_time <= length).all()
        assert set(goal_time[number == 0].int().tolist()) == {0, 1, 2, 3}


def test_near_goals_are_the_nearest_of_several_random_ones():
    replays = {strategy: make_replay(2000, {strategy: 1.0}) for strategy in ("near", "random")}
    rng = np.random.default_rng(0)
    for _ in range(500):  # of one step each, from one place to any other
        goals = np.stack([np.zeros(2), rng.uniform(-1, 1, 2)]).astype(np.float32)
        episode = GoalEpisode(np.zeros((2, 3), np.float32), goals, goals, np.zeros((1, 2), "f"))
        for replay in replays.values():
            replay.add(episode)
    far = {name: replay.sample(20_000).goal.norm(dim=-1) for name, replay in replays.items()}
    # The least of eight distances is above a bound as often as one is, to the eighth power.
    for bound in (0.2, 0.4, 0.6):
        shares = {name: float((lengths > bound).double().mean()) for name, lengths in far.items()}
        assert shares["near"] == pytest.approx(shares["random"] ** NUM_NEAR, abs=0.02)


@pytest.mark.parametrize("column", ["goal", "auxiliary_goal"])
def test_discounted_goals_come_as_a_geometric_clock_rings(column):
    steps, discount = 12, 0.8
    relabel = {"discounted": 1.0} if column == "goal" else {"own": 1.0}
    replay = GoalReplay(
        *(100, 3, 2, 2, relabel),
        seed=0,
        auxiliary_goal=RelabelStrategy.DISCOUNTED,
        discount=discount,
    )
    replay.add(_episode(steps, 0))
    batch = replay.sample(200_000)
    time, wait = batch.achieved_goal[:, 1], (getattr(batch, column) - batch.achieved_goal)[:, 1]
    for start in (0, 5, 10, 11):
        left = steps - start
        chances = discount ** np.arange(left) * (1 - discount) / (1 - discount**left)
        waits = wait[time == start].int()
        assert (waits >= 1).all()
        counts = torch.bincount(waits - 1, minlength=left).numpy()
        expected = len(waits) * chances
        assert ((counts - expected) ** 2 / expected).sum() < left + 6 * (2 * left) ** 0.5


def test_an_auxiliary_goal_leaves_the_rest_of_a_batch_as_it_is():
    replay, with_final = (
        make_replay(),
        GoalReplay(100, 3, 2, 2, MIXED, seed=0, auxiliary_goal=RelabelStrategy.FINAL),
    )
    for number, steps in enumerate([3, 20, 7]):
        replay.add(_episode(steps, number, terminated=number == 1))
        with_final.add(_episode(steps, number, terminated=number == 1))
    batch, more = replay.sample(500), with_final.sample(500)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch[:8], more[:8], strict=True))
    number, final_time = more.auxiliary_goal.unbind(-1)
    assert torch.equal(number, more.observation[:, 0])
    assert torch.equal(final_time, torch.tensor([3.0, 20.0, 7.0])[number.long()])


def test_mixture_has_the_probabilities_asked_for():
    replay = make_replay(200, {"future": 0.8, "own": 0.2})
    replay.add(_episode(50, 0))
    share = replay.sample(50_000).relabelled.double().mean()
    assert abs(share - 0.8) < 0.01


def test_only_a_terminal_state_makes_a_transition_terminal():
    replay = make_replay(200)
    replay.add(_episode(5, 0, terminated=True))
    replay.add(_episode(5, 1, terminated=False))
    batch = replay.sample(2000)
    last = (batch.observation[:, 0] == 0) & (batch.observation[:, 1] == 4)
    assert torch.equal(batch.terminated, last)


def test_steps_follow_each_other_as_far_as_the_episode_goes():
    replay = make_replay(40)
    steps = [9, 12, 3, 8, 7]  # the ring goes round, and the first one is gone
    for number, length in enumerate(steps):
        replay.add(_episode(length, number, terminated=number % 2 == 0))
    first, *following = replay.sample_steps(3000, 4)
    length = torch.tensor(steps)[first.observation[:, 0].long()]
    time = first.observation[:, 1]
    for k, step in enumerate(following, 1):
        check_batch(step, {1, 2, 3, 4})
        expected = torch.minimum(time + k, length - 1)
        assert torch.equal(step.observation[:, 0], first.observation[:, 0])
        assert torch.equal(step.observation[:, 1], expected)
        assert torch.equal(step.within, time + k < length)
        assert torch.equal(step.goal, first.goal)
        ends = (expected == length - 1) & (first.observation[:, 0] % 2 == 0)
        assert torch.equal(step.terminated, ends)
    assert first.within is None


def test_a_goal_that_is_reached_already_is_drawn_again():
    replay = GoalReplay(1000, 3, 2, 2, {"future": 0.8, "own": 0.2}, seed=0, candidates=6)
    still = _episode(40, 0)
    still.achieved_goal[:-4] = still.achieved_goal[0]  # it moves in its last steps alone
    replay.add(still)
    batch = replay.sample(20_000, reached_distance=0.5)
    reached = (batch.goal - batch.achieved_goal).norm(dim=-1) < 0.5
    drawn_again = torch.arange(20_000) % 2 == 0
    alone = replay.sample(20_000)  # at a distance of zero no goal is reached
    once = ((alone.goal - alone.achieved_goal).norm(dim=-1) < 0.5)[alone.relabelled].double().mean()
    assert 0.5 < once < 0.9
    for rows, share in ((drawn_again, float(once) ** 6), (~drawn_again, float(once))):
        assert reached[batch.relabelled & rows].double().mean() == pytest.approx(share, abs=0.02)
    assert abs(batch.relabelled.double().mean() - 0.8) < 0.01
    own = batch.observation[~batch.relabelled][:, 1]
    assert abs(own.mean() - 19.5) < 0.8  # as they come


def test_save_and_load_give_the_same_batches_and_contents(tmp_path):
    replay = make_replay(70, seed=3)
    for number, steps in enumerate([30, 10, 30, 5, 12, 21]):
        replay.add(_episode(steps, number, terminated=number % 2 == 0))
        replay.sample(8)
    save(replay, tmp_path / "replay.npz")
    other = make_replay(70, seed=99)
    other.add(_episode(9, 77))
    load(other, tmp_path / "replay.npz")
    assert (len(other), other.num_states) == (len(replay), replay.num_states)
    for _ in range(3):
        ours, theirs = replay.sample(500), other.sample(500)
        assert all(torch.equal(a, b) for a, b in zip(ours[:8], theirs[:8], strict=True))
        replay.add(_episode(13, 50))
        other.add(_episode(13, 50))
    assert not list(tmp_path.glob("*.partial"))


def test_loading_into_a_smaller_buffer_keeps_the_newest(tmp_path):
    replay = make_replay(100)
    for number in range(8):
        replay.add(_episode(10, number))
    save(replay, tmp_path / "replay.npz")
    small = make_replay(30)
    load(small, tmp_path / "replay.npz")
    assert [episode.observation[0, 0] for episode in small.episodes()] == [6, 7]


def test_bad_input_is_refused_in_one_sentence(tmp_path):
    replay = make_replay(20)
    with pytest.raises(ValueError, match="empty"):
        replay.sample(1)
    with pytest.raises(ValueError, match="capacity 20, which must be at least 31"):
        replay.add(_episode(30, 0))
    episode = _episode(5, 0)
    episode.achieved_goal[2, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in 'achieved_goal'"):
        replay.add(episode)
    assert len(replay) == replay.num_states == 0  # nothing half-stored
    with pytest.raises(ValueError, match="capacity is 0, but must be at least 1"):
        make_replay(0)
    with pytest.raises(ValueError, match=r"sum to 0\.9, but must sum to 1"):
        make_replay(relabel={"future": 0.9})
    with pytest.raises(ValueError, match="'futur', but must use"):
        make_replay(relabel={"futur": 1.0})
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ValueError, match="no replay file, or a damaged one"):
        load(replay, tmp_path / "broken.npz")
    replay.add(_episode(5, 0))
    save(replay, tmp_path / "replay.npz")
    with pytest.raises(ValueError, match="holds 'observation' of size 3"):
        load(GoalReplay(20, 4, 2, 2, MIXED), tmp_path / "replay.npz")
