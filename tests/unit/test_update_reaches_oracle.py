"""`compute_update` itself, minimised on tables, reaches the exact solution of small MDPs.

The update is the learner's own. It is given tables instead of networks, in which each of its
expectations is exact: an action in [−1, 1] stands for the mixture that takes the second of two
actions with probability (1 + a) / 2, and a critic is linear in it. So what is tested is the update
and not its noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch, Inputs
from rllib_odac.agent.objectives import ODACObjective
from rllib_odac.agent.update import compute_update
from rllib_odac.maths.tabular import TabularODAC
from rllib_odac.replay.transitions import Transitions

STEPS = 2000
COPIES = 10  # of each state and action in a batch: a probability is a share of them


class TablePolicy(nn.Module):
    """π(a | s) of two actions; `sample` gives the mixture and its expected log-probability."""

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(num_states, dtype=torch.float64))

    def sample(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        logit = self.logit[state]
        second = torch.sigmoid(logit)
        log_probs = nn.functional.logsigmoid(torch.stack([-logit, logit]))
        expected = (1 - second) * log_probs[0] + second * log_probs[1]
        # The update adds log 2, as for a density on [−1, 1]; a uniform choice of two adds the same.
        return (2 * second - 1).unsqueeze(-1), expected


class TableCritics(nn.Module):
    """Two tables Q(s, a), linear in the mixture of actions."""

    def __init__(self, num_states: int) -> None:
        super().__init__()
        table = torch.ones(2, num_states, 2, dtype=torch.float64)
        table[1] = -3.0  # one critic begins too high, one too low
        self.table = nn.Parameter(table)

    def forward(self, state: Tensor, actions: Tensor, frozen: bool = False) -> Tensor:
        table = self.table.detach() if frozen else self.table
        second = (1 + actions.squeeze(-1)) / 2
        return (1 - second) * table[:, state, 0] + second * table[:, state, 1]


class TableDynamics(nn.Module):
    """A table log p(s' | s, a) over states in the place of a density over goals."""

    is_learned = True

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_states, 2, num_states, dtype=torch.float64))

    def forward(self, state_action: Tensor) -> tuple[Tensor, Tensor]:
        state, action = state_action.unbind(-1)
        log_prob = self.logits.log_softmax(-1)[state, action]
        return torch.zeros(len(state), 1, dtype=torch.int64), log_prob

    def log_prob(self, outcomes: Tensor, log_prob: Tensor) -> Tensor:
        return torch.stack([log_prob.gather(-1, outcome).squeeze(-1) for outcome in outcomes])


class Tables(nn.Module):
    """Tables with the interface of `ActorCritic`; targets follow the critics at once."""

    max_log_prob = 0.0  # that of a probability
    min_scale = 0.0
    auxiliary = None
    target_kl = 0.0

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.policy = TablePolicy(num_states)
        self.critic = self.target_critic = TableCritics(num_states)
        self.dynamics = TableDynamics(num_states)
        self.register_buffer("log_kl_weight", torch.zeros(()))  # weight one: the exact posterior
        self.register_buffer("goal_scale", torch.ones(()))


def all_transitions(mdp: TabularODAC) -> Batch:
    """Every state and action, with successors in shares that are their probabilities."""
    rows = []
    for state, action in np.ndindex(mdp.transitions.shape[:2]):
        counts = np.round(COPIES * mdp.transitions[state, action]).astype(int)
        np.testing.assert_allclose(counts / COPIES, mdp.transitions[state, action])
        rows += [(state, action, s) for s in np.repeat(np.arange(len(counts)), counts)]
    state, action, successor = torch.tensor(rows).unbind(-1)
    no = torch.zeros(len(rows), dtype=torch.bool)
    goal = torch.full_like(state, mdp.goal)
    mixture = (2.0 * action - 1).double().unsqueeze(-1)
    columns = (state, successor, state, successor, goal, mixture, no, no)
    inputs = Inputs(
        state_goal=state,
        next_state_goal=successor,
        state_action=torch.stack([state, action], -1),
        displacement=successor.unsqueeze(-1),  # the table's mean is zero: places as they are
        goal_offset=goal.unsqueeze(-1),
    )
    return Batch(Transitions(*columns), inputs, torch.zeros(2, len(rows), 1))


