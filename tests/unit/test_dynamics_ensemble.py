"""p_ψ of several models: one mixture, members learned by themselves, and their disagreement."""

from __future__ import annotations

import math

import pytest
import torch

from rllib_odac import ODACConfig
from rllib_odac.agent.batch import make_batches
from rllib_odac.agent.dynamics_ensemble import DynamicsEnsemble
from rllib_odac.agent.networks import GoalDynamics
from rllib_odac.agent.recording import HostReads
from rllib_odac.agent.update import compute_update
from tests.made_up import episode, make_learner


def member_of(ensemble: DynamicsEnsemble, number: int) -> GoalDynamics:
    """A single model with the weights of one member."""
    sizes = [weight.shape[-1] for weight in ensemble.members.weights]
    alone = GoalDynamics(ensemble.members.weights[0].shape[1], ensemble.goal_dim, sizes[:-1])
    layers = [layer for layer in alone.net if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(ensemble.members.weights[i][number].T)
            layer.bias.copy_(ensemble.members.biases[i][number, 0])
    return alone


def test_the_density_is_the_mean_of_its_members_and_each_learns_by_its_own():
    ensemble = DynamicsEnsemble(4, 2, (16, 16), num_members=3)
    inputs, goal, way = torch.randn(7, 4), torch.randn(7, 2), 0.3 * torch.randn(7, 2)
    each = ensemble.member_log_probs(goal, way, *ensemble(inputs))
    (-each.mean()).backward()
    density = torch.zeros(7)
    for number in range(3):
        alone = member_of(ensemble, number)
        mean, log_scale = alone(inputs)
        log_prob = alone.log_prob(goal, way - mean, log_scale)
        torch.testing.assert_close(each[number], log_prob, rtol=1e-4, atol=1e-4)
        density += log_prob.detach().exp() / 3
        (-log_prob.mean()).backward()
        ours = ensemble.members.weights[1].grad[number]
        torch.testing.assert_close(3 * ours, alone.net[2].weight.grad.T, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ensemble.mixed(each), density.log(), rtol=1e-4, atol=1e-4)
    assert ensemble.max_log_prob == member_of(ensemble, 0).max_log_prob
    stays = [d.log_prob_of_staying(goal, way) for d in (ensemble, member_of(ensemble, 0))]
    assert torch.equal(*stays)


def test_disagreement_is_the_part_of_the_mixtures_variance_that_members_have_not():
    torch.manual_seed(0)
    ensemble = DynamicsEnsemble(1, 2, (4,), "gaussian", num_members=2, background=0.0)
    displacement = torch.tensor([[[0.0, 0.3]], [[0.4, 0.0]]])
    scale = torch.tensor([[[0.1, 0.2]], [[0.3, 0.1]]])
    found = ensemble.disagreement(displacement)
    assert float(found) == pytest.approx(math.hypot(0.2, 0.15))
    drawn = displacement[:, 0] + scale[:, 0] * torch.randn(200_000, 2, 2)
    variance = drawn.flatten(0, 1).var(0).sum() - scale.square().mean(0).sum()
    assert float(found.square()) == pytest.approx(float(variance), rel=0.02)


def test_members_agree_on_what_they_saw_and_elsewhere_disagree():
    torch.manual_seed(0)
    ensemble = DynamicsEnsemble(2, 2, (32, 32), num_members=5)
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=3e-3)

    def ways(inputs):
        return 0.3 * torch.sin(3 * inputs)

    inside, outside = torch.rand(1000, 2) * 2 - 1, torch.rand(1000, 2) + torch.tensor([1.5, -0.5])
    start = ensemble.disagreement(ensemble(inside)[0])
    assert (start > 0).all()  # they start apart
    for _ in range(600):
        inputs = torch.rand(128, 2) * 2 - 1
        goal = ways(inputs) + 0.01 * torch.randn(128, 2)
        loss = -ensemble.member_log_probs(goal, goal, *ensemble(inputs)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    known, unknown = (ensemble.disagreement(ensemble(x)[0]) for x in (inside, outside))
    assert known.mean() < 0.2 * start.mean()
    assert unknown.median() > 5 * known.quantile(0.9)
    # It tells how far the mean is off there.
    error = (ensemble.averaged(ensemble(outside)[0]) - ways(outside)).norm(dim=-1)
    assert torch.corrcoef(torch.stack([unknown, error.detach()]))[0, 1] > 0.5


def one_batch(learner, terminated=True):
    learner.add_episodes([episode(9, terminated=terminated)])
    steps = learner.replay.sample_steps(64, learner.config.target_steps)
    return make_batches(learner.networks, steps, 64, torch.Generator().manual_seed(0))[0]


@pytest.mark.parametrize("settings", [{}, {"target_steps": 3}, {"values": "expectile"}], ids=str)
def test_equal_members_are_one_model(settings):
    single, several = make_learner(**settings), make_learner(dynamics_members=3, **settings)
    assert type(single.networks.dynamics) is GoalDynamics
    assert not any("members" in name for name in single.networks.state_dict())
    own = single.networks.state_dict()
    with torch.no_grad():
        for name, value in several.networks.state_dict().items():
            if name in own:
                value.copy_(own[name])
        layers = [own[f"dynamics.net.{i}.{kind}"] for kind in ("weight", "bias") for i in (0, 2, 4)]
        members = several.networks.dynamics.members
        for parameter, layer in zip([*members.weights, *members.biases], layers, strict=True):
            parameter.copy_(layer.T if layer.dim() == 2 else layer)
    batch = one_batch(single)
    ours, theirs = (
        compute_update(each.networks, each.objective, batch) for each in (several, single)
    )
    torch.testing.assert_close(ours.target.value, theirs.target.value, rtol=1e-4, atol=1e-4)
    for name, loss in theirs.losses.items():
        torch.testing.assert_close(ours.losses[name], loss, rtol=1e-4, atol=1e-4)
    assert ours.target.backup.metrics["disagreement"].abs().max() < 1e-6


@pytest.mark.parametrize("objective", ["odac", "horizon"])
@pytest.mark.parametrize("weight", [-3.0, 0.5])
def test_targets_have_the_weighted_disagreement_and_nothing_else_changes(objective, weight):
    settings = {"objective": objective, "dynamics_members": 3}
    plain, judged = make_learner(**settings), make_learner(**settings, disagreement_weight=weight)
    batch = one_batch(plain)
    assert batch.transitions.terminated.any()  # these too: the step to a terminal state has it
    before, after = (
        compute_update(each.networks, each.objective, batch) for each in (plain, judged)
    )
    disagreement = after.target.backup.metrics["disagreement"]
    assert disagreement.min() > 0
    expected = before.target.value + weight * disagreement
    torch.testing.assert_close(after.target.value, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(after.target.backup.discount, before.target.backup.discount)
    assert torch.equal(after.target.next_value, before.target.next_value)
    others = [name for name in before.losses if name != "critic_loss"]
    assert all(torch.equal(after.losses[name], before.losses[name]) for name in others)


def test_a_bonus_leaves_values_below_that_of_a_goal_surely_reached():
    learner = make_learner(dynamics_members=3, disagreement_weight=1e3)
    batch = one_batch(learner)
    with torch.no_grad():
        learner.networks.target_critic.biases[-1] += 1e6
    update = compute_update(learner.networks, learner.objective, batch)
    last = ~batch.transitions.terminated
    assert update.target.next_value[last].max() == pytest.approx(
        learner.networks.max_log_prob, rel=1e-5
    )


def test_no_update_of_an_ensemble_waits_for_the_device():
    learner = make_learner(
        dynamics_members=3, disagreement_weight=-1.0, target_steps=2, executor="captured"
    )
    learner.update(num_updates=2)
    with HostReads() as reads:
        learner._updates_of_one_draw(2)
    assert reads.found == []


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dynamics_members": 3, "objective": "her"},
        {"dynamics_members": 3, "learn_dynamics": False},
    ],
    ids=str,
)
def test_a_weight_without_disagreement_is_refused(settings):
    config = ODACConfig().training(disagreement_weight=-1.0, success_distance=1, **settings)
    with pytest.raises(
        ValueError, match=r"^disagreement_weight is -1\.0, but must be 0 unless p_ψ"
    ):
        config.check_settings()


def test_where_nothing_is_learned_members_do_not_matter():
    learner = make_learner(dynamics_members=3, objective="sac")
    assert type(learner.networks.dynamics) is GoalDynamics
    assert "disagreement" not in learner.update(num_updates=2)["default_policy"]
