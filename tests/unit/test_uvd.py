"""Universal value density against exact discounted goal probabilities of a small Markov chain."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rllib_odac.agent.flow import ConditionalFlow
from rllib_odac.agent.objectives import JudgedTransitions, UVDObjective
from rllib_odac.agent.policies import SquashedGaussianPolicy
from rllib_odac.envs.goals import Goals
from rllib_odac.maths.losses import bellman_target
from tests.made_up import judge, make_batch, make_transitions

STATES, ACTIONS, SPACING, DISTANCE, DISCOUNT = 9, 2, 0.25, 0.375, 0.8
PLACES = SPACING * torch.arange(STATES) - 1  # of the states on a line, in goal scales
GOAL_SCALE = 3.0  # task units of one goal scale
POLICY = torch.tensor([0.3, 0.7])  # of going left or right


def transitions():
    """(S, A, S): one step to the left or right, as asked four times in five; walls at the ends."""
    here = np.arange(STATES)
    left, right = np.eye(STATES)[np.maximum(here - 1, 0)], np.eye(STATES)[np.minimum(here + 1, 8)]
    return torch.tensor(np.stack([0.8 * left + 0.2 * right, 0.2 * left + 0.8 * right], axis=1))


def occupancy():
    """(S, A, S) Σ_t γᵗ P(s_{t+1} = s' | s, a) under the policy, by a linear solve."""
    step = transitions()
    under_policy = torch.einsum("a,sax->sx", POLICY.double(), step)
    return step @ torch.linalg.inv(torch.eye(STATES) - DISCOUNT * under_policy)


def make_objective(**settings):
    return UVDObjective(Goals(GOAL_SCALE * DISTANCE), DISCOUNT, flow_hidden=32, **settings)


def make_module(objective):
    torch.manual_seed(0)
    return SimpleNamespace(
        goal_dim=1,
        goal_scale=torch.tensor(GOAL_SCALE),
        dynamics_inputs=lambda observation, achieved, actions: torch.cat([observation, actions], 1),
        auxiliary=objective.auxiliary.build_networks(1, STATES, ACTIONS, ()),
        policy=SquashedGaussianPolicy(STATES, ACTIONS, ()),
    )


def make_chain_batch(state, action, future, next_state, next_action, goal):
    """A batch (B,) of states by their number, and the next actions."""
    observation, next_observation = torch.eye(STATES)[state], torch.eye(STATES)[next_state]
    actions, next_actions = torch.eye(ACTIONS)[action], torch.eye(ACTIONS)[next_action]

    def place(number):
        return GOAL_SCALE * PLACES[number][:, None]

    rows = make_transitions(
        place(goal),
        observation=observation,
        next_observation=next_observation,
        achieved_goal=place(state),
        next_achieved_goal=place(next_state),
        auxiliary_goal=place(future),
    )
    noise = torch.randn(len(state), 1)
    return make_batch(rows, torch.cat([observation, actions], 1), noise), next_actions


@pytest.fixture(scope="module")
def fitted():
    """The flow, fitted by the objective's own loss to futures as a geometric clock rings."""
    objective = make_objective()
    module = make_module(objective)
    futures = ((1 - DISCOUNT) * occupancy()).flatten(0, 1)
    optimizer = torch.optim.Adam(module.auxiliary.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    for _ in range(1000):
        pair = torch.randint(STATES * ACTIONS, (256,))
        future = torch.multinomial(futures[pair], 1).squeeze(-1)
        state, action = pair // ACTIONS, pair % ACTIONS
        batch = make_chain_batch(state, action, future, state, action, state)
        loss = objective.auxiliary.evaluate(module, *batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return objective, module


def grid(*sizes):
    return torch.cartesian_prod(*[torch.arange(size) for size in sizes]).unbind(-1)


def exact_q():
    """(S, A, G) discounted probability to be within `DISTANCE` of each place."""
    reached = (PLACES[:, None] - PLACES).abs() < DISTANCE
    return occupancy() @ reached.double()


def flow_bound(objective, module):
    """(S, A, G) what the flow says of each state, action and goal."""
    state, action, goal = grid(STATES, ACTIONS, STATES)
    batch = make_chain_batch(state, action, state, state, action, goal)
    bound = objective.auxiliary.evaluate(module, *batch).next_q_bound
    assert not bound.requires_grad
    return bound.double().unflatten(0, (STATES, ACTIONS, STATES))


def sweep(objective, q_table, bound):
    """One backup of a whole table (S, A, G), successors and next actions in expectation."""
    state, action, next_state, next_action, goal = grid(STATES, ACTIONS, STATES, ACTIONS, STATES)
    batch, _ = make_chain_batch(state, action, state, next_state, next_action, goal)
    next_q = q_table[next_state, next_action, goal]
    next_value = torch.maximum(next_q, bound[next_state, next_action, goal])
    judged = JudgedTransitions(batch.transitions, torch.zeros(len(goal)), torch.ones(()))
    backup = objective.reward_and_discount(judged, next_value)
    target = bellman_target(backup.reward, backup.discount, next_value)
    weight = transitions()[state, action, next_state] * POLICY[next_action]
    shape = (STATES, ACTIONS, STATES, ACTIONS, STATES)
    return (weight * target).unflatten(0, shape).sum((2, 3))


def test_backup_alone_reaches_the_exact_discounted_probabilities():
    objective, q_table = make_objective(), torch.zeros(STATES, ACTIONS, STATES).double()
    for _ in range(100):
        q_table = sweep(objective, q_table, torch.zeros_like(q_table))
    assert torch.allclose(q_table, exact_q(), atol=1e-6)
    _, high = objective.value_bounds(7.0)
    assert high == pytest.approx(5)
    assert (q_table <= high).all()


def test_flow_is_the_value_of_a_smooth_ball(fitted):
    width = 2 * DISTANCE / math.sqrt(2 * math.pi)  # σ: the ball is an interval of 2 ε
    smooth = torch.exp(-0.5 * ((PLACES[:, None] - PLACES) / width).square())
    expected = occupancy() @ smooth.double()
    error = flow_bound(*fitted) - expected
    assert expected.max() > 3
    assert error.abs().mean() < 0.1
    assert error.abs().max() < 0.4


def test_backup_with_the_flow_is_right_too_and_sooner(fitted):
    objective, bound = fitted[0], flow_bound(*fitted)
    exact, nothing = exact_q(), torch.zeros(STATES, ACTIONS, STATES).double()
    bounded = alone = nothing
    for number in range(100):
        bounded, alone = sweep(objective, bounded, bound), sweep(objective, alone, nothing)
        if number == 0:
            assert (bounded - exact).abs().mean() < 0.2 * (alone - exact).abs().mean()
    # Of five, the most that a value can be. A smooth ball is worth 0.3 outside of the sharp one and
    # the flow errs by as much; the backup adds no more than the largest excess of the bound.
    excess = float((bound - exact).amax())
    assert 0 < excess < 0.6
    assert (bounded > exact - 1e-6).all()
    assert (bounded < exact + excess).all()
    assert (bounded - exact).mean() < 0.3


@pytest.mark.parametrize(
    ("goal_dim", "volume"), [(1, 4.0), (2, 4 * math.pi), (3, 32 * math.pi / 3)]
)
def test_a_state_that_stays_at_the_goal_is_worth_no_more_than_that(goal_dim, volume):
    objective = UVDObjective(Goals(2.0))
    assert math.exp(objective.auxiliary.log_ball_volume(goal_dim)) == pytest.approx(volume)
    # The noise that the flow is fitted with makes a point's density just the inverse of the volume.
    seen = []
    flow = ConditionalFlow(goal_dim, goal_dim)
    flow.log_prob = lambda offset, _: seen.append(offset) or torch.zeros(len(offset))
    module = SimpleNamespace(
        goal_dim=goal_dim,
        goal_scale=torch.tensor(5.0),
        dynamics_inputs=lambda *inputs: inputs[-1],
        auxiliary=flow,
        policy=SquashedGaussianPolicy(1, 1, ()),
    )
    here = torch.ones(1, goal_dim)
    names = ("auxiliary_goal", "achieved_goal", "next_achieved_goal", "next_observation")
    batch = make_batch(make_transitions(here, **dict.fromkeys(names, here)), here, here)
    objective.auxiliary.evaluate(module, batch, here)
    noise = seen[1]  # noise of one standard deviation on a future that is where one is
    peak = 1 / (math.sqrt(2 * math.pi) * float(noise[0, 0])) ** goal_dim
    assert peak == pytest.approx(5.0**goal_dim / volume, rel=1e-4)


def test_bound_is_clamped():
    objective, module = make_objective(), make_module(make_objective())
    with torch.no_grad():  # a flow as steep as it can be, at all times
        module.auxiliary.writers[-1].bias[[0, 2]] = 50.0
        module.auxiliary.writers[-2].bias[[0, 2]] = 50.0
    bound = flow_bound(objective, module)
    assert float(bound.max()) == pytest.approx(5)
    assert (bound >= 0).all()


def test_every_coordinate_counts():
    objective = UVDObjective(Goals(0.05), discount=0.9)
    batch = judge(
        torch.tensor([[0.0, 0.04], [0.0, 0.08], [0.0, 1.0], [0.01, 0.0]]),
        next_achieved_goal=torch.tensor([[0.0, 0.0], [0.03, 0.03], [0.04, 0.0], [0.0, 0.0]]),
    )
    next_value = torch.full((4,), 2.0)
    backup = objective.reward_and_discount(batch, next_value)
    target = bellman_target(backup.reward, backup.discount, next_value)
    assert target.tolist() == pytest.approx([2.8, 1.8, 1.8, 2.8])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"goals": Goals(0)}, "success_distance is 0, but must be positive"),
        ({"discount": 1.0}, r"discount is 1\.0, but must be in \(0, 1\)"),
        ({"flow_hidden": 0}, "flow_hidden is 0, but must be at least 1"),
        ({"flow_layers": 1}, "flow_layers is 1, but must be at least 2"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        UVDObjective(**{"goals": Goals(0.05)} | settings)
