"""The networks of the actor-critic as plain PyTorch modules, without anything of RLlib.

They take normalised inputs. Critics are evaluated together in batched products, because small
matrices are bound by overhead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.maths.losses import LOG_2

LOG_STD_RANGE = (-5.0, 2.0)
LARGEST_ACTION = 0.999  # of whose inverse tanh a likelihood is taken: that of 1 is infinite
STD_FLOOR = 1e-4  # of normalised features, in their units


def mlp(sizes: Sequence[int], layer_norm: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them: sizes = [inputs, hidden..., outputs].

    With `layer_norm` each hidden layer is normalised before its ReLU.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers.append(nn.Linear(inputs, outputs))
        if layer_norm:
            layers.append(nn.LayerNorm(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def call_frozen(module: nn.Module, *inputs: Tensor) -> Any:
    """What a module says, differentiable to its inputs but not to its parameters."""
    constants = {name: value.detach() for name, value in module.named_parameters()}
    return torch.func.functional_call(module, constants, inputs)


class SquashedGaussianPolicy(nn.Module):
    """π(a | s, g): a Gaussian squashed by tanh into [−1, 1]^A (Haarnoja et al. 2018, appendix C).

    Args:
        input_dim: Width of the normalised input.
        action_dim: A.
        hidden: Widths of the hidden layers.
        layer_norm: Normalise each hidden layer before its ReLU.
    """

    def __init__(
        self, input_dim: int, action_dim: int, hidden: Sequence[int], layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.net = mlp([input_dim, *hidden, 2 * action_dim], layer_norm)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, each (B, A)."""
        mean, log_std = self.net(inputs).chunk(2, dim=-1)
        low, high = LOG_STD_RANGE
        return mean, torch.tanh(log_std) * (0.5 * (high - low)) + 0.5 * (high + low)

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
        # log(1 − tanh²(u)) = 2 log 2 − 2 log(eᵘ + e⁻ᵘ), without cancellation at large |u|
        log_prob = 2 * torch.logaddexp(raw, -raw) - log_std - 0.5 * noise.square()
        constant = 0.5 * math.log(2 * math.pi) + 2 * LOG_2
        return torch.tanh(raw), log_prob.sum(-1) - noise.shape[-1] * constant

    def log_prob(self, inputs: Tensor, actions: Tensor) -> Tensor:
        """(B,) log π(a | s, g) of given actions (B, A), such as those of a log.

        Actions at the bounds count as ±0.999.
        """
        mean, log_std = self(inputs)
        raw = torch.atanh(actions.clamp(-LARGEST_ACTION, LARGEST_ACTION))
        log_prob: Tensor = -0.5 * ((raw - mean) * torch.exp(-log_std)).square() - log_std
        # log(1 − tanh²(u)) as in `sample`
        log_prob = log_prob + 2 * torch.logaddexp(raw, -raw)
        constant = 0.5 * math.log(2 * math.pi) + 2 * LOG_2
        return torch.sum(log_prob, dim=-1) - actions.shape[-1] * constant


