"""What a run reports of its learning: every quantity with its meaning and unit, in one place.

They are the columns of progress.csv, the scalars of `tensorboard/` and, in RLlib's results, what is
below `learners/default_policy`. `docs/metrics.md` is `python -m rllib_odac.metrics`, and
`odac train --help` says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Metric(NamedTuple):
    """One line of documentation."""

    meaning: str
    unit: str


PROGRESS: dict[str, Metric] = {
    "iteration": Metric("number of calls of train()", "calls"),
    "env_steps": Metric("environment steps collected since the beginning", "steps"),
    "updates": Metric("gradient updates made by each learner", "updates"),
    "wall_s": Metric("time since the beginning, interruptions left out", "s"),
}

FIGURES: dict[str, Metric] = {
    "success_rate": Metric("share of held-out goals that are reached at the end", "1"),
    "final_distance": Metric("distance to the held-out goal at the end, mean", "task's unit"),
    "normalized_distance": Metric("the same in percent of the initial distance", "%"),
}

# Of the last update before the row, as means over its batch. A method has not all of them.
LEARNING: dict[str, Metric] = {
    "critic_loss": Metric("half the squared error of Q(s,a,g) to its target, all critics", "nats²"),
    "policy_loss": Metric("−E[Q(s,a,g) − kl_weight · KL(π‖p)] of fresh actions", "nats"),
    "dynamics_loss": Metric("−E[log p_ψ(φ(s')|s,a)] of what was reached next", "nats"),
    "temperature_loss": Metric("the loss that tunes kl_weight, where it is tuned", "nats"),
    "state_value_loss": Metric("loss of V(s,g), where values are in-sample", "1"),
    "action_prior_loss": Metric(
        "−E[log π_β(a|s)] of replayed actions, where it is learned", "nats"
    ),
    "conservative_loss": Metric("weighted penalty on values of actions not replayed", "nats"),
    "rollout_loss": Metric("weighted critic_loss of steps that p_ψ makes up", "nats²"),
    "q_value": Metric("Q(s,a,g) of replayed actions", "nats"),
    "reward": Metric("r = q_Δ(1) log p_ψ(g|s,a) − KL(q_Δ‖p_Δ), or the method's own", "nats"),
    "discount": Metric("q_Δ(0|s,a), the inferred probability of going on", "1"),
    "discount_kl": Metric("KL(q_Δ‖p_Δ), what it costs to leave the prior p0", "nats"),
    "log_prob_goal": Metric("log p_ψ(g|s,a), the log-likelihood of the goal in one step", "nats"),
    "log_prob_next": Metric("log p_ψ(φ(s')|s,a) of what was reached next", "nats"),
    "dynamics_scale": Metric("scale b(s,a) of p_ψ in each coordinate of the goal", "goal scales"),
    "disagreement": Metric(
        "standard deviation of the displacements that the models of p_ψ predict, of several",
        "goal scales",
    ),
    "kl_weight": Metric("weight of KL(π‖p)", "1"),
    "policy_kl": Metric(
        "KL(π‖p) to the action prior, from one action of a state or, of finitely many, from all",
        "nats",
    ),
    "trivial_goal_share": Metric("share of relabelled goals that are reached already", "1"),
    "unreached_value": Metric("Q(s,a,g) of episodes' own goals that are not reached yet", "nats"),
    "effective_horizon": Metric("1 / (1 − q_Δ(0|s,a)), how far the backup looks ahead", "steps"),
    "relabelled_share": Metric("share of the batch whose goal was given in hindsight", "1"),
}

# How these are distributed over the batch of the last update.
DISTRIBUTED = (
    "reward", "discount", "effective_horizon", "log_prob_goal", "policy_kl", "discount_kl",
    "dynamics_scale",
)  # fmt: skip
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
LEARNING |= {
    f"{name}_{suffix}": Metric(f"{level:.0%} quantile of {name}", LEARNING[name].unit)
    for name in DISTRIBUTED
    for suffix, level in QUANTILES.items()
}

METRICS: dict[str, Metric] = PROGRESS | FIGURES | LEARNING


def quantiles(quantities: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars `name_p10`, `_p50` and `_p90` of each quantity (B, ...) in `DISTRIBUTED`."""
    import torch

    found = {n: quantities[n].detach().double().flatten() for n in DISTRIBUTED if n in quantities}
    by_size: dict[int, list[str]] = {}
    for name, values in found.items():
        by_size.setdefault(len(values), []).append(name)
    result: dict[str, Tensor] = {}
    for names in by_size.values():  # one call for all that are alike
        values = torch.stack([found[name] for name in names])
        levels = torch.quantile(values, values.new_tensor(list(QUANTILES.values())), dim=1)
        for suffix, row in zip(QUANTILES, levels, strict=True):
            result |= {f"{name}_{suffix}": row[i] for i, name in enumerate(names)}
    return result


def means(quantities: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each, (...), by one transfer: a GPU is waited for once."""
    import torch

    values = torch.stack([each.detach().double().mean() for each in quantities.values()])
    return dict(zip(quantities, values.tolist(), strict=True))


def as_help() -> str:
    """A paragraph for each column of progress.csv, quantiles left out, for a command's help."""
    lines = [
        f"{name}: {metric.meaning} ({metric.unit})".replace("[", r"\[")  # no markup
        for name, metric in METRICS.items()
        if not name.endswith(tuple(QUANTILES))
    ]
    of = ", ".join(DISTRIBUTED)
    last = f"..._p10, ..._p50, ..._p90: quantiles of {of}"
    return "\n\n".join(["Columns of progress.csv, also in tensorboard/:", *lines, last])


def as_markdown() -> str:
    """The page `docs/metrics.md`."""
    lines = [
        "# What a run reports",
        "",
        "The columns of `progress.csv`, and the scalars of `tensorboard/` in a run's directory. In",
        "RLlib's results the learning quantities are `learners/default_policy/NAME`; they are of",
        "the last update before the row, over its batch. Values and rewards of methods other than",
        "ODAC are in their own units instead of nats.",
        "",
        "| name | meaning | unit |",
        "|---|---|---|",
    ]
    for name, (meaning, unit) in METRICS.items():
        cells = [f"`{name}`", meaning.replace("|", r"\|"), unit]  # a bar would end the cell
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
