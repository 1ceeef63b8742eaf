"""Goals to explore with: where they come from, who gets them, and what stays as it was."""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from rllib_odac.env_runner import TRAINING_SEEDS, GoalEnvRunner
from rllib_odac.envs.goals import reported_success
from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.replay.exploration_goals import (
    draw_exploration_goals,
    sample_displacements,
    sample_rare,
    validate_exploration_goals,
)
from tests.conftest import small_config
from tests.unit.test_env_runner import make_runner

ASKED = np.array([[9.0, 9.0], [8.0, 8.0]], dtype=np.float32)  # outside the room: nobody's own


def is_asked(episode):
    goals = episode.desired_goal
    assert (goals == goals[0]).all()  # one goal from the first row to the last
    return bool((goals[0] == ASKED).all(-1).any())


def make_replay(goals):
    replay = GoalReplay(10_000, 2, 2, 2, {"future": 1.0}, seed=0)
    goals = np.asarray(goals, dtype=np.float32)
    replay.add(GoalEpisode(goals, goals, goals, np.zeros((len(goals) - 1, 2), np.float32)))
    return replay


@pytest.mark.parametrize(
    ("mixture", "share"),
    [
        ("environment", 0.0),
        ("achieved", 1.0),
        ("rare", 1.0),
        ({"environment": 0.7, "achieved": 0.1, "rare": 0.2}, 0.3),
    ],
)
def test_episodes_get_exploration_goals_in_the_share_asked_for(mixture, share):
    runner = make_runner(exploration_goals=mixture)
    sources = validate_exploration_goals(mixture).keys() - {"environment"}
    runner.set_exploration_goals(dict.fromkeys(sources, ASKED))
    episodes = runner.sample(num_episodes=200)
    assert np.mean([is_asked(episode) for episode in episodes]) == pytest.approx(share, abs=0.1)


def test_displaced_goals_are_as_far_from_where_an_episode_begins():
    ways = np.array([[3.0, 4.0], [-6.0, 0.0]], dtype=np.float32)
    runner = make_runner(exploration_goals={"environment": 0.5, "displaced": 0.5})
    runner.set_exploration_goals({"displaced": ways})
    episodes = runner.sample(num_episodes=60)
    gone = np.stack([episode.desired_goal[0] - episode.achieved_goal[0] for episode in episodes])
    is_way = (np.abs(gone[:, None] - ways) < 1e-4).all(-1)
    assert is_way.any(0).all()  # each is used
    assert is_way.any(-1).mean() == pytest.approx(0.5, abs=0.2)


def test_before_anything_was_achieved_goals_are_the_environments():
    runner = make_runner(exploration_goals="achieved")
    assert not any(is_asked(episode) for episode in runner.sample(num_episodes=8))


def test_evaluation_uses_the_environments_goals():
    seeds = range(TRAINING_SEEDS, TRAINING_SEEDS + 5)
    runner, other = make_runner(exploration_goals="achieved"), make_runner()
    other.module.set_state(runner.module.get_state())
    runner.set_exploration_goals({"achieved": ASKED})
    runner.sample(num_episodes=4)
    for name, values in runner.evaluate(seeds).items():
        assert np.array_equal(values, other.evaluate(seeds)[name])


def test_a_cut_of_a_task_without_end_asks_for_a_new_goal():
    runner = make_runner(exploration_goals="achieved", max_episode_steps=7)
    runner.set_exploration_goals({"achieved": ASKED})
    episodes = runner.sample(num_episodes=60)
    assert all(is_asked(episode) for episode in episodes)
    assert {len(episode) for episode in episodes} == {7, 1}  # 50 steps are seven times 7 and one
    assert len({float(episode.desired_goal[0, 0]) for episode in episodes}) == 2


class Ending(gym.Env):
    """Ends at its own goal after three steps, or dies after five."""

    observation_space = gym.spaces.Dict(
        {key: gym.spaces.Box(-9, 9, (2,)) for key in ("observation", "achieved_goal")}
        | {"desired_goal": gym.spaces.Box(-9, 9, (2,))}
    )
    action_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, reaches_its_goal=True):
        self.reaches_its_goal = reaches_its_goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        success = self.reaches_its_goal and self.steps == 3
        return self.observe(), 0.0, success or self.steps == 5, False, {"is_success": success}

    def observe(self):
        return {key: np.full(2, self.steps, np.float32) for key in self.observation_space}


