"""p(a | s), the distribution of actions that the posterior is taken against.

The posterior policy is π*(a|s,g) ∝ p(a|s) exp Q(s,a,g), with value V = log E_{a~p} exp Q. With p
uniform on the box that is soft actor-critic; with p the behaviour that made a log it stays within
the log (Levine et al. 2020, arXiv 2005.01643, section 4); with p the policy of a while ago each
move is a step of policy iteration that cannot lower the bound.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from rllib_odac.agent.networks import call_frozen, mlp
from rllib_odac.agent.policies import CategoricalPolicy, Policy
from rllib_odac.maths.losses import action_prior_kl

UNIFORM, BEHAVIOR, PREVIOUS = "uniform", "behavior", "previous"
LOG_STD_RANGE = (-3.0, 1.0)  # of a component of the behaviour: a sharper one follows single actions

ActionPriorFactory = Callable[[Tensor], Distribution]


class PriorInputs(NamedTuple):
    """B states in the forms that priors take.

    Attributes:
        observation: (B, D) in the environment's units.
        state: (B, D + G) normalised observation and achieved goal; None where no prior needs it.
        state_goal: (B, D + 2G) the policy's input.
    """

    observation: Tensor
    state: Tensor | None
    state_goal: Tensor


class ActionPrior(nn.Module):
    """The uniform distribution on [−1, 1]^A, and the interface of the others."""

    needs_state = False  # whether `PriorInputs.state` is looked at

    def kl(self, policy: Policy, at: PriorInputs, actions: Tensor, log_prob: Tensor) -> Tensor:
        """(B,) KL(π(·|s,g) ‖ p(·|s)) in nats, or an estimate of it from one action.

        Differentiable to the policy, and to nothing of the prior.

        Args:
            policy: π.
            at: B states.
            actions: (B, A) of π, as its `mixture` gives them.
            log_prob: Their log π(a | s, g), as `mixture` gives it.
        """
        return action_prior_kl(log_prob, actions)

    def loss(self, at: PriorInputs, actions: Tensor) -> Tensor | None:
        """() what a learned prior minimises over replayed actions (B, A), or None."""
        return None

    def follow(self, policy: Policy, num_updates: int) -> None:
        """Moves on to the policy after so many updates, if the prior is one that moves."""


class GivenPrior(ActionPrior):
    """A distribution that the user gives.

    Args:
        factory: Of observations (B, D) in the environment's units a `torch.distributions` object
            over actions in [−1, 1]^A, of batch shape (B,) and event shape (A,), or of batch shape
            (B, A); constant, so without parameters that are trained.
    """

    def __init__(self, factory: ActionPriorFactory) -> None:
        super().__init__()
        self._factory = factory

    def kl(self, policy: Policy, at: PriorInputs, actions: Tensor, log_prob: Tensor) -> Tensor:
        return action_prior_kl(log_prob, actions, self._factory(at.observation))


class BehaviorPrior(ActionPrior):
    """π_β(a | s), the behaviour in the replay, by maximum likelihood.

    A mixture of K diagonal Gaussians whose coordinates are truncated to [−1, 1], a density on the
    box also where logged actions were clipped to its faces, which a squashed one has no place for.

    Args:
        state_dim: D + G.
        action_dim: A.
        hidden: Widths of the hidden layers.
        num_components: K.
    """

    needs_state = True

    def __init__(
        self, state_dim: int, action_dim: int, hidden: Sequence[int], num_components: int
    ) -> None:
        super().__init__()
        self._shape = (num_components, action_dim)
        self.net = mlp([state_dim, *hidden, num_components * (1 + 2 * action_dim)])

    def forward(self, state: Tensor, actions: Tensor) -> Tensor:
        """(B,) log π_β(a | s) of actions (B, A) in states (B, D + G)."""
        num_components, action_dim = self._shape
        said = self.net(state).unflatten(-1, (num_components, 1 + 2 * action_dim))
        weight, mean, log_std = said.split([1, action_dim, action_dim], dim=-1)
        mean = torch.tanh(mean)
        low, high = LOG_STD_RANGE
        log_std = torch.tanh(log_std) * (0.5 * (high - low)) + 0.5 * (high + low)
        inverse = torch.exp(-log_std)
        standard = (actions.unsqueeze(-2) - mean) * inverse
        mass = torch.special.ndtr((1 - mean) * inverse) - torch.special.ndtr((-1 - mean) * inverse)
        log_prob = -0.5 * standard.square() - log_std - mass.log() - 0.5 * math.log(2 * math.pi)
        log_weight = weight.squeeze(-1).log_softmax(-1)
        return torch.logsumexp(log_weight + log_prob.sum(-1), dim=-1)

    def kl(self, policy: Policy, at: PriorInputs, actions: Tensor, log_prob: Tensor) -> Tensor:
        assert at.state is not None
        likelihood: Tensor = call_frozen(self, at.state, actions)
        return log_prob - likelihood

    def loss(self, at: PriorInputs, actions: Tensor) -> Tensor | None:
        likelihood: Tensor = self(at.state, actions)
        return -likelihood.mean()


class PreviousPolicyPrior(ActionPrior):
    """The policy of some updates ago, copied anew every so often; the KL has a closed form.

    Args:
        policy: A policy of the same shape, which becomes the copy.
        interval: Updates between two copies.
    """

    def __init__(self, policy: Policy, interval: int) -> None:
        super().__init__()
        self.policy = policy.requires_grad_(False)
        self._interval = interval

    def kl(self, policy: Policy, at: PriorInputs, actions: Tensor, log_prob: Tensor) -> Tensor:
        return policy.kl_to(self.policy, at.state_goal)

    @torch.no_grad()
    def follow(self, policy: Policy, num_updates: int) -> None:
        if num_updates % self._interval == 0:
            self.policy.load_state_dict(policy.state_dict())


class CategoricalPrior(ActionPrior):
    """The uniform choice of one of n actions, and the interface of other priors over them."""

    def kl(self, policy: Policy, at: PriorInputs, actions: Tensor, log_prob: Tensor) -> Tensor:
        """(B,) the exact Σ_a π(a) (log π(a) − log p(a)), of π (B, n) and log π (B, n)."""
        return (actions * (log_prob - self.log_probs(at, actions.shape[-1]))).sum(-1)

    def log_probs(self, at: PriorInputs, num_actions: int) -> Tensor | float:
        """(B, n) constant log p(a | s) of each action, or one number for all of them."""
        return -math.log(num_actions)


class GivenCategoricalPrior(CategoricalPrior):
    """A distribution that the user gives: of observations a `Categorical` of batch shape (B,)."""

    def __init__(self, factory: ActionPriorFactory) -> None:
        super().__init__()
        self._factory = factory

    def log_probs(self, at: PriorInputs, num_actions: int) -> Tensor | float:
        distribution: Any = self._factory(at.observation)
        logits: Tensor = distribution.logits
        return logits.log_softmax(-1)


class CategoricalBehaviorPrior(CategoricalPrior):
    """π_β(a | s) over n actions, the behaviour in the replay, by maximum likelihood."""

    needs_state = True

    def __init__(self, state_dim: int, num_actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = mlp([state_dim, *hidden, num_actions])

    def forward(self, state: Tensor) -> Tensor:
        """(B, n) log π_β(a | s) in states (B, D + G)."""
        log_probs: Tensor = self.net(state).log_softmax(-1)
        return log_probs

    def log_probs(self, at: PriorInputs, num_actions: int) -> Tensor | float:
        assert at.state is not None
        log_probs: Tensor = call_frozen(self, at.state)
        return log_probs

    def loss(self, at: PriorInputs, actions: Tensor) -> Tensor | None:
        assert at.state is not None
        log_probs: Tensor = self(at.state)
        return -(log_probs * actions).sum(-1).mean()


def make_action_prior(
    kind: str | ActionPriorFactory,
    policy: Policy,
    state_dim: int,
    hidden: Sequence[int],
    *,
    num_components: int,
    interval: int,
) -> ActionPrior:
    """The prior of a setting.

    Args:
        kind: "uniform", "behavior", "previous", or what `find_factory` takes.
        policy: π, of which "previous" is a copy.
        state_dim: D + G.
        hidden: Widths of the hidden layers of what is learned.
        num_components: Of "behavior".
        interval: Of "previous".
    """
    is_finite = isinstance(policy, CategoricalPolicy)
    if kind == UNIFORM:
        return CategoricalPrior() if is_finite else ActionPrior()
    if kind == PREVIOUS:
        return PreviousPolicyPrior(copy.deepcopy(policy), interval)
    if kind == BEHAVIOR and is_finite:
        return CategoricalBehaviorPrior(state_dim, policy.action_dim, hidden)
    if kind == BEHAVIOR:
        return BehaviorPrior(state_dim, policy.action_dim, hidden, num_components)
    return (GivenCategoricalPrior if is_finite else GivenPrior)(find_factory(kind))


def find_factory(given: str | ActionPriorFactory) -> ActionPriorFactory:
    """A function that makes a prior: itself, or what "MODULE:FUNCTION" names.

    Raises:
        ValueError: If there is none.
    """
    if callable(given):
        return given
    module, _, name = given.partition(":")
    try:
        factory: ActionPriorFactory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"action_prior is '{given}', which cannot be imported ({error}); it must be "
            f'"{UNIFORM}", "{BEHAVIOR}", "{PREVIOUS}", a function of observations that makes a '
            'distribution, or "MODULE:FUNCTION" of one.'
        ) from None
    return factory
