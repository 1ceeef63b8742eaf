"""Inferred quantities: those that the learner trains with, and exact where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rllib_odac import TabularODAC
from rllib_odac.agent.batch import Batch, prepare
from rllib_odac.agent.dynamics_ensemble import DynamicsEnsemble
from rllib_odac.agent.networks import GoalDynamics
from rllib_odac.agent.update import compute_update
from rllib_odac.agent.update_metrics import compute_metrics
from rllib_odac.evaluation import inference
from rllib_odac.evaluation.inference import (
    check_plane,
    coverage,
    infer,
    missing_quantities,
    plane_fields,
    predict_next,
    realised_return,
    termination_times,
    transitions,
)
from rllib_odac.maths.losses import (
    bernoulli_kl,
    effective_horizon,
    optimal_discount_logit,
    outcome_reward,
    termination_probabilities,
)
from tests.made_up import STEPS, episode, make_learner


@pytest.fixture(scope="module")
def known_module():
    """A module whose answers are known: Q is 1.5 everywhere, a place stays where it is."""
    learner = make_learner(kl_weight=0.0, max_discount=None, prior_discount=0.9)
    module = learner.networks
    with torch.no_grad():
        for critic in (module.critic, module.target_critic):
            for parameter in critic.parameters():
                parameter.zero_()
            critic.biases[-1].fill_(1.5)
        for parameter in module.dynamics.parameters():
            parameter.zero_()
    return module, learner.objective


def known_log_prob(goal, way):
    """A Laplace of scale √0.01 around where one is, and one of scale 1 around the centre."""
    scale = 0.1
    laplace = np.prod(np.exp(-np.abs(way) / scale) / (2 * scale), axis=-1)
    return np.log(0.95 * laplace + 0.05 * 0.25 * np.exp(-np.abs(goal).sum(-1)))


def test_a_module_with_known_answers(known_module):
    batch = transitions(episode())
    found = infer(*known_module, batch)
    way = (batch.goal - batch.achieved_goal).numpy() / float(known_module[0].goal_scale)
    goal = known_module[0].normalize_goal(batch.goal).numpy()
    log_prob = known_log_prob(goal, way)
    q = 1 / (1 + np.exp(-(1.5 - log_prob + math.log(9))))
    kl = q * np.log(q / 0.9) + (1 - q) * np.log((1 - q) / 0.1)
    expected = {
        "value": np.full(STEPS, 1.5),
        "next_value": np.full(STEPS, 1.5),
        "log_prob_goal": log_prob,
        "discount": q,
        "discount_kl": kl,
        "reward": (1 - q) * log_prob - kl,
        "effective_horizon": 1 / (1 - q),
        "kl_cost": np.zeros(STEPS),
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=2e-5, err_msg=name)


def test_fields_of_a_module_with_known_answers(known_module):
    goal = np.array([1.0, -2.0])
    field = plane_fields(*known_module, goal, (-4, 4, -4, 4), points=17, num_samples=3)
    assert set(field.fields) == {"reward", "discount", "value", "log_prob_goal"}
    np.testing.assert_allclose(field.fields["value"], 1.5, rtol=1e-5)
    x, y = np.meshgrid(field.x, field.y)
    way = (goal - np.stack([x, y], axis=-1)) / float(known_module[0].goal_scale)
    centred = known_module[0].normalize_goal(torch.tensor(goal).float()).numpy()
    log_prob = known_log_prob(centred, way)
    np.testing.assert_allclose(field.fields["log_prob_goal"], log_prob, rtol=2e-4, atol=2e-5)
    row, column = np.unravel_index(field.fields["reward"].argmax(), (17, 17))
    assert (field.x[column], field.y[row]) == (1.0, -2.0)  # rows go along y


@pytest.mark.parametrize("settings", [
    {}, {"learn_discount": False}, {"learn_dynamics": False, "max_discount": None},
    {"objective": "her"}, {"objective": "sac"}, {"kl_weight": "auto"},
    {"dynamics_members": 3, "disagreement_weight": -2.0},
])  # fmt: skip
def test_what_is_shown_is_what_is_trained_with(settings):
    learner = make_learner(**settings)
    learner.update(num_updates=2)
    rows = learner.replay.sample(8)
    found = infer(learner.networks, learner.objective, rows, num_samples=1, seed=5)

    noise = torch.randn((2, 8, 2), generator=torch.Generator().manual_seed(5))
    batch = Batch(rows, prepare(learner.networks, rows), noise)
    update = compute_update(learner.networks, learner.objective, batch)
    logged = compute_metrics(learner.networks, batch, update)
    of_backup = ("reward", "discount", "log_prob_goal", "discount_kl", "disagreement")
    for name in (*of_backup, "effective_horizon"):
        assert (name in found) == (name in logged)
        if name in logged:
            np.testing.assert_allclose(found[name], logged[name].detach(), rtol=1e-5, atol=1e-6)
    target = found["reward"] + found["discount"] * found["next_value"]
    np.testing.assert_allclose(target, logged["target"], rtol=1e-5, atol=1e-5)
    cost = float(update.predictions.kl_weight) * logged["policy_kl"].detach()
    np.testing.assert_allclose(found["kl_cost"], cost, rtol=1e-5, atol=1e-6)


def test_more_samples_are_a_mean_over_actions_and_chunks_do_not_matter(monkeypatch):
    learner = make_learner()
    trained = (learner.networks, learner.objective)
    batch = transitions(episode())
    many = infer(*trained, batch, num_samples=64)
    singles = [infer(*trained, batch, num_samples=1, seed=seed) for seed in range(64)]
    mean = np.mean([one["value"] for one in singles], axis=0)
    spread = np.std([one["value"] for one in singles], axis=0).max()
    np.testing.assert_allclose(many["value"], mean, atol=spread)
    monkeypatch.setattr(inference, "ROWS_AT_ONCE", 64)
    assert len(infer(*trained, batch)["value"]) == STEPS


@pytest.mark.parametrize(("objective", "names", "sentences"), [
    ("odac", {"log_prob_goal", "discount_kl", "reward"}, 0),
    ("her", {"reward"}, 2), ("sac", {"reward"}, 2), ("uvd", {"reward"}, 2), ("discern", set(), 3),
])  # fmt: skip
def test_every_objective_shows_what_it_infers(objective, names, sentences):
    learner = make_learner(objective=objective)
    trained = (learner.networks, learner.objective)
    found = infer(*trained, transitions(episode()))
    shared = {"value", "next_value", "discount", "effective_horizon", "kl_cost"}
    assert set(found) == shared | names
    assert all(np.isfinite(values).all() for values in found.values())
    missing = missing_quantities(*trained)
    assert len(missing) == sentences
    assert all(sentence.startswith(type(learner.objective).__name__[:3]) for sentence in missing)
    field = plane_fields(*trained, [0.0, 3.0], (-4, 4, -4, 4), points=3, num_samples=2)
    assert set(field.fields) == (
        {"value", "reward", "discount", "log_prob_goal"} if objective == "odac" else {"value"}
    )


def test_the_exact_posterior_along_a_path():
    """In deterministic dynamics every path of the optimal policy returns V*(s0), to the digit."""
    transitions_ = np.zeros((5, 2, 5))  # a corridor: to the left, to the right
    for state in range(5):
        transitions_[state, 0, max(state - 1, 0)] = 1
        transitions_[state, 1, min(state + 1, 4)] = 1
    exact = TabularODAC(transitions_, goal=4, prior_discount=0.8)
    solution = exact.solve()
    states, actions = [0, 1, 0, 1, 2, 3, 4, 4], [1, 0, 1, 1, 1, 1, 1]
    before, after = states[:-1], torch.tensor(solution.value[states[1:]])
    log_prob = torch.tensor(transitions_[before, actions, 4]).log()
    logit = optimal_discount_logit(after, log_prob, 0.8)
    discount = torch.sigmoid(logit).numpy()
    np.testing.assert_allclose(discount, solution.discount[before, actions], atol=1e-12)
    quantities = {
        "reward": outcome_reward(log_prob, logit, 0.8, bernoulli_kl(logit, 0.8)).numpy(),
        "discount": discount,
        "kl_cost": np.log(solution.policy[before, actions] / 0.5),
    }
    value = realised_return(quantities, float(solution.value[states[-1]]))
    assert value == pytest.approx(float(solution.value[0]), abs=1e-12)
    times = termination_times(discount)
    assert times.sum() == pytest.approx(1)
    assert (times[:5] == 0).all()  # it cannot come about before one is there
    assert times[5] > 0


def test_termination_under_the_prior_is_geometric():
    discount = torch.full((3, 6), 0.9, dtype=torch.float64)
    expected = np.append(0.1 * 0.9 ** np.arange(6), 0.9**6)
    np.testing.assert_allclose(termination_probabilities(discount), [expected] * 3)
    padded = termination_times(discount[0].numpy(), 8)
    np.testing.assert_allclose(padded, np.append(expected[:6], [0, 0, 0.9**6]))
    assert termination_times(np.array([0.5, 0.0])).tolist() == [0.5, 0.5, 0.0]  # a terminal state


def test_the_horizon_is_finite():
    horizon = effective_horizon(torch.tensor([0.0, 0.95, 1.0]))
    assert horizon[:2].tolist() == pytest.approx([1, 20], rel=1e-4)
    assert torch.isfinite(horizon).all()


@pytest.mark.parametrize("distribution", ["laplace", "gaussian"])
def test_coverage_of_the_right_scale_is_nominal(distribution):
    dynamics = GoalDynamics(2, 3, [4], distribution)
    mixture = DynamicsEnsemble(2, 3, [4], distribution, num_members=2)
    scale = torch.tensor([0.01, 0.2, 3.0])
    kind = torch.distributions.Laplace if distribution == "laplace" else torch.distributions.Normal
    torch.manual_seed(0)
    deviation = kind(0.0, scale).sample((20_000,))
    nominal = np.array([0.1, 0.5, 0.9, 0.99])
    found = dynamics.central_probability(deviation, scale.log().expand_as(deviation)).numpy()
    for i in range(3):
        np.testing.assert_allclose(coverage(found[:, i], nominal), nominal, atol=0.01)
    wide = dynamics.central_probability(deviation, (2 * scale).log().expand_as(deviation)).numpy()
    assert (coverage(wide, nominal) > nominal).all()

    # Realised by either model, which are two of the second coordinate's scales apart.
    apart = torch.tensor([[[0.0]], [[0.4]]])
    place = deviation + apart[torch.randint(2, (20_000,)), 0]
    log_scales = scale.log().expand(2, 20_000, 3)
    found = mixture.central_probability(place - apart, log_scales).numpy()
    alone = mixture.central_probability((place - apart)[:1], log_scales[:1]).numpy()
    for i in range(3):
        np.testing.assert_allclose(coverage(found[:, i], nominal), nominal, atol=0.01)
    assert (coverage(alone[:, 1], nominal) < nominal - 0.01).all()


def test_predictions_are_in_the_units_of_the_task(known_module):
    batch = transitions(episode())
    found = predict_next(known_module[0], batch)
    made = (batch.next_achieved_goal - batch.achieved_goal).numpy()
    np.testing.assert_allclose(found["realised"], made, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["predicted"], 0)
    unit = float(known_module[0].goal_scale)
    np.testing.assert_allclose(found["scale"], 0.1 * unit, rtol=1e-5)
    expected = 1 - np.exp(-np.abs(made) / (0.1 * unit))
    np.testing.assert_allclose(found["central_probability"], expected, rtol=1e-4, atol=1e-6)


def test_only_the_plane_has_fields():
    check_plane([episode()])
    other = episode()
    other.observation = np.hstack([other.observation, other.observation])
    with pytest.raises(ValueError, match="observation is not the achieved goal"):
        check_plane([other])
    other.desired_goal = np.zeros((STEPS + 1, 3), np.float32)
    with pytest.raises(ValueError, match="Goals have 3 coordinates"):
        check_plane([other])
