"""Finitely many actions: exact expectations, the oracle's values, and the way to an environment."""

from __future__ import annotations

import copy
import math
from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from ray.rllib.core import DEFAULT_MODULE_ID
from torch.distributions import Categorical, Laplace

from rllib_odac import ODACConfig
from rllib_odac.agent.action_prior import PriorInputs, make_action_prior
from rllib_odac.agent.critics import ActionCritics
from rllib_odac.agent.objectives import ODACObjective
from rllib_odac.agent.policies import CategoricalPolicy
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.envs.actions import actions_of
from rllib_odac.envs.grid_world import MOVES, GridWorldEnv
from rllib_odac.evaluation.inference import infer, transitions
from rllib_odac.maths.tabular import TabularODAC
from rllib_odac.tuned import tuned_fields
from tests.conftest import small_config
from tests.tables import learn_choices, slippery

OBJECTIVES = ("odac", "horizon", "her", "sac", "discern", "uvd", "contrastive", "quasimetric")
N = 4


def make_policy(seed=0):
    torch.manual_seed(seed)
    return CategoricalPolicy(3, N, (8,)).double()


def test_samples_follow_the_policy_and_the_mode_is_the_likeliest():
    policy, inputs = make_policy(), torch.randn(1, 3, dtype=torch.float64).expand(40_000, -1)
    noise = torch.randn(len(inputs), N, generator=torch.Generator().manual_seed(1))
    actions, log_prob = policy.sample(inputs, noise)
    probabilities, log_probs = policy.mixture(inputs, noise)
    assert (actions.sum(-1) == 1).all()
    torch.testing.assert_close(actions.mean(0), probabilities[0], atol=0.01, rtol=0)
    torch.testing.assert_close(log_prob, policy.log_prob(inputs, actions))
    torch.testing.assert_close(log_prob, (actions * log_probs).sum(-1))
    assert policy.mode(inputs[:1]).argmax() == probabilities[0].argmax()


def test_expectations_are_exact_sums():
    policy, inputs = make_policy(), torch.randn(5, 3, dtype=torch.float64)
    values = torch.randn(5, N, dtype=torch.float64)
    mixture, _ = policy.mixture(inputs, inputs)
    found = policy.expectation(lambda actions: (values * actions).sum(-1).square(), mixture)
    torch.testing.assert_close(found, (mixture * values.square()).sum(-1))


def test_critics_have_an_output_for_each_action_and_take_the_lowest_of_each():
    torch.manual_seed(0)
    critics = ActionCritics(3, N, (8, 8), num_critics=3, layer_norm=True)
    inputs, policy = torch.randn(6, 3), torch.softmax(torch.randn(6, N), -1).requires_grad_()
    each = critics.each(inputs)
    assert each.shape == (3, 6, N)
    for index, action in enumerate(torch.eye(N)):
        torch.testing.assert_close(critics(inputs, action.expand(6, N)), each[..., index])
    torch.testing.assert_close(critics(inputs, policy), (each * policy).sum(-1))
    wanted = (each.amin(0) * policy).sum(-1)
    torch.testing.assert_close(critics.lowest(inputs, policy), wanted)
    chosen = torch.tensor([0, 2])
    torch.testing.assert_close(
        critics.lowest(inputs, policy, chosen), (each[chosen].amin(0) * policy).sum(-1)
    )
    critics.lowest(inputs, policy, frozen=True).sum().backward()
    assert policy.grad is not None
    assert all(parameter.grad is None for parameter in critics.parameters())


@pytest.mark.parametrize("kind", ["uniform", "given", "behavior", "previous"])
def test_kl_to_each_prior_is_exact(kind):
    torch.manual_seed(2)
    policy, given = CategoricalPolicy(3, N, (8,)), torch.randn(N)
    factory = {"given": lambda observation: Categorical(logits=given.expand(len(observation), N))}
    prior = make_action_prior(
        factory.get(kind, kind), policy, 2, (8,), num_components=1, interval=2
    )
    at = PriorInputs(torch.randn(5, 2), torch.randn(5, 2), torch.randn(5, 3))
    before = copy.deepcopy(policy)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    log_p = {
        "uniform": torch.full((5, N), -math.log(N)),
        "given": given.log_softmax(-1).expand(5, N),
        "behavior": prior(at.state) if kind == "behavior" else None,
        "previous": before(at.state_goal),
    }[kind]
    mixture, log_probs = policy.mixture(at.state_goal, at.state_goal)
    wanted = (mixture * (log_probs - log_p)).sum(-1)
    torch.testing.assert_close(prior.kl(policy, at, mixture, log_probs), wanted)
    if kind == "behavior":
        actions = torch.eye(N)[[0, 1, 1, 2, 3]]
        torch.testing.assert_close(prior.loss(at, actions), -(log_p * actions).sum(-1).mean())
    if kind == "previous":
        prior.follow(policy, 1)
        assert (prior.kl(policy, at, mixture, log_probs) > 0).all()
        prior.follow(policy, 2)
        torch.testing.assert_close(prior.kl(policy, at, mixture, log_probs), torch.zeros(5))


