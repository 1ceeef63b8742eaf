"""The model, the normalisation and layers of networks: plain PyTorch, without anything of RLlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Laplace, Normal

from rllib_odac.agent.precision import RoundedProducts, rounds_products
from rllib_odac.maths.losses import LOG_2

LEAST_CHANCE = 1e-6  # of a uniform number, short of where quantiles are infinite
STD_FLOOR = 1e-4  # of normalised features, in their units
FREQUENCY = 3.0  # of Fourier features, root mean square, in radians a unit of inputs


class MLP(nn.Sequential, RoundedProducts):
    """Layers, one after the other."""

    @rounds_products
    def forward(self, inputs: Tensor) -> Tensor:
        """What the last layer says (..., O) of inputs (..., I)."""
        outputs: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]  # PyTorch's
        return outputs


class FourierFeatures(nn.Module):
    """Inputs (..., I), and sines (..., N) of fixed random directions in them.

    Layers of ReLUs learn smooth functions first, and a value that jumps at a wall last; of sines
    they learn it soon (Tancik et al. 2020, arXiv 2006.10739; of values, Yang et al. 2022, arXiv
    2206.04672). A sine looks at one part of the inputs: a wall is where it is for every goal.

    Args:
        parts: Widths of the parts, which add up to I.
        count: N.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, parts: Sequence[int], count: int) -> None:
        super().__init__()
        part_of_input = torch.arange(len(parts)).repeat_interleave(torch.tensor(parts))
        sees = part_of_input.unsqueeze(-1) == torch.arange(count) % len(parts)
        scale = FREQUENCY / sees.sum(0).clamp_min(1).sqrt()
        self.register_buffer("frequencies", scale * sees * torch.randn(sum(parts), count))
        self.register_buffer("phases", 2 * math.pi * torch.rand(count))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I + N)."""
        return torch.cat([inputs, torch.sin(inputs @ self.frequencies + self.phases)], dim=-1)


def mlp(
    sizes: Sequence[int], layer_norm: bool = False, features: FourierFeatures | None = None
) -> MLP:
    """Linear layers with ReLU between them: sizes = [inputs, hidden..., outputs].

    With `layer_norm` each hidden layer is normalised before its ReLU. The first one sees the
    `features` of inputs, if there are any.
    """
    layers: list[nn.Module] = []
    if features is not None:
        layers.append(features)
        sizes = [sizes[0] + len(features.phases), *sizes[1:]]
    for inputs, outputs in pairwise(sizes[:-1]):
        layers.append(nn.Linear(inputs, outputs))
        if layer_norm:
            layers.append(nn.LayerNorm(outputs))
        layers.append(nn.ReLU(inplace=True))
    return MLP(*layers, nn.Linear(sizes[-2], sizes[-1]))


def call_frozen(module: nn.Module, *inputs: Tensor) -> Any:
    """What a module says, differentiable to its inputs but not to its parameters."""
    constants = {name: value.detach() for name, value in module.named_parameters()}
    return torch.func.functional_call(module, constants, inputs)


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
        return torch.logaddexp(
            log_prob + math.log1p(-self.background), self.log_prob_of_background(goal)
        )

    def log_prob_of_background(self, goal: Tensor) -> Tensor:
        """(...) log(ε m(goal)) of goals (..., G) as of `log_prob`: the least that p can be."""
        log_weight = math.log(self.background) if self.background > 0 else -math.inf
        return log_weight - self.goal_dim * LOG_2 - goal.abs().sum(-1)

    def member_log_probs(
        self, goal: Tensor, way: Tensor, displacement: Tensor, log_scale: Tensor
    ) -> Tensor:
        """log p of goals (..., B, G) by the one model there is, or by each of an ensemble.

        Args:
            goal: (..., B, G) as of `log_prob`.
            way: (..., B, G) goal − φ(s), in goal scales.
            displacement: μ as `forward` gives it.
            log_scale: log b as `forward` gives it.

        Returns:
            (..., B), or (..., E, B) of E models; `mixed` makes one density of them.
        """
        return self.log_prob(goal, way - displacement, log_scale)

    def mixed(self, log_probs: Tensor) -> Tensor:
        """(..., B) log p_ψ from what `member_log_probs` gives."""
        return log_probs

    def averaged(self, values: Tensor) -> Tensor:
        """(B, G) the mean over models of what each of them says."""
        return values

    def draw(self, displacement: Tensor, log_scale: Tensor, chance: Tensor) -> Tensor:
        """(B, G) displacements drawn from the learned part, without the background.

        Args:
            displacement: μ as `forward` gives it.
            log_scale: log b as `forward` gives it.
            chance: (B, G + 1) uniform in [0, 1); the last chooses among the models of an ensemble.
        """
        kind = Laplace if self.distribution == "laplace" else Normal
        # Validating its arguments would wait for a GPU.
        density = kind(displacement, log_scale.exp(), validate_args=False)
        uniform = chance[:, :-1].clamp(LEAST_CHANCE, 1 - LEAST_CHANCE)
        drawn: Tensor = density.icdf(uniform)  # type: ignore[no-untyped-call]  # PyTorch's
        return drawn

    def disagreement(self, displacement: Tensor) -> Tensor | None:
        """(B,) how far the models of an ensemble are apart; None where there is one."""
        return None

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
        if sums.numel() == 0 or sums[0, 0] == 0:  # looked at before a GPU would be waited for
            return
        count, total, squares = sums.to(self.total)
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
