"""GCIQL, GCBC and Actionable Models: what each adds to hindsight experience replay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_odac import GoalEpisode, ODACConfig
from rllib_odac.agent.objectives import GCIQLObjective, HERObjective
from rllib_odac.agent.rules import Rules
from rllib_odac.envs.goals import Goals
from tests.made_up import judge, make_learner


def test_reaching_the_goal_ends_it_for_gciql() -> None:
    goal = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    batch = judge(goal, next_achieved_goal=torch.zeros(2, 2))
    goals = Goals(success_distance=0.5)
    backup = GCIQLObjective(goals, 0.9).reward_and_discount(batch, torch.zeros(2))
    assert backup.reward.tolist() == [0.0, -1.0]
    assert backup.discount.tolist() == pytest.approx([0.0, 0.9])
    her = HERObjective(goals, 0.9).reward_and_discount(batch, torch.zeros(2))
    assert her.discount.tolist() == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ({"objective": "odac"}, Rules()),
        ({"objective": "gciql"}, Rules("expectile", 0.9, "ddpg_bc")),
        ({"objective": "gciql", "values": "soft"}, Rules("soft", 0.9, "ddpg_bc")),
        ({"objective": "gcbc"}, Rules("expectile", 0.9, "imitation")),
        ({"objective": "actionable"}, Rules(conservative_weight=1.0)),
        ({"objective": "actionable", "conservative_weight": 0}, Rules()),
        ({"offline": True}, Rules("expectile", 0.9, "ddpg_bc")),
        ({"offline": True, "objective": "actionable"}, Rules(conservative_weight=1.0)),
        ({"offline": True, "extraction": "posterior"}, Rules("expectile", 0.9)),
    ],
)
def test_an_objective_chooses_its_rules(settings: dict, rules: Rules) -> None:
    assert ODACConfig().training(**settings).rules == rules


def straight_walks(learner, count: int = 60, steps: int = 10) -> None:
    """Walks in one direction each, so that the action that leads to a goal is known."""
    rng = np.random.default_rng(0)
    learner.replay.clear()
    for _ in range(count):
        action = np.repeat(rng.uniform(-0.8, 0.8, (1, 2)), steps, axis=0).astype(np.float32)
        places = np.concatenate([np.zeros((1, 2)), np.cumsum(0.3 * action, axis=0)])
        places = (places + rng.uniform(-1, 1, 2)).astype(np.float32)
        goal = np.repeat(places[-1:], steps + 1, axis=0)
        learner.replay.add(GoalEpisode(places, places, goal, action))


def test_behaviour_cloning_imitates_what_led_to_the_goal() -> None:
    learner = make_learner(objective="gcbc", lr=3e-3, hidden=(64, 64))
    straight_walks(learner)
    learner.update(num_updates=600)
    drawn = learner.replay.sample(500)
    networks = learner.networks
    with torch.no_grad():
        inputs = networks.policy_inputs(drawn.observation, drawn.achieved_goal, drawn.goal)
        actions = torch.tanh(networks.policy(inputs)[0])
    way = torch.nn.functional.cosine_similarity(actions, drawn.actions)
    assert float(way.mean()) > 0.95


def test_actions_that_were_not_logged_are_pushed_down() -> None:
    gaps = []
    for weight in (0.0, "auto"):
        learner = make_learner(objective="actionable", conservative_weight=weight, lr=3e-3)
        straight_walks(learner)
        said = learner.update(num_updates=300)[DEFAULT_MODULE_ID]
        assert ("conservative_loss" in said) == (weight == "auto")
        drawn = learner.replay.sample(1000)
        networks = learner.networks
        with torch.no_grad():
            inputs = networks.policy_inputs(drawn.observation, drawn.achieved_goal, drawn.goal)
            logged = networks.critic(inputs, drawn.actions)
            other = networks.critic(inputs, -drawn.actions)
        gaps.append(float((logged - other).mean()))
    assert gaps[1] > gaps[0] + 0.5
