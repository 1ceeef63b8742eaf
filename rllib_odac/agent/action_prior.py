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
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from rllib_odac.agent.networks import SquashedGaussianPolicy, call_frozen, mlp
from rllib_odac.maths.losses import action_prior_kl, gaussian_kl

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

    def kl(
        self, policy: SquashedGaussianPolicy, at: PriorInputs, actions: Tensor, log_prob: Tensor
    ) -> Tensor:
        """(B,) KL(π(·|s,g) ‖ p(·|s)) in nats, or an estimate of it from one action.

        Differentiable to the policy, and to nothing of the prior.

        Args:
            policy: π.
            at: B states.
            actions: (B, A) of π.
            log_prob: (B,) their log π(a | s, g).
        """
        return action_prior_kl(log_prob, actions)

    def loss(self, at: PriorInputs, actions: Tensor) -> Tensor | None:
        """() what a learned prior minimises over replayed actions (B, A), or None."""
        return None

    def follow(self, policy: SquashedGaussianPolicy, num_updates: int) -> None:
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

    def kl(
        self, policy: SquashedGaussianPolicy, at: PriorInputs, actions: Tensor, log_prob: Tensor
    ) -> Tensor:
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

    def kl(
        self, policy: SquashedGaussianPolicy, at: PriorInputs, actions: Tensor, log_prob: Tensor
    ) -> Tensor:
        assert at.state is not None
        likelihood: Tensor = call_frozen(self, at.state, actions)
        return log_prob - likelihood

    def loss(self, at: PriorInputs, actions: Tensor) -> Tensor | None:
        likelihood: Tensor = self(at.state, actions)
        return -likelihood.mean()


class PreviousPolicyPrior(ActionPrior):
    """The policy of some updates ago, copied anew every so often.

    Both are Gaussians behind the same squashing, which the KL does not see: it has a closed form.

    Args:
        policy: A policy of the same shape, which becomes the copy.
        interval: Updates between two copies.
    """

    def __init__(self, policy: SquashedGaussianPolicy, interval: int) -> None:
        super().__init__()
        self.policy = policy.requires_grad_(False)
        self._interval = interval

    def kl(
        self, policy: SquashedGaussianPolicy, at: PriorInputs, actions: Tensor, log_prob: Tensor
    ) -> Tensor:
        return gaussian_kl(*policy(at.state_goal), *self.policy(at.state_goal)).sum(-1)

    @torch.no_grad()
    def follow(self, policy: SquashedGaussianPolicy, num_updates: int) -> None:
        if num_updates % self._interval == 0:
            self.policy.load_state_dict(policy.state_dict())


def make_action_prior(
    kind: str | ActionPriorFactory,
    policy: SquashedGaussianPolicy,
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
    if kind == UNIFORM:
        return ActionPrior()
    if kind == BEHAVIOR:
        return BehaviorPrior(state_dim, policy.action_dim, hidden, num_components)
    if kind == PREVIOUS:
        return PreviousPolicyPrior(copy.deepcopy(policy), interval)
    return GivenPrior(find_factory(kind))


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
