"""The replay under any sequence of operations, against a plain list of episodes."""

from __future__ import annotations

import io

import hypothesis.strategies as st
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.exploration_goals import sample_rare
from rllib_odac.replay.relabelling import RelabelStrategy
from tests.unit.test_replay import MIXED, _episode, all_known, check_batch


class ReplayMachine(RuleBasedStateMachine):
    """Each episode's numbers tell which one it is, and which step of it."""

    @initialize(
        capacity=st.integers(13, 60),
        seed=st.integers(0, 9),
        auxiliary=st.sampled_from([RelabelStrategy.FINAL, RelabelStrategy.DISCOUNTED]),
    )
    def begin(self, capacity, seed, auxiliary):
        self.auxiliary = auxiliary
        self.replay = self.make(capacity, seed)
        self.held = []  # (number, steps, terminated), oldest first
        self.number = 0

    def make(self, capacity, seed):
        return GoalReplay(capacity, 3, 2, 2, MIXED, seed=seed, auxiliary_goal=self.auxiliary)

    def evict(self):
        while sum(steps + 1 for _, steps, _ in self.held) > self.replay.capacity:
            self.held.pop(0)

    @rule(steps=st.integers(0, 12), terminated=st.booleans())
    def add(self, steps, terminated):
        self.number += 1
        self.replay.add(_episode(steps, self.number, terminated))
        if steps:
            self.held.append((self.number, steps, terminated))
            self.evict()

    @rule(lengths=st.lists(st.integers(0, 12), max_size=9))
    def extend(self, lengths):
        """Several at once, which may be more than there is room for."""
        first = self.number + 1
        self.number += len(lengths)
        numbered = list(enumerate(lengths, first))
        self.replay.extend(_episode(steps, number) for number, steps in numbered)
        self.held += [(number, steps, False) for number, steps in numbered if steps]
        self.evict()

    @rule(keep=st.integers(1, 6))
    def add_one_that_was_cut(self, keep):
        """An episode of which only the beginning has arrived is stored as far as it goes."""
        self.number += 1
        episode = _episode(9, self.number)
        for name in ("observation", "achieved_goal", "desired_goal"):
            setattr(episode, name, getattr(episode, name)[: keep + 1])
        episode.actions = episode.actions[:keep]
        self.replay.add(episode)
        self.held.append((self.number, keep, False))
        self.evict()

    @rule()
    def clear(self):
        self.replay.clear()
        self.held = []

    @rule(capacity=st.integers(13, 60), other=st.integers(0, 3))
    def save_and_load(self, capacity, other):
        """Into a buffer of any size, which has held other things before."""
        file = io.BytesIO()
        self.replay.write(file)
        before, generator = self.replay, self.replay.generator.get_state()
        self.replay = self.make(capacity, seed=99)
        for number in range(other):
            self.replay.add(_episode(5, -number))
        file.seek(0)
        self.replay.read(file, "memory")
        assert torch.equal(self.replay.generator.get_state(), generator)
        self.evict()
        if self.held and len(before) == len(self.replay):
            ours, theirs = (all_known(each.sample(20)) for each in (before, self.replay))
            assert all(torch.equal(a, b) for a, b in zip(ours[:9], theirs[:9], strict=True))

    @precondition(lambda self: self.held)
    @rule(size=st.integers(1, 200))
    def sample(self, size):
        batch = all_known(self.replay.sample(size))
        alive = {number: (steps, ended) for number, steps, ended in self.held}
        check_batch(batch, set(alive))
        number, time = batch.achieved_goal.unbind(-1)
        steps = torch.tensor([alive[n][0] for n in number.int().tolist()])
        ended = torch.tensor([alive[n][1] for n in number.int().tolist()])
        assert (time < steps).all()
        assert torch.equal(batch.terminated, ended & (time == steps - 1))
        # "episode" and "random" may look back and aside; but where a goal comes from is a state.
        goal_number, goal_time = batch.goal[batch.relabelled].unbind(-1)
        for each, when in zip(goal_number.int().tolist(), goal_time.tolist(), strict=True):
            assert 0 <= when <= alive[each][0]
        later_number, later = batch.auxiliary_goal.unbind(-1)
        assert torch.equal(later_number, number)
        assert (later > time).all()
        assert (later <= steps).all()
        if self.auxiliary == RelabelStrategy.FINAL:
            assert torch.equal(later, steps.float())

    @precondition(lambda self: self.held)
    @rule(size=st.integers(1, 50), rare=st.booleans())
    def sample_achieved(self, size, rare):
        goals = sample_rare(self.replay, size) if rare else self.replay.sample_achieved(size)
        alive = {number: steps for number, steps, _ in self.held}
        assert all(1 <= time <= alive[int(number)] for number, time in goals.tolist())

    @precondition(lambda self: self.held)
    @rule(strategy=st.sampled_from(["future", "discounted", "final"]))
    def future_goals_are_of_the_same_episode(self, strategy):
        file = io.BytesIO()
        self.replay.write(file)
        file.seek(0)
        replay = GoalReplay(self.replay.capacity, 3, 2, 2, {strategy: 1.0})
        replay.read(file, "memory")
        batch = replay.sample(100)
        assert torch.equal(batch.goal[:, 0], batch.observation[:, 0])
        assert (batch.goal[:, 1] > batch.observation[:, 1]).all()

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "held"):
            return
        replay = self.replay
        assert len(replay) == sum(steps for _, steps, _ in self.held)
        assert replay.num_states == sum(steps + 1 for _, steps, _ in self.held) <= replay.capacity
        assert replay.num_episodes == len(self.held)
        episodes = replay.episodes()
        told = [(int(e.observation[0, 0]), len(e), e.terminated) for e in episodes]
        assert told == self.held


ReplayMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestReplayMachine = ReplayMachine.TestCase
