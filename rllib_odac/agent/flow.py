"""A conditional normalising flow as a plain PyTorch module: a density learned by likelihood."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rllib_odac.agent.networks import mlp

LOG_GAIN_LIMIT = 2.0  # of one layer's log-scale, and of the log-slope of its bend
MIN_LOG_PROB = -100.0  # below it a point is an outlier, which is to teach nothing


class ConditionalFlow(nn.Module):
    """p(x | c): coupling layers that carry x to a standard normal (RealNVP, Dinh et al. 2017).

    Each layer leaves every other coordinate as it is, and from those and c it maps the rest by an
    increasing function of three parameters, an affine one that is bent at its middle:

        u = x eˢ + t,   y = u + (eᵏ − 1) tanh u,   log dy/dx = s + log(1 + (eᵏ − 1)(1 − tanh² u))

    RealNVP has the affine part only, with which a flow over one coordinate, where nothing is left
    to condition on, would be a Gaussian whatever its depth. With the bend it can be skewed, peaked
    or of two modes. Only densities are ever asked for, so that no layer needs an inverse.

    All layers begin as the identity. The log-gains s and k are bounded by tanh, and beyond the bend
    a layer is affine: log p is finite wherever x is.

    Args:
        dim: G, the width of x.
        condition_dim: C, the width of c.
        hidden: Width of the hidden layers.
        num_layers: Coupling layers.
    """

    masks: Tensor

    def __init__(self, dim: int, condition_dim: int, hidden: int = 64, num_layers: int = 4) -> None:
        super().__init__()
        self.dim = dim
        # What c has to say to all layers is one network's output.
        self.context = mlp([condition_dim, hidden, num_layers * hidden])
        self.readers = nn.ModuleList(nn.Linear(dim, hidden, bias=False) for _ in range(num_layers))
        writers = [nn.Linear(hidden, 3 * dim) for _ in range(num_layers)]
        for writer in writers:
            nn.init.zeros_(writer.weight)
            nn.init.zeros_(writer.bias)
        self.writers = nn.ModuleList(writers)
        # One where a coordinate is changed by a layer: in turns, or always if there is but one.
        turn = torch.arange(num_layers)[:, None] + torch.arange(dim)
        masks = torch.ones(num_layers, 1) if dim == 1 else (turn % 2).float()
        self.register_buffer("masks", masks, persistent=False)

    def log_prob(self, x: Tensor, condition: Tensor) -> Tensor:
        """Log-density in nats.

        Args:
            x: (B, G).
            condition: (B, C).

        Returns:
            (B,) log p(x | c), at least `MIN_LOG_PROB`.
        """
        contexts = self.context(condition).chunk(len(self.masks), dim=-1)
        log_prob = torch.zeros_like(x)
        for mask, context, read, write in zip(
            self.masks, contexts, self.readers, self.writers, strict=True
        ):
            parameters = write(F.relu(context + read(x * (1 - mask))))
            log_scale, shift, log_slope = parameters.unflatten(-1, (3, -1)).mul(mask).unbind(-2)
            log_scale = LOG_GAIN_LIMIT * torch.tanh(log_scale)
            gain = torch.expm1(LOG_GAIN_LIMIT * torch.tanh(log_slope))
            x = torch.addcmul(shift, x, log_scale.exp())
            bend = torch.tanh(x)
            log_prob = log_prob + log_scale + torch.log1p(gain * (1 - bend.square()))
            x = torch.addcmul(x, gain, bend)
        log_prob = log_prob - 0.5 * (x.square() + math.log(2 * math.pi))
        return log_prob.sum(-1).clamp_min(MIN_LOG_PROB)