def three_ways() -> TabularODAC:
    """Stochastic, with three actions: on, a gamble, and back to the start."""
    on = [[0.2, 0.8, 0, 0], [0, 0.2, 0.8, 0], [0, 0, 0.2, 0.8], [0.5, 0.5, 0, 0]]
    gamble = [[0.5, 0, 0.5, 0], [0.6, 0, 0, 0.4], [0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.2, 0.6]]
    back = [[1.0, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0]]
    return TabularODAC(np.stack([on, gamble, back], axis=1), 3, 0.9)


@pytest.mark.parametrize(
    ("mdp", "hidden", "lr", "tolerance"),
    [(three_ways(), (), 0.1, 1e-2), (slippery(), (), 0.1, 1e-2), (three_ways(), (32,), 0.01, 5e-2)],
    ids=["three actions", "slippery", "three actions, deep"],
)
def test_the_update_reaches_the_oracles_values(mdp, hidden, lr, tolerance):
    value, policy = learn_choices(mdp, hidden, lr)
    exact = mdp.solve(per_sample=True)
    assert exact.policy.max() - 1 / len(exact.policy[0]) > 0.1  # it is not the uniform choice
    np.testing.assert_allclose(value, exact.value, rtol=0, atol=tolerance)
    np.testing.assert_allclose(policy, exact.policy, rtol=0, atol=tolerance)


SPACES = {
    "discrete": (Discrete(3), [0, 1, 2]),
    "from five": (Discrete(3, start=5), [5, 6, 7]),
    "one only": (Discrete(1), [0]),
    "several": (MultiDiscrete([2, 3]), [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]),
    "bits": (MultiBinary(2), [[0, 0], [0, 1], [1, 0], [1, 1]]),
}


@pytest.mark.parametrize("name", SPACES)
def test_rows_stand_for_each_of_finitely_many_actions(name):
    space, choices = SPACES[name]
    actions = actions_of(space)
    rows = np.eye(len(choices), dtype=np.float32)
    assert actions.to_env(rows).tolist() == choices
    assert all(space.contains(action) for action in actions.to_env(rows))
    np.testing.assert_array_equal(actions.from_env(np.array(choices)), rows)
    drawn = actions.uniform(np.random.default_rng(0), 6000)
    np.testing.assert_allclose(drawn.mean(0), 1 / len(choices), atol=0.03)
    with pytest.raises(ValueError, match=r"^has .* at step 1, but must be one of the env"):
        actions.from_env(np.stack([choices[0], np.array(choices[0]) - 1]))


def test_a_box_is_scaled_there_and_back_with_fixed_and_whole_coordinates():
    fixed = actions_of(Box(np.array([-2.0, 3.0]), np.array([2.0, 3.0]), dtype=np.float64))
    taken = fixed.to_env(np.array([[0.5, 0.3]]))
    np.testing.assert_allclose(taken, [[1.0, 3.0]])
    np.testing.assert_allclose(fixed.from_env(taken), [[0.5, 0.0]])
    whole = Box(-1, 4, (2, 2), np.int64)
    taken = actions_of(whole).to_env(np.array([[-1, 1, 0.1, -0.1]], np.float32))
    assert taken.tolist() == [[[-1, 4], [2, 1]]]
    assert whole.contains(taken[0])


