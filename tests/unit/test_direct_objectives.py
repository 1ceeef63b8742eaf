"""Contrastive and quasimetric values against exact ones of small Markov chains."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rllib_odac.agent.objectives import ContrastiveObjective, QuasimetricObjective
from rllib_odac.agent.objectives.quasimetric import interval_quasimetric
from tests.made_up import make_batch, make_transitions

STATES, ACTIONS, DISCOUNT, ROWS = 6, 2, 0.8, 256
HERE = torch.arange(STATES)


def one_hot(number, count=STATES):
    return torch.eye(count)[number]


def make_module(objective):
    """Networks that see states, actions and goals as one-hot vectors."""
    torch.manual_seed(0)
    return SimpleNamespace(
        normalize_goal=lambda goal: goal,
        dynamics_inputs=lambda observation, achieved_goal: observation,
        auxiliary=objective.auxiliary.build_networks(STATES, STATES, ACTIONS, (64,)),
    )


def make_rows(state, action, next_state, goal):
    """A batch of states, actions and goals by their number."""
    rows = make_transitions(
        one_hot(goal),
        observation=one_hot(state),
        next_observation=one_hot(next_state),
        achieved_goal=one_hot(state),
        next_achieved_goal=one_hot(next_state),
        actions=one_hot(action, ACTIONS),
        auxiliary_goal=one_hot(goal),
    )
    batch = make_batch(rows, torch.cat([one_hot(state), one_hot(action, ACTIONS)], 1))
    return batch._replace(inputs=batch.inputs._replace(goal=one_hot(goal)))


def fit(objective, module, draw, steps):
    optimizer = torch.optim.Adam(module.auxiliary.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = objective.auxiliary.evaluate(module, draw()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def values(objective, module):
    """(S, A, G) Q(s, a, g) of every state, action and goal."""
    state, action, goal = torch.cartesian_prod(HERE, torch.arange(ACTIONS), HERE).unbind(-1)
    batch = make_rows(state, action, state, goal)
    with torch.no_grad():
        value = objective.auxiliary.action_value(module, batch.inputs, batch.transitions.actions)
    return value.double().unflatten(0, (STATES, ACTIONS, STATES))


def test_contrastive_values_are_log_ratios_of_discounted_futures():
    """On a line whose steps go as asked four times in five, under a policy that goes right."""
    left, right = one_hot((HERE - 1).clamp_min(0)), one_hot((HERE + 1).clamp_max(STATES - 1))
    step = torch.stack([0.8 * left + 0.2 * right, 0.2 * left + 0.8 * right], 1).double()
    under_policy = torch.einsum("a,sax->sx", torch.tensor([0.3, 0.7]).double(), step)
    future = (1 - DISCOUNT) * step @ torch.linalg.inv(torch.eye(STATES) - DISCOUNT * under_policy)
    objective = ContrastiveObjective(embedding_dim=16)
    module = make_module(objective)

    def draw():
        state, action = torch.randint(STATES, (ROWS,)), torch.randint(ACTIONS, (ROWS,))
        goal = torch.multinomial(future[state, action], 1).squeeze(-1)
        return make_rows(state, action, state, goal)

    fit(objective, module, draw, 2000)
    expected = future.log() - future.mean((0, 1)).log() - np.log(ROWS - 1)
    error = values(objective, module) - expected
    likely = future > 0.01  # of the others there are too few examples
    assert error[likely].abs().mean() < 0.2
    assert (expected[likely].max() - expected[likely].min()) > 2


def test_quasimetric_values_are_the_steps_round_a_one_way_ring():
    """Action 0 stays, action 1 goes on: from i to j in (j − i) mod S steps, and never back."""
    objective = QuasimetricObjective(far=10.0, latent_dim=32)
    module = make_module(objective)

    def draw():
        state, action = torch.randint(STATES, (ROWS,)), torch.randint(ACTIONS, (ROWS,))
        return make_rows(state, action, (state + action) % STATES, torch.randint(STATES, (ROWS,)))

    fit(objective, module, draw, 800)
    after = (HERE[:, None] + torch.arange(ACTIONS)) % STATES
    expected = ((HERE - after[..., None]) % STATES).double()
    distance = -values(objective, module)
    # Each step may be longer than one by the tolerance, and a little more.
    assert ((distance - expected).abs() <= 0.5 * expected + 0.3).all()
    pairs = torch.stack([distance.flatten(), expected.flatten()])
    assert torch.corrcoef(pairs)[0, 1] > 0.95


def test_policy_gradients_reach_actions_alone():
    for objective in (ContrastiveObjective(), QuasimetricObjective()):
        module = make_module(objective)
        batch = make_rows(HERE, HERE % 2, HERE, HERE)
        actions = batch.transitions.actions.requires_grad_()
        objective.auxiliary.action_value(module, batch.inputs, actions).sum().backward()
        assert actions.grad.abs().sum() > 0
        assert all(p.grad is None for p in module.auxiliary.parameters())


points = arrays(np.float64, (3, 4), elements=st.floats(-10, 10, width=32))


@given(points)
def test_interval_quasimetric_is_one(places):
    x, y, z = torch.from_numpy(places)
    assert interval_quasimetric(x, x) == 0
    assert interval_quasimetric(x, y) >= 0
    direct, by_way = interval_quasimetric(x, z), interval_quasimetric(x, y)
    assert direct <= by_way + interval_quasimetric(y, z) + 1e-9


def test_interval_quasimetric_measures_a_union():
    start = torch.tensor([[0.0, 1.0, 5.0], [0.0, 3.0, 9.0]])
    end = torch.tensor([[2.0, 3.0, 4.0], [1.0, 4.0, 9.5]])
    assert interval_quasimetric(start, end).tolist() == pytest.approx([3.0, 2.5])


@pytest.mark.parametrize(
    ("objective", "settings", "sentence"),
    [
        (ContrastiveObjective, {"embedding_dim": 0}, "embedding_dim is 0, but must be at least 1"),
        (QuasimetricObjective, {"far": 0.0}, r"far is 0\.0, but must be positive"),
        (QuasimetricObjective, {"latent_dim": 20}, "latent_dim is 20, but must be a positive mul"),
    ],
)
def test_bad_settings_are_refused(objective, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        objective(**settings)
