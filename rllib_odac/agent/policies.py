"""Policies π(a | s, g): a squashed Gaussian over a box, and a categorical one over finitely many.

`sample` and `mode` give actions to act with, a one-hot row for one of finitely many. `mixture`
gives what expectations in an update are taken over: one sample of a Gaussian, and of a categorical
policy the row of its probabilities, so that every expectation is an exact sum (Christodoulou 2019,
arXiv 1910.07207).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.networks import FourierFeatures, mlp
from rllib_odac.maths.losses import LOG_2, gaussian_kl

LOG_STD_RANGE = (-5.0, 2.0)
LARGEST_ACTION = 0.999  # of whose inverse tanh a likelihood is taken: that of 1 is infinite


def _log_slope(raw: Tensor) -> Tensor:
    """log(1 − tanh²(u)) = 2 (log 2 − u − log(1 + e⁻²ᵘ)), without cancellation at large |u|."""
    return 2 * (LOG_2 - raw - F.softplus(-2 * raw))


class _Policy(nn.Module):
    """A network from inputs to what a distribution of actions is made of.

    Args:
        input_dim: Width of the normalised input.
        action_dim: A, or the number n of actions where there are finitely many.
        hidden: Widths of the hidden layers.
        layer_norm: Normalise each hidden layer before its ReLU.
        features: Of the input, which it sees in its place.
    """

    outputs_per_action: ClassVar[int]

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: bool = False,
        features: FourierFeatures | None = None,
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        outputs = self.outputs_per_action * action_dim
        self.net = mlp([input_dim, *hidden, outputs], layer_norm, features)


class SquashedGaussianPolicy(_Policy):
    """π(a | s, g): a Gaussian squashed by tanh into [−1, 1]^A (Haarnoja et al. 2018, appendix C).

    Args:
        As of `_Policy`.
    """

    outputs_per_action = 2  # mean and deviation

    @property
    def target_kl(self) -> float:
        """KL to the uniform distribution, in nats, of a policy whose entropy is −A nats."""
        return self.action_dim * (1 + LOG_2)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, each (B, A)."""
        mean, log_std = self.net(inputs).chunk(2, dim=-1)
        low, high = LOG_STD_RANGE
        return mean, torch.tanh(log_std) * (0.5 * (high - low)) + 0.5 * (high + low)

    def mode(self, inputs: Tensor) -> Tensor:
        """(B, A) deterministic actions: the squashed mean, always inside the bounds."""
        mean, _ = self(inputs)
        return torch.tanh(mean)

    def sample(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions for given standard normal noise, and their log-probability.

        Args:
            inputs: (B, I).
            noise: (B, A) standard normal. Given from outside so that the pass is a function.

        Returns:
            (B, A) actions in [−1, 1] and (B,) log π(a | s, g), both differentiable.
        """
        mean, log_std = self(inputs)
        raw = torch.addcmul(mean, log_std.exp(), noise)
        log_prob = -0.5 * noise.square() - log_std - _log_slope(raw)
        constant = 0.5 * math.log(2 * math.pi)
        return torch.tanh(raw), log_prob.sum(-1) - noise.shape[-1] * constant

    def mixture(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What expectations over π are estimated from: a sample."""
        return self.sample(inputs, noise)

    def expectation(self, function: Callable[[Tensor], Tensor], mixture: Tensor) -> Tensor:
        """(B,) E[f(a)] of a function (B,) of actions (B, A), as `mixture` gives it."""
        return function(mixture)

    def log_prob(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """(B,) log π(a | s, g) of given actions (B, A), such as those of a log.

        Actions at the bounds count as ±0.999.
        """
        mean, log_std = self(inputs)
        raw = torch.atanh(actions.clamp(-LARGEST_ACTION, LARGEST_ACTION))
        log_prob: Tensor = -0.5 * ((raw - mean) * torch.exp(-log_std)).square() - log_std
        constant = 0.5 * math.log(2 * math.pi)
        return torch.sum(log_prob - _log_slope(raw), dim=-1) - actions.shape[-1] * constant

    def kl_to(self, other: nn.Module, inputs: Tensor) -> Tensor:
        """(B,) KL(π ‖ other) for another of the same shape; the KL does not see the squashing."""
        return gaussian_kl(*self(inputs), *other(inputs)).sum(-1)


class CategoricalPolicy(_Policy):
    """π(a | s, g) over n actions.

    Args:
        As of `_Policy`.
    """

    outputs_per_action = 1

    @property
    def target_kl(self) -> float:
        """KL to a uniform choice, in nats: half of that of a policy without chance."""
        return 0.5 * math.log(self.action_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, n) log π(a | s, g) of each action."""
        log_probs: Tensor = self.net(inputs).log_softmax(-1)
        return log_probs

    def mode(self, inputs: Tensor) -> Tensor:
        """(B, n) the likeliest action, one-hot."""
        return F.one_hot(self.net(inputs).argmax(-1), self.action_dim).to(inputs.dtype)

    def sample(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot actions (B, n) for standard normal noise (B, n), and log π (B,) of them."""
        log_probs = self(inputs)
        uniform = torch.special.ndtr(noise.double())  # of a normal one
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-15, 1 - 1e-15)))
        actions = F.one_hot((log_probs + gumbel).argmax(-1), self.action_dim).to(log_probs.dtype)
        return actions, (log_probs * actions).sum(-1)

    def mixture(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What expectations over π are taken over: π (B, n) itself and log π (B, n)."""
        log_probs = self(inputs)
        return log_probs.exp(), log_probs

    def expectation(self, function: Callable[[Tensor], Tensor], mixture: Tensor) -> Tensor:
        """(B,) Σ_a π(a) f(a) of a function (B,) of one-hot actions (B, n), by n calls."""
        each = torch.eye(self.action_dim, dtype=mixture.dtype, device=mixture.device)
        values = torch.stack([function(action.expand_as(mixture)) for action in each], dim=-1)
        return (mixture * values).sum(-1)

    def log_prob(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """(B,) log π(a | s, g) of given one-hot actions (B, n)."""
        return torch.sum(self(inputs) * actions, dim=-1)

    def kl_to(self, other: nn.Module, inputs: Tensor) -> Tensor:
        """(B,) KL(π ‖ other) for another of the same shape."""
        log_probs: Tensor = self(inputs)
        kl: Tensor = (log_probs.exp() * (log_probs - other(inputs))).sum(-1)
        return kl


Policy: TypeAlias = SquashedGaussianPolicy | CategoricalPolicy