class CriticEnsemble(nn.Module):
    """E independent critics Q(s, a, g) evaluated as one batched matrix product a layer.

    Args:
        input_dim: Width of the normalised input, the action included.
        hidden: Widths of the hidden layers.
        num_critics: E.
        layer_norm: Normalise each hidden layer before its ReLU.
    """

    def __init__(
        self,
        input_dim: int,
        hidden: Sequence[int],
        num_critics: int = 2,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_critics = num_critics
        self.layer_norm = layer_norm
        sizes = [input_dim, *hidden, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = 1 / math.sqrt(inputs)  # nn.Linear's own initialisation
            weight = torch.empty(num_critics, inputs, outputs).uniform_(-bound, bound)
            self.weights.append(nn.Parameter(weight))
            bias = torch.empty(num_critics, 1, outputs).uniform_(-bound, bound)
            self.biases.append(nn.Parameter(bias))
        # A ParameterList looks each of them up by name, at every pass.
        layers = zip(self.weights, self.biases, strict=True)
        self._layers: list[tuple[Tensor, Tensor]] = list(layers)
        self.gains = nn.ParameterList()
        self.shifts = nn.ParameterList()
        if layer_norm:
            for width in hidden:
                self.gains.append(nn.Parameter(torch.ones(num_critics, 1, width)))
                self.shifts.append(nn.Parameter(torch.zeros(num_critics, 1, width)))
        self._norms: list[tuple[Tensor, Tensor]] = list(zip(self.gains, self.shifts, strict=True))

    def forward(self, inputs: Tensor, actions: Tensor, frozen: bool = False) -> Tensor:
        """Values of all critics.

        Args:
            inputs: (B, I − A), the same for each critic. No gradient passes to them if `frozen`.
            actions: (B, A), the same for each critic.
            frozen: Let gradients pass to the actions but not to the weights: what the policy's
                loss needs, in the same backward pass as the critic's own.

        Returns:
            (E, B) values.
        """
        layers, norms = self._layers, self._norms
        if frozen:
            layers = [(weight.detach(), bias.detach()) for weight, bias in layers]
            norms = [(gain.detach(), shift.detach()) for gain, shift in norms]
        weight, bias = layers[0]
        if frozen:  # apart, or the gradient of the inputs would be computed, only to be dropped
            weights = torch.split(weight, [inputs.shape[-1], actions.shape[-1]], dim=1)
            bias = torch.baddbmm(bias, self._for_each(inputs), weights[0])
            hidden = torch.baddbmm(bias, self._for_each(actions), weights[1])
        else:
            both = torch.cat([inputs, actions], dim=-1)
            hidden = torch.baddbmm(bias, self._for_each(both), weight)
        for index, (weight, bias) in enumerate(layers[1:-1]):
            hidden = torch.baddbmm(bias, _activate(hidden, norms, index), weight)
        weight, bias = layers[-1]
        # Sums, since libraries of matrix products are several times slower at a single column.
        values = (_activate(hidden, norms, len(layers) - 2) * weight.transpose(1, 2)).sum(-1)
        return values + bias.squeeze(-1)

    def _for_each(self, inputs: Tensor) -> Tensor:
        return inputs.expand(self.num_critics, *inputs.shape)


def _activate(hidden: Tensor, norms: Sequence[tuple[Tensor, Tensor]], index: int) -> Tensor:
    """ReLU of a hidden layer (E, B, H), after its LayerNorm where there are `norms`."""
    if norms:
        gain, shift = norms[index]
        hidden = torch.addcmul(shift, F.layer_norm(hidden, hidden.shape[-1:]), gain)
    return F.relu(hidden, inplace=True)


class GoalDynamics(nn.Module):
    """p_ψ(φ(s') | s, a): where the achieved goal is after one step.

    A factorised density around φ(s) + a learned displacement, of a learned scale between
    `min_scale` and one, mixed with a background m, a density of goals whatever the state is:

        p = (1 − ε) · Π_i Laplace(φ'_i; φ_i + μ_i(s, a), b_i(s, a)) + ε · m(φ')
        m(g) = Π_i Laplace(g_i; 0, 1)

    All in goal scales, from the centre of goals. Of one goal m is the same for every state and
    action, so that log p is flat where the goal is far. A plain Laplace log-likelihood falls with
    distance for ever, which is a dense distance reward under which an arm learns not to touch an
    object, since a touch can only move it away.

    Args:
        input_dim: Width of the normalised input (state and action, no goal).
        goal_dim: G.
        hidden: Widths of the hidden layers.
        distribution: "laplace" or "gaussian".
        min_scale: Floor of the scale b (σ), in goal scales: how sharp "reached" is.
        background: ε, the weight of the background; 0 turns it off.
        learned: False fixes μ = 0 and b = fixed_scale, the paper's ablation "fixed p̂_d".
        fixed_scale: The scale used when nothing is learned, in goal scales.
        layer_norm: Normalise each hidden layer before its ReLU.
    """

    def __init__(
        self,
        input_dim: int,
        goal_dim: int,
        hidden: Sequence[int],
        distribution: str = "laplace",
        *,
        min_scale: float = 0.01,
        background: float = 0.05,
        learned: bool = True,
        fixed_scale: float = 0.05,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.goal_dim = goal_dim
        self.distribution = distribution
        self.background = background
        self.log_min_scale = math.log(min_scale if learned else fixed_scale)
        self.net = mlp([input_dim, *hidden, 2 * goal_dim], layer_norm) if learned else None

    @property
    def is_learned(self) -> bool:
        """Whether there is a network to train."""
        return self.net is not None

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted displacement μ (B, G) and log scale log b (B, G), in goal scales."""
        if self.net is None:
            zeros = inputs.new_zeros(len(inputs), self.goal_dim)
            return zeros, zeros + self.log_min_scale
        displacement, scale = self.net(inputs).chunk(2, dim=-1)
        return displacement, self.log_min_scale * torch.sigmoid(scale)

    def log_prob(self, goal: Tensor, delta: Tensor, log_scale: Tensor) -> Tensor:
        """log p of goals, in nats, as a density in goal scales.

        Args:
            goal: (..., G) from the centre of goals, in goal scales.
            delta: (..., G) goal − φ(s) − μ, in goal scales.
            log_scale: (..., G) log b.

        Returns:
            (...) log-density, at least log(ε m(goal)) and at most `max_log_prob`.
        """
        standard = delta * torch.exp(-log_scale)
        if self.distribution == "laplace":
            log_prob = -(standard.abs() + log_scale) - LOG_2
        else:
            log_prob = -(0.5 * standard.square() + log_scale) - 0.5 * math.log(2 * math.pi)
        log_prob = log_prob.sum(-1)
        if self.background == 0.0:
            return log_prob
        log_background = math.log(self.background) - self.goal_dim * LOG_2 - goal.abs().sum(-1)
        return torch.logaddexp(log_prob + math.log1p(-self.background), log_background)

    def log_prob_of_staying(self, goal: Tensor, to_goal: Tensor) -> Tensor:
        """log p of a goal (B, G) for a state that stays where it is, at the floor of the scale.

        Args:
            goal: (B, G) as of `log_prob`.
            to_goal: (B, G) goal − φ(s), in goal scales.
        """
        return self.log_prob(goal, to_goal, torch.full_like(to_goal, self.log_min_scale))

    def central_probability(self, delta: Tensor, log_scale: Tensor) -> Tensor:
        """Probability of the central interval that ends where a deviation lies, in [0, 1).

        Each coordinate by itself, under the learned component, which the background is no part of.
        Of deviations that follow this component they are uniformly distributed.

        Args:
            delta: (..., G) as of `log_prob`.
            log_scale: (..., G) log b.
        """
        standard = delta.abs() * torch.exp(-log_scale)
        if self.distribution == "laplace":
            return -torch.expm1(-standard)
        return torch.erf(standard / math.sqrt(2))

    @property
    def max_log_prob(self) -> float:
        """Largest value that `log_prob` can take: no value function can exceed it."""
        at_the_mean = torch.zeros(self.goal_dim, dtype=torch.float64)
        log_scale = at_the_mean + self.log_min_scale
        return float(self.log_prob(at_the_mean, at_the_mean, log_scale))


class RunningNormalizer(nn.Module):
    """Mean and variance of a stream of vectors, kept as buffers so that they travel with weights.

    Args:
        dim: Width of the vectors.
        clip: Normalised values are clipped to [−clip, clip].
    """

    mean: Tensor
    std: Tensor
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, dim: int, clip: float = 5.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        # Sums in double precision: a million steps of one metre would lose a millimetre's square.
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.float64))

    def update(self, values: Tensor) -> None:
        """Takes in (N, dim) new vectors."""
        self.merge(power_sums(values))

    def merge(self, sums: Tensor) -> None:
        """Takes in new vectors by their `power_sums`."""
        count, total, squares = sums.to(self.total)
        if len(count) == 0 or count[0] == 0:
            return
        self.count += count[0]
        self.total += total
        self.squares += squares
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp_min(0)
        self.mean.copy_(mean)
        # A constant feature has nothing to scale; without the floor its noise would be blown up.
        self.std.copy_((variance + STD_FLOOR**2).sqrt())

    def forward(self, values: Tensor) -> Tensor:
        """Normalises (..., dim) values."""
        return (values - self.mean).div_(self.std).clamp_(-self.clip, self.clip)


def policy_inputs(
    normalizer: RunningNormalizer,
    goal_center: Tensor,
    goal_scale: Tensor,
    observation: Tensor,
    achieved_goal: Tensor,
    goal: Tensor,
) -> Tensor:
    """(B, D + 2G) normalised observation, goal, and the way from the achieved goal to it.

    Args:
        normalizer: Of observations.
        goal_center: (G,) point that goals are measured from, in the task's units.
        goal_scale: () unit that goals are measured in.
        observation: (B, D).
        achieved_goal: (B, G).
        goal: (B, G).
    """
    clip = normalizer.clip
    place = (goal - goal_center) / goal_scale
    way = (goal - achieved_goal) / goal_scale
    return torch.cat(
        [normalizer(observation), place.clamp(-clip, clip), way.clamp(-clip, clip)], dim=-1
    )


def power_sums(values: Tensor) -> Tensor:
    """(3, dim) number, sum and sum of squares of (N, dim) vectors, in double precision."""
    values = values.double()
    count = values.new_full(values.shape[1:], len(values))
    return torch.stack([count, values.sum(0), values.square().sum(0)])