@dataclass
class Learned:
    value: np.ndarray
    policy: np.ndarray
    log_prob_goal: np.ndarray


def learn(mdp: TabularODAC) -> Learned:
    """Minimises the summed loss of `compute_update` with Adam."""
    tables, batch = Tables(len(mdp.transitions)), all_transitions(mdp)
    objective = ODACObjective(mdp.prior_discount)
    learning_rates = [
        {"params": [tables.policy.logit, tables.critic.table], "lr": 0.1},
        {"params": [tables.dynamics.logits], "lr": 1.0},
    ]
    optimizer = torch.optim.Adam(learning_rates)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        loss = compute_update(tables, objective, batch).total_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        states = torch.arange(len(mdp.transitions))
        actions, log_prob = tables.policy.sample(states, states)
        q_value = tables.critic(states, actions).amin(0)
        second = (1 + actions.squeeze(-1)) / 2
        return Learned(
            value=(q_value - log_prob - math.log(2)).numpy(),
            policy=torch.stack([1 - second, second], -1).numpy(),
            log_prob_goal=tables.dynamics.logits.log_softmax(-1)[..., mdp.goal].numpy(),
        )


def corridor() -> TabularODAC:
    """Deterministic: on, or back to the start; the goal is the last of five states."""
    here = np.arange(5)
    successors = np.stack([(here + 1) % 5, np.zeros_like(here)], axis=1)
    return TabularODAC(np.eye(5)[successors], 4, 0.9)


def scattered(seed: int) -> TabularODAC:
    """Deterministic: the first action leads round through all states, the second anywhere."""
    rng = np.random.default_rng(seed)
    successors = np.stack([np.roll(np.arange(6), -1), rng.integers(0, 6, 6)], 1)
    return TabularODAC(np.eye(6)[successors], 0, 0.8)


def slippery() -> TabularODAC:
    """Stochastic: start, edge, goal, and a pit that is left with a chance of one in five."""
    forward = [[0.1, 0.8, 0.0, 0.1], [0.0, 0.0, 0.6, 0.4], [0.5, 0.5, 0.0, 0.0], [0.2, 0, 0, 0.8]]
    careful = [[1.0, 0.0, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.6, 0.4], [0.0, 0, 0, 1.0]]
    return TabularODAC(np.stack([forward, careful], axis=1), 2, 0.9)


def test_tables_have_the_interface_of_the_networks() -> None:
    networks = ActorCritic(2, 2, 1, hidden=(4,), kl_weight=1.0)
    assert all(hasattr(networks, name) for name in vars(Tables) if not name.startswith("_"))
    for name, _ in [*Tables(2).named_children(), *Tables(2).named_buffers()]:
        assert hasattr(networks, name.split(".")[0])


@pytest.mark.parametrize("mdp", [corridor(), scattered(0)], ids=["corridor", "scattered"])
def test_deterministic(mdp: TabularODAC) -> None:
    learned, exact = learn(mdp), mdp.solve()
    np.testing.assert_allclose(learned.value, mdp.log_marginal_likelihood(), rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy, exact.policy, rtol=0.0, atol=1e-2)
    impossible = mdp.transitions[:, :, mdp.goal] == 0.0
    assert (learned.log_prob_goal[impossible] < -10.0).all()


def test_stochastic() -> None:
    mdp = slippery()
    learned, exact = learn(mdp), mdp.solve(per_sample=True)
    assert (exact.value - mdp.solve().value).min() > 0.05  # the fixed points can be told apart
    np.testing.assert_allclose(learned.value, exact.value, rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy, exact.policy, rtol=0.0, atol=1e-2)
    assert (learned.value < mdp.log_marginal_likelihood()).all()


def test_a_goal_that_cannot_be_reached() -> None:
    successors = np.array([[1, 2], [1, 0], [2, 2]])  # the last state is a dead end
    mdp = TabularODAC(np.eye(3)[successors], 1, 0.9)
    learned, exact = learn(mdp), mdp.solve()
    assert exact.value[2] == -np.inf
    assert learned.value[2] < -10.0
    np.testing.assert_allclose(learned.value[:2], exact.value[:2], rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy[:2], exact.policy[:2], rtol=0.0, atol=1e-2)
