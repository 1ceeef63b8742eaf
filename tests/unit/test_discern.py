"""DISCERN: the discriminator reaches Bayes' accuracy, and what its log-likelihood pays."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from rllib_odac.agent.objectives import DISCERNObjective
from rllib_odac.maths.losses import bellman_target
from tests.made_up import judge, make_batch, make_transitions

CLUSTERS = torch.tensor([[math.cos(i * math.pi / 4), math.sin(i * math.pi / 4)] for i in range(8)])


def make_module(objective, goal_dim=2):
    torch.manual_seed(0)
    return SimpleNamespace(
        normalize_goal=lambda goal: goal / 3,
        trivial_distance=torch.tensor(0.03),
        auxiliary=objective.auxiliary.build_networks(goal_dim, 5, 2, (32, 32)),
    )


def draw(size=128):
    """Episodes that end in the cluster of their goal, but nowhere particular in it."""
    cluster = CLUSTERS[torch.randint(len(CLUSTERS), (size,))]
    goal, final_goal = (3 * cluster + 0.03 * torch.randn(size, 2) for _ in range(2))
    return make_transitions(goal, auxiliary_goal=final_goal, next_achieved_goal=final_goal)


def evaluate(objective, module, transitions):
    return objective.auxiliary.evaluate(module, make_batch(transitions), None)


def log_likelihood(objective, module, transitions):
    """(B,) of each pair of the loss."""
    logits, _ = objective.auxiliary.logits(module, make_batch(transitions))
    return logits.log_softmax(-1)[:, 0]


def train(objective, steps=400):
    module = make_module(objective)
    optimizer = torch.optim.Adam(module.auxiliary.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = evaluate(objective, module, draw()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module


@pytest.fixture(scope="module")
def trained():
    objective = DISCERNObjective(num_decoys=15)
    return objective, train(objective)


def embed(module, goals):
    return F.normalize(module.auxiliary(module.normalize_goal(goals)), dim=-1)


def test_discriminator_is_as_good_as_chance_within_a_cluster_allows(trained):
    objective, module = trained
    batch = draw(20_000 // 128 * 128)
    with torch.no_grad():
        logits = torch.cat(
            [
                objective.auxiliary.similarities(
                    embed(module, reached), embed(module, goal), torch.zeros(128, 128).bool()
                )
                for reached, goal in zip(
                    batch.auxiliary_goal.split(128), batch.goal.split(128), strict=True
                )
            ]
        )
    accuracy = (logits.argmax(-1) == 0).double().mean()
    # The number M of decoys in the same cluster is binomial; the best there is picks one of M + 1.
    same, decoys = 1 / len(CLUSTERS), objective.auxiliary.num_decoys
    chances = [
        math.comb(decoys, m) * same**m * (1 - same) ** (decoys - m) for m in range(decoys + 1)
    ]
    best_accuracy = sum(chance / (m + 1) for m, chance in enumerate(chances))
    best_loss = sum(chance * math.log(m + 1) for m, chance in enumerate(chances))
    assert best_accuracy == pytest.approx((1 - (1 - same) ** 16) / (16 * same))
    assert float(accuracy) == pytest.approx(best_accuracy, abs=0.015)
    assert -float(logits.log_softmax(-1)[:, 0].mean()) == pytest.approx(best_loss, abs=0.03)


def test_reward_is_best_at_the_goal_and_never_positive(trained):
    objective, module = trained
    batch, rewards = draw(), []
    for away in (0.0, 0.4, 0.8, 1.6):
        batch = batch._replace(next_achieved_goal=batch.goal + torch.tensor([away, 0.0]))
        rewards.append(evaluate(objective, module, batch).reward)
    assert all((reward <= 0).all() for reward in rewards)
    means = [float(reward.mean()) for reward in rewards]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1] + 1
    batch = batch._replace(next_achieved_goal=torch.full_like(batch.goal, 1e8))
    assert torch.isfinite(evaluate(objective, module, batch).reward).all()


def test_clipped_reward_is_the_similarity_of_the_embeddings():
    objective = DISCERNObjective(num_decoys=15, reward="clipped", discount=0.9)
    module, batch = make_module(objective), draw()
    reward = evaluate(objective, module, batch).reward
    cosine = (embed(module, batch.next_achieved_goal) * embed(module, batch.goal)).sum(-1)
    assert torch.allclose(reward, cosine.clamp(0, 1), atol=1e-6)
    assert objective.value_bounds(7.0) == (None, pytest.approx(10))


def test_decoys_are_the_goals_of_the_rows_that_follow():
    objective = DISCERNObjective(num_decoys=2, sharpness=5.0)
    reached, goal = (F.normalize(torch.randn(4, 3), dim=-1) for _ in range(2))
    same = torch.zeros(4, 4, dtype=torch.bool)
    logits = objective.auxiliary.similarities(reached, goal, same)
    rows = [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 1]]
    expected = [[5 * float(reached[i] @ goal[j]) for j in row] for i, row in enumerate(rows)]
    assert torch.allclose(logits, torch.tensor(expected), atol=1e-6)
    many = DISCERNObjective(num_decoys=9).auxiliary
    assert many.similarities(reached, goal, same).shape == (4, 4)  # no row twice


def test_the_same_goal_is_no_decoy():
    objective = DISCERNObjective(num_decoys=3)
    module, batch = make_module(objective), draw(4)
    goal = batch.goal.clone()
    goal[1] = goal[0] + 1e-3  # an object that has hardly moved
    logits, _ = objective.auxiliary.logits(module, make_batch(batch._replace(goal=goal)))
    assert torch.isneginf(logits).nonzero().tolist() == [[0, 1], [1, 3]]  # the other of the two


def test_hindsight_goals_pay_where_they_were_taken_and_teach_nothing():
    objective = DISCERNObjective(num_decoys=7)
    module, batch = make_module(objective), draw(32)
    relabelled = torch.arange(32) % 2 == 0
    achieved = torch.where((torch.arange(32) % 4 == 0)[:, None], batch.goal, batch.auxiliary_goal)
    batch = batch._replace(relabelled=relabelled, next_achieved_goal=achieved)
    output = evaluate(objective, module, batch)
    own = log_likelihood(objective, module, batch)[~relabelled]
    assert torch.allclose(output.loss, -own.mean(), atol=1e-5)
    assert (output.reward[::4] == 0).all()
    assert (output.reward[2::4] < 0).all()  # relabelled, but s' is another state
    all_hindsight = batch._replace(relabelled=torch.ones(32, dtype=torch.bool))
    assert evaluate(objective, module, all_hindsight).loss == 0


def test_rewards_are_constants_and_losses_reach_every_weight():
    objective = DISCERNObjective()
    module = make_module(objective)
    output = evaluate(objective, module, draw(32))
    assert not output.reward.requires_grad
    output.loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in module.auxiliary.parameters())


def test_rewards_are_discounted():
    objective = DISCERNObjective(discount=0.9)
    batch = judge(torch.zeros(1, 2), learned_reward=torch.tensor([-2.0]))
    next_value = torch.tensor([-5.0])
    backup = objective.reward_and_discount(batch, next_value)
    assert bellman_target(backup.reward, backup.discount, next_value).item() == pytest.approx(-6.5)
    assert objective.value_bounds(7.0) == (None, 0.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_decoys": 0}, "num_decoys is 0, but must be a whole number of at least 1"),
        ({"sharpness": 0.0}, r"sharpness is 0\.0, but must be positive, or None"),
        ({"reward": "cosine"}, "reward is 'cosine', but must be one of"),
        ({"embedding_dim": 1}, "embedding_dim is 1, but must be at least 2"),
        ({"discount": 1.0}, r"discount is 1\.0, but must be in \(0, 1\)"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        DISCERNObjective(**settings)