class Steps(gym.Env):
    """Places 0 to 4 in a row, and the actions of a space, the first of which goes back."""

    success_distance = 0.5
    goal_scale = 2.0

    def __init__(self, space):
        place = Box(0, 4, (1,), np.float32)
        self.observation_space = Dict(observation=place, achieved_goal=place, desired_goal=place)
        self.action_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.integers(0, 5, (2, 1)).astype(np.float32)
        self.steps = 0
        return self.seen(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        move = -1 if np.array_equal(action, actions_of(self.action_space).choices[0]) else 1
        self.place = np.clip(self.place + move, 0, 4).astype(np.float32)
        info = {"is_success": bool(abs(self.place - self.goal) < 0.5)}
        return self.seen(), 0.0, False, self.steps == 10, info

    def seen(self):
        return {"observation": self.place, "achieved_goal": self.place, "desired_goal": self.goal}


@pytest.mark.parametrize("name", SPACES)
def test_an_env_runner_acts_and_replays_hold_one_hot_rows(name):
    space, choices = SPACES[name]
    config = small_config().environment(partial(Steps, space)).evaluation(evaluation_interval=None)
    runner = GoalEnvRunner(config=config, worker_index=0)
    episodes = runner.sample(num_timesteps=400) + runner.sample(num_timesteps=400)
    actions = np.concatenate([episode.actions for episode in episodes])
    assert actions.shape[1] == len(choices)
    assert (actions.sum(1) == 1).all()
    goes_back = np.concatenate([e.observation[1:] < e.observation[:-1] for e in episodes])[:, 0]
    assert (actions[goes_back, 0] == 1).all()
    assert runner.evaluate([1, 2, 3])["episode_length"].tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    "settings",
    [
        *({"objective": objective} for objective in OBJECTIVES),
        {"dynamics_members": 3, "disagreement_weight": 1.0, "target_steps": 2},
    ],
    ids=str,
)
def test_every_objective_updates_with_finite_losses(settings):
    config = small_config(**settings, target_critics=None)
    config.environment("odac/GridWorld-v0").evaluation(evaluation_interval=None)
    config.validate()
    env = config.make_env()
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = config.build_learner(spaces=spaces)
    runner = GoalEnvRunner(config=config, worker_index=0)
    before = copy.deepcopy(learner.networks.policy.state_dict())
    episodes = runner.sample(num_timesteps=400)
    learner.update(episodes=episodes, num_updates=3)
    after = learner.networks.policy.state_dict()
    assert all(torch.isfinite(values).all() for values in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    inferred = infer(learner.networks, learner.objective, transitions(episodes[0]), num_samples=2)
    assert all(np.isfinite(values).all() for values in inferred.values())


def test_noise_on_finitely_many_actions_is_refused():
    config = small_config(action_noise=0.1).environment("odac/GridWorld-v0")
    with pytest.raises(ValueError, match=r"^action_noise is 0\.1, but must be 0 where there are"):
        config.validate()


def test_exact_values_of_the_four_rooms_lead_to_every_goal_by_a_small_margin():
    """What its learner must tell apart: 0.15 nats between going on and staying, of 6.6."""
    env, tuned = GridWorldEnv(), tuned_fields("odac/GridWorld-v0")["settings"]
    cells = [tuple(cell) for cell in np.argwhere(env.is_free)]
    moved = [[tuple(np.add(cell, move)) for move in MOVES] for cell in cells]
    following = np.array(
        [
            [cells.index(to) if to in cells else i for to in options]
            for i, options in enumerate(moved)
        ]
    )
    places = torch.tensor(cells, dtype=torch.float64) / env.goals.scale
    sharp = Laplace(places[:, None], tuned["dynamics_min_scale"]).log_prob(places).sum(-1)
    wide = Laplace(places.mean(0), 1.0).log_prob(places).sum(-1).expand_as(sharp)
    share = ODACConfig().dynamics_background
    log_prob = torch.logaddexp(sharp + math.log1p(-share), wide + math.log(share))[following]
    objective, weight = ODACObjective(0.95, max_discount=0.95), tuned["kl_weight"]
    value = torch.zeros_like(sharp)  # (states, goals)
    for _ in range(300):
        judged = SimpleNamespace(log_prob_goal=log_prob)
        rule = objective.reward_and_discount(judged, value[following])
        q = rule.reward + rule.discount * value[following]  # (states, actions, goals)
        value = weight * (torch.logsumexp(q / weight, 1) - math.log(len(MOVES)))
    ends = np.arange(len(cells))[:, None].repeat(len(cells), 1)
    for _ in range(50):
        ends = following[ends, q.argmax(1).numpy()[ends, np.arange(len(cells))]]
    assert (ends == np.arange(len(cells))).all()
    elsewhere = ~torch.eye(len(cells), dtype=torch.bool)
    margin = float((q.amax(1) - q[:, 0])[elsewhere].min())
    assert margin == pytest.approx(0.15, abs=0.005)
    assert float(value.max() - value.min()) == pytest.approx(6.6, abs=0.05)
