"""`compute_update` itself, minimised on tables, reaches the exact solution of small MDPs.

The update is the learner's own. It is given tables instead of networks, in which each of its
expectations is exact: an action in [−1, 1] stands for the mixture that takes the second of two
actions with probability (1 + a) / 2, and a critic is linear in it. So what is tested is the update
and not its noise.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch, Inputs
from rllib_odac.agent.objectives import HorizonObjective, Objective, ODACObjective
from rllib_odac.agent.update import compute_update
from rllib_odac.maths.tabular import TabularODAC
from rllib_odac.replay.transitions import Transitions

STEPS = 1200
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

    def log_prob(self, goals: Tensor, outcomes: Tensor, log_prob: Tensor) -> Tensor:
        return torch.stack([log_prob.gather(-1, outcome).squeeze(-1) for outcome in outcomes])

    def log_prob_of_staying(self, goal: Tensor, to_goal: Tensor) -> Tensor:
        return torch.where(to_goal == 0, 0.0, -50.0)


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


def all_transitions(mdp: TabularODAC, terminal: Collection[int] = ()) -> Batch:
    """Every state and action, with successors in shares that are their probabilities.

    Terminal states end an episode: nothing is seen of what follows.
    """
    rows = []
    for state, action in np.ndindex(mdp.transitions.shape[:2]):
        if state in terminal:
            continue
        counts = np.round(COPIES * mdp.transitions[state, action]).astype(int)
        np.testing.assert_allclose(counts / COPIES, mdp.transitions[state, action])
        rows += [(state, action, s) for s in np.repeat(np.arange(len(counts)), counts)]
    state, action, successor = torch.tensor(rows).unbind(-1)
    no = torch.zeros(len(rows), dtype=torch.bool)
    goal = torch.full_like(state, mdp.goal)
    mixture = (2.0 * action - 1).double().unsqueeze(-1)
    ends = torch.isin(successor, torch.tensor(list(terminal), dtype=torch.int64))
    columns = (state, successor, state, successor, goal, mixture, ends, no)
    inputs = Inputs(
        state_goal=state,
        next_state_goal=successor,
        state_action=torch.stack([state, action], -1),
        displacement=successor.unsqueeze(-1),  # the table's mean is zero: places as they are
        goal_offset=goal.unsqueeze(-1),
        goal=goal.unsqueeze(-1),
    )
    return Batch(Transitions(*columns), inputs, torch.zeros(2, len(rows), 1))


@dataclass
class Learned:
    value: np.ndarray
    policy: np.ndarray
    log_prob_goal: np.ndarray


def learn(mdp: TabularODAC, terminal: Collection[int] = ()) -> Learned:
    """The infinite horizon, from every transition."""
    batch, objective = all_transitions(mdp, terminal), ODACObjective(mdp.prior_discount)
    return minimise(objective, batch, len(mdp.transitions), mdp.goal)


def learn_by(mdp: TabularODAC, horizon: int) -> Learned:
    """The horizon T, from every transition at every time; a state's number is t S + s."""
    size, batch = len(mdp.transitions), all_transitions(mdp)
    times = torch.arange(horizon).repeat_interleave(len(batch.transitions.observation))
    state, successor, mixture = (
        column.repeat(horizon, *[1] * (column.dim() - 1))
        for column in (*batch.transitions[:2], batch.transitions.actions)
    )
    state, successor = state + times * size, successor + (times + 1) * size
    no = torch.zeros(len(times), dtype=torch.bool)
    goal = torch.full_like(state, horizon * size + mdp.goal)
    seen = [torch.stack([s, t / horizon], -1) for s, t in ((state, times), (successor, times + 1))]
    inputs = Inputs(
        state_goal=state,
        next_state_goal=successor,
        state_action=torch.stack([state, ((mixture.squeeze(-1) + 1) / 2).long()], -1),
        displacement=successor.unsqueeze(-1),
        goal_offset=goal.unsqueeze(-1),
        goal=goal.unsqueeze(-1),
    )
    transitions = Transitions(*seen, state, successor, goal, mixture, no, no)
    noise = torch.zeros(2, len(times), 1)
    last = (horizon + 1) * size
    return minimise(HorizonObjective(), Batch(transitions, inputs, noise), last, goal[0].item())


def minimise(objective: Objective, batch: Batch, num_states: int, goal: int) -> Learned:
    """Minimises the summed loss of `compute_update` with Adam."""
    tables = Tables(num_states)
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
        states = torch.arange(num_states)
        actions, log_prob = tables.policy.sample(states, states)
        q_value = tables.critic(states, actions).amin(0)
        second = (1 + actions.squeeze(-1)) / 2
        return Learned(
            value=(q_value - log_prob - math.log(2)).numpy(),
            policy=torch.stack([1 - second, second], -1).numpy(),
            log_prob_goal=tables.dynamics.logits.log_softmax(-1)[..., goal].numpy(),
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


def drifting() -> TabularODAC:
    """Stochastic: every state may follow every other one."""
    first = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]]
    second = [[0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0.2, 0.1, 0.7]]
    return TabularODAC(np.stack([first, second], axis=1), 2, 0.9)


def race() -> TabularODAC:
    """Two states on the way, then the goal or a fall, both of which are never left."""
    hasty = [[0, 0.4, 0.4, 0.2], [0, 0, 0.7, 0.3]]
    careful = [[0.3, 0.6, 0.1, 0.0], [0.5, 0.2, 0.2, 0.1]]
    ends = [[0, 0, 1, 0], [0, 0, 0, 1]]
    return TabularODAC(np.stack([[*hasty, *ends], [*careful, *ends]], axis=1), 2, 0.9)


def one_step() -> TabularODAC:
    """Every step ends the episode, in one of three states that are never left."""
    first = [[0, 0.5, 0.5, 0.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    second = [[0, 0.1, 0.2, 0.7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    return TabularODAC(np.stack([first, second], axis=1), 1, 0.9)


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


@pytest.mark.parametrize(
    ("mdp", "terminal"),
    [(race(), {2}), (race(), {3}), (race(), {2, 3}), (one_step(), {1, 2, 3})],
    ids=["on success", "on a fall", "on both", "at every step"],
)
def test_ending_an_episode_changes_no_value(mdp: TabularODAC, terminal: set[int]) -> None:
    learned, exact = learn(mdp, terminal), mdp.solve(per_sample=True)
    seen = [state for state in range(len(mdp.transitions)) if state not in terminal and state != 3]
    np.testing.assert_allclose(learned.value[seen], exact.value[seen], rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy[seen], exact.policy[seen], rtol=0.0, atol=1e-2)


@pytest.mark.parametrize(
    ("mdp", "horizon"),
    [(corridor(), 4), (scattered(1), 3), (slippery(), 1), (drifting(), 3)],
    ids=["corridor", "scattered", "slippery", "drifting"],
)
def test_a_known_time(mdp: TabularODAC, horizon: int) -> None:
    learned, exact = learn_by(mdp, horizon), mdp.solve(horizon=horizon)
    size = len(mdp.transitions)
    likely = exact.value > -20  # tables of logarithms do not get to −inf
    assert likely.any()
    np.testing.assert_allclose(learned.value[:size][likely], exact.value[likely], rtol=0, atol=0.02)
    assert (learned.value[:size][~likely] < -8).all()
