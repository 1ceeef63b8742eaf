"""The normalising flow: a density whatever its parameters are, which fits what it is shown."""

from __future__ import annotations

import math

import pytest
import torch

from rllib_odac.agent.flow import LOG_GAIN_LIMIT, MIN_LOG_PROB, ConditionalFlow


def make_flow(dim, condition_dim=1, spread=0.0, **settings):
    torch.manual_seed(0)
    flow = ConditionalFlow(dim, condition_dim, **settings)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    return flow


def fit(flow, draw, steps=800):
    """Maximum likelihood of what `draw` gives, (x, c), with the rate going down to zero."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = -flow.log_prob(*draw(256)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_begins_as_the_standard_normal(dim):
    x = torch.randn(20, dim)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    assert torch.allclose(make_flow(dim).log_prob(x, torch.randn(20, 1)), expected, atol=1e-5)


@pytest.mark.parametrize("spread", [0.2, 0.4])
@pytest.mark.parametrize(("dim", "width", "points"), [(1, 200.0, 200_001), (2, 15.0, 1001)])
def test_integrates_to_one_whatever_its_parameters(dim, width, points, spread):
    flow = make_flow(dim, spread=spread, hidden=8).double()
    axis = torch.linspace(-width, width, points, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    with torch.no_grad():
        parts = [flow.log_prob(part, torch.full_like(part[:, :1], 0.7)) for part in x.split(50_000)]
        density = torch.cat(parts).exp()
    start = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1).exp()
    cell = float(axis[1] - axis[0]) ** dim
    assert float((density - start).abs().sum() * cell) > 0.2  # it is another density than at first
    assert float(density.sum() * cell) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_is_finite_and_bounded_far_out_and_at_its_steepest(dim):
    flow = make_flow(dim, spread=30.0)
    x = torch.cat([torch.randn(50, dim), 1e4 * torch.randn(50, dim), torch.zeros(1, dim)])
    log_prob = flow.log_prob(x.requires_grad_(), torch.randn(101, 1))
    log_prob.sum().backward()
    assert (log_prob >= MIN_LOG_PROB).all()
    # each coordinate is changed by half of the four layers, by all where it is the only one
    changes = 4 if dim == 1 else 2
    assert (log_prob <= dim * (2 * changes * LOG_GAIN_LIMIT - 0.5 * math.log(2 * math.pi))).all()
    gradients = [x.grad, *(parameter.grad for parameter in flow.parameters())]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def skewed(size):
    """One coordinate: a wait of a mean of c + 0.2, behind a sharp edge at −c, slightly blurred."""
    c = torch.rand(size, 1)
    law = torch.distributions.Exponential(1 / (c + 0.2))
    return law.sample() - c + 0.1 * torch.randn(size, 1), c


def skewed_log_prob(x, c):
    """An exponential and a Gaussian variable in sum (Grushka 1972), by its error function."""
    x, c = (x + c).double(), c.double()
    rate, variance = 1 / (c + 0.2), 0.01
    tail = torch.special.log_ndtr((x - rate * variance) / math.sqrt(variance))
    return (rate.log() + 0.5 * rate.square() * variance - rate * x + tail).squeeze(-1)


def ring(size):
    """Two coordinates: a ring of radius one, of a width of 0.1 + 0.2 c."""
    c = torch.rand(size, 1)
    angle = 2 * math.pi * torch.rand(size, 1)
    point = torch.cat([angle.cos(), angle.sin()], -1)
    return point + (0.1 + 0.2 * c) * torch.randn(size, 2), c


def ring_log_prob(x, c):
    """A Gaussian's density averaged over the circle."""
    variance = (0.1 + 0.2 * c).square().squeeze(-1).double()
    radius = x.double().norm(dim=-1)
    bessel = torch.special.i0e(radius / variance).log() + radius / variance
    return bessel - 0.5 * (1 + radius.square()) / variance - (2 * math.pi * variance).log()


@pytest.mark.parametrize(
    ("dim", "draw", "log_prob", "tolerance"),
    [(1, skewed, skewed_log_prob, 0.04), (2, ring, ring_log_prob, 0.12)],
)
def test_fits_a_known_density(dim, draw, log_prob, tolerance):
    flow = make_flow(dim)
    fit(flow, draw)
    x, c = draw(20_000)
    with torch.no_grad():
        shortfall = log_prob(x, c) - flow.log_prob(x, c)  # its mean is a KL divergence, in nats
    assert -0.01 < float(shortfall.mean()) < tolerance
