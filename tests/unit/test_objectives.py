"""The outcome-driven objective and its ablations against hand-computed backups."""

from __future__ import annotations

import math

import pytest
import torch

from rllib_odac import ODACConfig
from rllib_odac.agent.objectives import HERObjective, ODACObjective, SACObjective, make_objective
from rllib_odac.envs.goals import Goals
from rllib_odac.maths.losses import bellman_target, bernoulli_kl, soft_bellman_target
from tests.made_up import judge


def make_batch(log_prob_goal):
    log_prob_goal = torch.tensor(log_prob_goal)
    return judge(torch.zeros(len(log_prob_goal), 2), log_prob_goal)


def target_of(objective, batch, next_value):
    backup = objective.reward_and_discount(batch, next_value)
    return bellman_target(backup.reward, backup.discount, next_value)


def test_learned_discount_gives_the_soft_backup():
    log_prob, next_value = [-30.0, 0.0, 11.0, 5.0], torch.tensor([4.0, 4.0, 4.0, 5.0])
    objective = ODACObjective(prior_discount=0.9)
    expected = soft_bellman_target(torch.tensor(log_prob), next_value, 0.9)
    assert torch.allclose(target_of(objective, make_batch(log_prob), next_value), expected)


def test_fixed_discount_is_the_prior():
    objective = ODACObjective(prior_discount=0.9, learn_discount=False)
    backup = objective.reward_and_discount(make_batch([-3.0]), torch.tensor([2.0]))
    assert float(backup.discount) == pytest.approx(0.9)
    assert float(backup.reward) == pytest.approx(0.1 * -3.0, abs=1e-6)


def test_limited_discount_is_a_lower_bound_of_the_free_one():
    batch, next_value = make_batch([-30.0, -5.0, 8.0]), torch.tensor([5.0, 5.0, 5.0])
    free = ODACObjective(prior_discount=0.99)
    limited = ODACObjective(prior_discount=0.99, max_discount=0.9)
    assert (limited.reward_and_discount(batch, next_value).discount <= 0.9 + 1e-6).all()
    free_target, limited_target = (target_of(o, batch, next_value) for o in (free, limited))
    assert (limited_target <= free_target + 1e-5).all()
    assert float(limited_target[2]) == pytest.approx(float(free_target[2]), abs=1e-5)


@pytest.mark.parametrize("learn_discount", [True, False])
@pytest.mark.parametrize("max_discount", [None, 0.95, 0.9])
def test_staying_for_ever_is_worth_what_one_step_of_it_says(learn_discount, max_discount):
    objective = ODACObjective(0.95, learn_discount, max_discount)
    stay = torch.tensor([-2.0, 7.0, -1e4])
    value = objective.value_of_staying(make_batch([-2.0, 7.0, -1e4]))
    if learn_discount and max_discount == 0.9:  # as from any q_Δ but the optimal one: a lower value
        assert (value < stay).all()
        value += bernoulli_kl(torch.tensor(math.log(9.0)), 0.95) / 0.1
    assert torch.allclose(value, stay, atol=1e-5)


@pytest.mark.parametrize("objective", [HERObjective(Goals(0.05), 0.9), SACObjective(0.9)])
def test_a_discounted_reward_is_paid_for_ever_where_nothing_is_left(objective):
    goal = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    batch = judge(goal, next_achieved_goal=torch.zeros(2, 2))
    value = objective.value_of_staying(batch)
    assert value.tolist() == pytest.approx([0.0, -10.0])


def test_values_cannot_exceed_the_densitys_maximum():
    objective = ODACObjective(0.95)
    _, high = objective.value_bounds(7.0)
    targets = target_of(objective, make_batch([7.0, -5.0, 7.0]), torch.tensor([7.0, 7.0, -50.0]))
    assert high == 7.0
    assert (targets <= high + 1e-6).all()


def test_hindsight_pays_minus_one_until_the_goal_is_reached():
    batch = judge(
        torch.tensor([[0.0, 0.04], [0.0, 0.06], [0.0, 0.04], [1.0, 0.0]]),
        next_achieved_goal=torch.tensor([[0.0, 0.0], [0.03, 0.03], [0.04, 0.0], [0.0, 0.0]]),
    )
    objective = HERObjective(Goals(0.05), discount=0.9)
    next_value = torch.tensor([-2.0, -2.0, 0.0, -2.0])
    target = target_of(objective, batch, next_value)
    assert target.tolist() == pytest.approx([-1.8, -1.8, -1.0, -2.8])
    assert objective.value_bounds(7.0) == (pytest.approx(-10), 0.0)


def test_hindsight_judges_as_the_environment_does():
    """The handle is on its goal and the hand 17 cm off: a success, which pays nothing less."""
    config = ODACConfig().environment("odac/SawyerWindow-v0").training(objective="her")
    goal = torch.zeros(2, 6)
    achieved = goal.clone()
    achieved[0, 0] = 0.17  # of the hand
    achieved[1, 3] = 0.06  # of the handle, along its slide
    batch = judge(goal, next_achieved_goal=achieved)
    for objective in (
        config.build_objective(),
        config.copy().training(objective="uvd").build_objective(),
    ):
        reward = objective.reward_and_discount(batch, torch.zeros(2)).reward
        assert (reward - reward[1]).tolist() == [1.0, 0.0]


def test_hindsight_can_pay_what_the_environment_pays():
    config = ODACConfig().environment("FetchReachDense-v4")
    config.training(objective="her", objective_settings={"reward": "environment"})
    objective = config.build_objective()
    batch = judge(torch.zeros(2, 3), next_achieved_goal=torch.tensor([[0.3, 0.4, 0.0], [0, 0, 0]]))
    backup = objective.reward_and_discount(batch, torch.zeros(2))
    assert backup.reward.tolist() == pytest.approx([-0.5, 0.0])
    assert objective.value_bounds(7.0) == (None, None)
    config.environment("odac/Box2D-v0", env_config={})
    with pytest.raises(ValueError, match="'success' for an environment that has no compute_reward"):
        HERObjective(Goals(), reward="environment")


def test_sac_is_told_the_objects_distance_and_the_hands_from_it():
    batch = judge(
        torch.tensor([[5.0, 3.0, 4.0], [5.0, 0.0, 0.0]]),
        goal_scale=2.0,
        next_observation=torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, 7.0]]),  # hand x, object x
        next_achieved_goal=torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]]),
    )
    objective = SACObjective(
        0.9, Goals(measured=slice(1, 3), hand_object=(slice(0, 1), slice(1, 2)))
    )
    target = target_of(objective, batch, torch.tensor([-1.0, -1.0]))
    assert target.tolist() == pytest.approx([-(5 + 1) / 2 - 0.9, -0.5 / 2 - 0.9])
    assert objective.value_bounds(7.0) == (None, 0.0)


def test_sac_asks_the_task_what_counts():
    objective = ODACConfig().environment("odac/FetchPush-v0").training(objective="sac")
    objective = objective.build_objective()
    assert objective.goals.measured == slice(-3, None)
    assert objective.goals.hand_object == (slice(0, 3), slice(3, 6))
    assert objective.relabel == {"own": 1.0}


def test_a_reward_for_nothing_is_refused():
    with pytest.raises(ValueError, match="success_distance is 0"):
        HERObjective(Goals(0))
    with pytest.raises(ValueError, match=r"discount is 1\.0"):
        HERObjective(Goals(1), discount=1.0)


def test_unknown_objective_is_refused_by_name():
    with pytest.raises(ValueError, match=r"objective is 'hers', but must be one of \['odac'"):
        make_objective("hers")
