"""Tables in the place of networks, and `compute_update` minimised over them.

Each expectation of an update is exact in them: an action in [−1, 1] stands for the mixture that
takes the second of two actions with probability (1 + a) / 2, and a critic is linear in it. So what
is tested is the update and not its noise.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rllib_odac.agent.action_prior import ActionPrior, CategoricalPrior, PriorInputs
from rllib_odac.agent.batch import Batch, Inputs
from rllib_odac.agent.critics import ActionCritics
from rllib_odac.agent.objectives import HorizonObjective, Objective, ODACObjective
from rllib_odac.agent.policies import CategoricalPolicy
from rllib_odac.agent.rules import Rules
from rllib_odac.agent.update import compute_update
from rllib_odac.maths.tabular import TabularODAC
from rllib_odac.replay.transitions import Transitions

STEPS = 1200
EXPLICIT = Rules()
COPIES = 10  # of each state and action in a batch: a probability is a share of them


class TablePolicy(nn.Module):
    """π(a | s) of two actions; `mixture` gives it with its expected log-probability."""

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(num_states, dtype=torch.float64))

    def mixture(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        logit = self.logit[state]
        second = torch.sigmoid(logit)
        log_probs = nn.functional.logsigmoid(torch.stack([-logit, logit]))
        expected = (1 - second) * log_probs[0] + second * log_probs[1]
        # The update adds log 2, as for a density on [−1, 1]; a uniform choice of two adds the same.
        return (2 * second - 1).unsqueeze(-1), expected

    def log_prob(self, state: Tensor, actions: Tensor) -> Tensor:
        """Of pure actions, −1 or 1."""
        return nn.functional.logsigmoid(actions.squeeze(-1) * self.logit[state])


class TablePrior(ActionPrior):
    """p(a | s) of two actions: given, or learned from uniform on."""

    def __init__(self, probabilities: np.ndarray, learned: bool = False) -> None:
        super().__init__()
        given = torch.tensor(np.log(probabilities))
        self.logits = nn.Parameter(torch.zeros_like(given) if learned else given, learned)

    def kl(self, policy: nn.Module, at: PriorInputs, actions: Tensor, log_prob: Tensor) -> Tensor:
        log_p = self.logits.detach().log_softmax(-1)[at.state_goal]
        second = (1 + actions.squeeze(-1)) / 2
        return log_prob - (1 - second) * log_p[:, 0] - second * log_p[:, 1]

    def loss(self, at: PriorInputs, actions: Tensor) -> Tensor | None:
        if not self.logits.requires_grad:
            return None
        taken = ((1 + actions) / 2).long()
        return -self.logits.log_softmax(-1)[at.state_goal].gather(-1, taken).mean()


class TableValue(nn.Module):
    """A table V(s)."""

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_states, 1, dtype=torch.float64))

    def forward(self, state: Tensor) -> Tensor:
        return self.table[state]


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

    def lowest(
        self, state: Tensor, actions: Tensor, chosen: None = None, frozen: bool = False
    ) -> Tensor:
        return self(state, actions, frozen).amin(0)


class TableDynamics(nn.Module):
    """A table log p(s' | s, a) over states in the place of a density over goals."""

    is_learned = True

    def __init__(self, num_states: int, num_actions: int = 2) -> None:
        super().__init__()
        shape = num_states, num_actions, num_states
        self.logits = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def forward(self, state_action: Tensor) -> tuple[Tensor, Tensor]:
        state, action = state_action.unbind(-1)
        log_prob = self.logits.log_softmax(-1)[state, action]
        return torch.zeros(len(state), 1, dtype=torch.int64), log_prob

    def member_log_probs(
        self, goals: Tensor, outcomes: Tensor, displacement: Tensor, log_prob: Tensor
    ) -> Tensor:
        return torch.stack([log_prob.gather(-1, outcome).squeeze(-1) for outcome in outcomes])

    def mixed(self, log_probs: Tensor) -> Tensor:
        return log_probs

    def disagreement(self, displacement: Tensor) -> None:
        return None

    def log_prob_of_staying(self, goal: Tensor, to_goal: Tensor) -> Tensor:
        return torch.where(to_goal == 0, 0.0, -50.0)


class Tables(nn.Module):
    """Tables with the interface of `ActorCritic`; targets follow the critics at once."""

    max_log_prob = 0.0  # that of a probability
    min_scale = 0.0
    auxiliary = None
    target_kl = 0.0
    action_dim = 1

    def __init__(
        self, num_states: int, rules: Rules = EXPLICIT, prior: ActionPrior | None = None
    ) -> None:
        super().__init__()
        self.rules = rules
        self.action_prior = ActionPrior() if prior is None else prior
        self.state_value = TableValue(num_states)
        self.policy = TablePolicy(num_states)
        self.critic = self.target_critic = TableCritics(num_states)
        self.dynamics = TableDynamics(num_states)
        self.register_buffer("log_kl_weight", torch.zeros(()))  # weight one: the exact posterior
        self.register_buffer("goal_scale", torch.ones(()))


def all_transitions(
    mdp: TabularODAC, terminal: Collection[int] = (), behavior: np.ndarray | None = None
) -> Batch:
    """Every state and action, with successors in shares that are their probabilities.

    Terminal states end an episode: nothing is seen of what follows. A `behavior` (S, A) takes the
    actions in these shares, of which each is a multiple of a tenth.
    """
    rows = []
    for state, action in np.ndindex(mdp.transitions.shape[:2]):
        if state in terminal:
            continue
        counts = np.round(COPIES * mdp.transitions[state, action]).astype(int)
        np.testing.assert_allclose(counts / COPIES, mdp.transitions[state, action])
        if behavior is not None:
            counts = counts * round(COPIES * behavior[state, action])
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
    state_value: np.ndarray


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


def minimise(
    objective: Objective,
    batch: Batch,
    num_states: int,
    goal: int,
    tables: Tables | None = None,
    steps: int = STEPS,
) -> Learned:
    """What tables are when `descend` is done with them."""
    tables = tables or Tables(num_states)
    descend(objective, batch, tables, steps)
    with torch.no_grad():
        states = torch.arange(num_states)
        actions, log_prob = tables.policy.mixture(states, states)
        q_value = tables.critic.lowest(states, actions)
        at = PriorInputs(states, states, states)
        second = (1 + actions.squeeze(-1)) / 2
        return Learned(
            value=(q_value - tables.action_prior.kl(tables.policy, at, actions, log_prob)).numpy(),
            policy=torch.stack([1 - second, second], -1).numpy(),
            log_prob_goal=tables.dynamics.logits.log_softmax(-1)[..., goal].numpy(),
            state_value=tables.state_value.table.squeeze(-1).numpy(),
        )


def descend(
    objective: Objective, batch: Batch, tables: Tables, steps: int = STEPS, lr: float = 0.1
) -> None:
    """Minimises the summed loss of `compute_update` with Adam."""
    own = [p for name, p in tables.named_parameters() if not name.startswith("dynamics")]
    learning_rates = [
        {"params": own, "lr": lr},
        {"params": [tables.dynamics.logits], "lr": 1.0},
    ]
    optimizer = torch.optim.Adam(learning_rates)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = compute_update(tables, objective, batch).total_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


class ChoiceTables(Tables):
    """The product's own policy and critics over finitely many actions, of one-hot states.

    Without hidden layers they are tables.
    """

    def __init__(self, num_states: int, num_actions: int, hidden: tuple[int, ...] = ()) -> None:
        super().__init__(num_states, prior=CategoricalPrior())
        self.policy = CategoricalPolicy(num_states, num_actions, hidden).double()
        self.critic = ActionCritics(num_states, num_actions, hidden).double()
        self.target_critic = self.critic
        self.dynamics = TableDynamics(num_states, num_actions)


def learn_choices(mdp: TabularODAC, hidden: tuple[int, ...], lr: float) -> tuple[Tensor, Tensor]:
    """V(s) (S,) and π(a | s) (S, n) of `ChoiceTables`, from every transition."""
    num_states, num_actions = mdp.transitions.shape[:2]
    batch, states = all_transitions(mdp), torch.eye(num_states, dtype=torch.float64)
    state, action = batch.inputs.state_action.unbind(-1)
    chosen = torch.eye(num_actions, dtype=torch.float64)[action]
    batch = batch._replace(
        transitions=batch.transitions._replace(actions=chosen),
        inputs=batch.inputs._replace(
            state_goal=states[state], next_state_goal=states[batch.inputs.next_state_goal]
        ),
    )
    torch.manual_seed(0)
    tables = ChoiceTables(num_states, num_actions, hidden)
    descend(ODACObjective(mdp.prior_discount), batch, tables, lr=lr)
    with torch.no_grad():
        policy, log_prob = tables.policy.mixture(states, states)
        at = PriorInputs(states, states, states)
        kl = tables.action_prior.kl(tables.policy, at, policy, log_prob)
        return tables.critic.lowest(states, policy) - kl, policy


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