@pytest.mark.parametrize(("reaches", "asked", "terminal"), [
    (True, True, False),  # somebody else's goal: no terminal state, though the episode ends
    (True, False, True),
    (False, True, True),  # a death is one whatever the goal
])  # fmt: skip
def test_what_is_terminal(reaches, asked, terminal):
    config = small_config(exploration_goals="achieved", env_config={"reaches_its_goal": reaches})
    config.environment(partial(Ending)).evaluation(evaluation_interval=None)
    runner = GoalEnvRunner(config=config, worker_index=0)
    if asked:
        runner.set_exploration_goals({"achieved": ASKED})
    for episode in runner.sample(num_episodes=8):
        assert len(episode) == (3 if reaches else 5)
        assert episode.terminated == terminal


def test_achieved_goals_are_drawn_from_what_was_reached():
    goals = np.stack([np.arange(50.0), -np.arange(50.0)], axis=-1)
    drawn = make_replay(goals).sample_achieved(500).numpy()
    assert {tuple(goal) for goal in drawn} == {tuple(goal) for goal in goals[1:]}


def test_rare_goals_are_drawn_more_often():
    rng = np.random.default_rng(0)
    common, rare = rng.normal(0, 0.01, (1900, 2)), rng.uniform(-4, 4, (100, 2))
    replay = make_replay(rng.permutation(np.concatenate([common, rare])))
    share = lambda goals: float((goals.norm(dim=-1) > 0.2).double().mean())  # noqa: E731
    assert share(replay.sample_achieved(2000)) == pytest.approx(0.05, abs=0.02)
    assert share(sample_rare(replay, 2000)) > 0.7


def test_rare_is_what_has_to_be_moved():
    hand = np.linspace(0, 100, 400)  # everywhere
    thing = np.where(np.arange(400) < 20, 5.0, 0.0) + np.random.default_rng(0).normal(0, 0.1, 400)
    replay = make_replay(np.stack([hand, thing], axis=-1))
    drawn = sample_rare(replay, 400, measured=slice(1, 2))
    assert (drawn[:, 1] > 2).float().mean() > 0.25
    assert (sample_rare(replay, 400)[:, 1] > 2).float().mean() < 0.25


def test_displacements_are_of_one_episode_and_far_enough():
    replay = GoalReplay(10_000, 2, 2, 2, {"future": 1.0}, seed=0)
    for start in (0.0, 100.0):  # a hand that moves on, and a thing that moves once by five
        hand = start + np.arange(20.0)
        thing = np.where(np.arange(20) < 12, start, start + 5)
        goals = np.stack([hand, thing], axis=-1).astype(np.float32)
        replay.add(GoalEpisode(goals, goals, goals, np.zeros((19, 2), np.float32)))
    drawn = sample_displacements(replay, 50, 1.0, measured=slice(1, 2))
    assert len(drawn) == 50
    assert (drawn[:, 1] == 5).all()
    assert ((drawn[:, 0] > 0) & (drawn[:, 0] < 20)).all()
    assert len(sample_displacements(replay, 50, 6.0, measured=slice(1, 2))) == 0


def test_rare_goals_where_nothing_has_moved():
    assert torch.equal(sample_rare(make_replay(np.ones((30, 2))), 5), torch.ones(5, 2))


def test_goals_are_drawn_of_the_sources_that_have_any():
    lying_still = make_replay(np.ones((30, 2)))
    drawn = draw_exploration_goals(lying_still, validate_exploration_goals(
        {"environment": 0.25, "achieved": 0.25, "rare": 0.25, "displaced": 0.25}
    ), 8, 0.1)  # fmt: skip
    assert {name: tuple(goals.shape) for name, goals in drawn.items()} == {
        "achieved": (8, 2), "rare": (8, 2)
    }  # fmt: skip
    empty = GoalReplay(10, 2, 2, 2, {"future": 1.0}, seed=0)
    assert draw_exploration_goals(empty, validate_exploration_goals("achieved"), 8, 0.1) == {}


def test_a_mixture_that_makes_no_sense_is_refused():
    for goals, words in [
        ("reached", "'reached', but must use"),
        ({"achieved": 0.5}, "sum to 0.5"),
        ({"achieved": 2.0, "rare": -1.0}, "must be in"),
    ]:
        with pytest.raises(ValueError, match=words):
            validate_exploration_goals(goals)
    with pytest.raises(ValueError, match="exploration_goals"):
        small_config(exploration_goals=3).check_settings()


def test_environments_that_report_success_as_numbers_or_not_at_all():
    for infos, expected in [
        ({"is_success": np.array([1.0, 0.0], np.float32)}, [True, False]),
        ({"success": np.array([True, None], object)}, [True, False]),
        ({}, [False, False]),
    ]:
        assert reported_success(infos, 2).tolist() == expected


def test_more_rare_goals_than_it_looks_at_can_be_drawn():
    replay = make_replay(np.random.default_rng(0).normal(size=(700, 2)))
    assert sample_rare(replay, 600).shape == (600, 2)
