"""Every setting of `ODACConfig`, declared once: default, allowed values, meaning and unit.

`ODACConfig.training()`, validation, `odac train --help` and `--set`, `odac settings`, the search
spaces of sweeps and `docs/settings.md` (which is `python -m rllib_odac.settings`) read them here.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from rllib_odac.declarations import (
    COUNT,
    COUNT_FROM_0,
    FRACTION,
    MAPPING,
    NON_NEGATIVE,
    POSITIVE,
    POSITIVE_SHARE,
    PROBABILITY,
    SEED,
    SHARE_BELOW_1,
    SWITCH,
    TEXT,
    Rule,
    Setting,
    declarations,
    listed,
    one_of,
    setting,
)
from rllib_odac.declarations import shown as shown  # noqa: PLC0414 (others import it from here)

# The registry of objectives checks these two, for it knows which there are.
NAMED_OBJECTIVE = Rule(
    lambda _: True,
    '"odac", "horizon", "her", "sac", "discern", "uvd", "contrastive" or "quasimetric"',
)
OBJECTIVE = Rule(lambda _: True, f"{NAMED_OBJECTIVE.words}, or a subclass of `Objective`")
MAX_DISCOUNT = Rule(
    lambda v: v is None or v == "prior" or FRACTION.allows(v),
    'a number strictly between 0 and 1, "prior", or None for no limit',
)
WIDTHS = Rule(
    lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(COUNT.allows(w) for w in v),
    "a non-empty list of whole numbers of at least 1",
)
COORDINATES = Rule(
    lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(map(COUNT_FROM_0.allows, v)),
    "a non-empty list of whole numbers of at least 0",
)
RATE = Rule(
    lambda v: POSITIVE.allows(v) or (isinstance(v, list | tuple) and len(v) > 1),
    "a positive number, or a schedule [[steps, value], ...]",
)
RELABEL = Rule(
    lambda v: v == "auto" or isinstance(v, Mapping),
    'a mixture such as {"future": 0.8, "own": 0.2}, or "auto"',
)
GOAL_SOURCE = Rule(
    lambda v: isinstance(v, str | Mapping),
    'the name of a source of goals, or a mixture such as {"achieved": 1.0}',
)

# `ODACConfig` inherits the groups below. They give it typed attributes, and nothing else.
_group = dataclass(init=False, repr=False, eq=False)


@_group
class ObjectiveSettings:
    """Objective.

    A step of delay costs −log p0 nats. Goals are divided by `goal_scale`, and scales of p_ψ are
    given in it; "auto" is the environment's own, or the half-width of the goals seen first.
    `success_distance` is where HER and UVD pay their reward; "auto" is the environment's own.
    `kl_weight` 1 gives the exact posterior, and "auto" tunes it to an entropy of −A nats.
    """

    objective: str | type[Any] = setting("odac", OBJECTIVE, "method to train with")
    objective_settings: dict[str, Any] = setting({}, MAPPING, "arguments of the objective's class")
    prior_discount: float = setting(
        0.95, FRACTION, "p0, prior probability of going on; γ of other methods", mutable=True
    )
    learn_discount: bool = setting(True, SWITCH, "infer q_Δ; False fixes it to its prior p_Δ")
    max_discount: float | str | None = setting(
        "prior", MAX_DISCOUNT, 'upper limit on q_Δ(0); "prior" stands for p0'
    )
    learn_dynamics: bool = setting(
        True, SWITCH, "learn p_ψ; False fixes it to a density around φ(s)", network=True
    )
    dynamics_distribution: str = setting(
        "laplace", one_of("laplace", "gaussian"), "density of p_ψ", network=True
    )
    dynamics_min_scale: float = setting(
        0.01, FRACTION, "floor of p_ψ's scale", "goal scales", network=True, mutable=True
    )
    dynamics_background: float = setting(
        0.05, SHARE_BELOW_1, "ε, weight of p_ψ's background", network=True, mutable=True
    )
    fixed_dynamics_scale: float = setting(
        0.05, FRACTION, "scale of the fixed density", "goal scales", network=True
    )
    goal_scale: float | str = setting(
        "auto", POSITIVE.or_auto(), "unit that goals are divided by", "the task's unit"
    )
    success_distance: float | str = setting(
        "auto", POSITIVE.or_auto(), "distance of a reached goal", "the task's unit"
    )
    kl_weight: float | str = setting(
        0.05, NON_NEGATIVE.or_auto(), "weight of KL(π‖p)", network=True, mutable=True
    )


@_group
class UpdateSettings:
    """Networks and updates.

    Asynchronous env runners go on while learners update; "auto" is so if there are any. The steps
    that they collect or are asked for are at most `max_weight_lag` updates ahead, or one fragment
    of an env runner if that asks for more. Taking turns instead can be repeated exactly.

    At an update that is not finite "stop" raises an error that names the loss or gradient and
    describes the batch; "skip" leaves it out, on all learners, and counts it in `updates_skipped`.

    `matmul_precision` is what `torch.set_float32_matmul_precision` takes: "medium" rounds factors
    to bfloat16 on CPUs that multiply it (AMX, AVX512-BF16), and to TF32 on GPUs.
    """

    hidden: tuple[int, ...] = setting(
        (256, 256), WIDTHS, "widths of the hidden layers of every network", network=True
    )
    num_critics: int = setting(2, COUNT, "critics, whose minimum is used", network=True)
    layer_norm: str = setting(
        "none",
        one_of("none", "critics", "all"),
        "networks whose hidden layers have LayerNorm",
        network=True,
    )
    target_critics: int | None = setting(
        None,
        COUNT.or_none(),
        "critics of which a target takes the minimum, drawn at random",
        network=True,
    )
    lr: Any = setting(1e-3, RATE, "learning rate of Adam, for every network", mutable=True)
    grad_clip: float | None = setting(
        None, POSITIVE.or_none(), "limit on the norm of each network's gradients"
    )
    target_steps: int = setting(1, COUNT, "n, replayed steps that a critic's target is made of")
    tau: float = setting(0.05, POSITIVE_SHARE, "Polyak step of target networks", mutable=True)
    train_batch_size_per_learner: int = setting(256, COUNT, "transitions an update", mutable=True)
    updates_per_env_step: float = setting(0.5, NON_NEGATIVE, "updates for each environment step")
    num_steps_before_learning: int = setting(
        500, COUNT_FROM_0, "environment steps before the first update", "steps"
    )
    on_divergence: str = setting("stop", one_of("stop", "skip"), "at an update that is not finite")
    asynchronous: bool | str = setting("auto", SWITCH.or_auto(), "overlap sampling and learning")
    max_weight_lag: int = setting(
        200, COUNT_FROM_0, "how far asynchronous sampling may be ahead of learning", "updates"
    )
    matmul_precision: str = setting(
        "highest", one_of("highest", "high", "medium"), "precision of float32 products"
    )
    num_threads: int = setting(1, COUNT, "threads of PyTorch in each process")


@_group
class ReplaySettings:
    """Replay.

    A checkpoint without the replay is small; after a restore from it learning waits for
    `num_steps_before_learning` new steps. Hindsight takes goals from the "future" of the episode,
    from there by a geometric clock of `prior_discount` ("discounted"), from its "final" state, the
    whole "episode" or "random" states; "own" keeps the episode's goal. "auto" is the objective's
    choice: SAC's is "own" alone, that of the others 0.8 "future" and 0.2 "own".

    With `data` learning begins with the first step. Episodes of a log that names no goals have what
    they achieved last for their own.
    """

    replay_capacity: int = setting(1_000_000, COUNT, "states kept by each learner", "states")
    checkpoint_replay: bool = setting(True, SWITCH, "whether checkpoints hold the replay")
    relabel: str | Mapping[str, float] = setting(
        "auto", RELABEL, "where hindsight takes goals from"
    )
    data: str | None = setting(
        None, TEXT.or_none(), "log whose episodes the replay begins with; see `odac data`"
    )
    data_goal: list[int] | None = setting(
        None,
        COORDINATES.or_none(),
        "coordinates of logged observations that are the achieved goal, if the log names none",
    )
    relabel_candidates: int = setting(
        1, COUNT, "draws of a hindsight goal, in half of a batch, until one is not reached already"
    )


@_group
class ExplorationSettings:
    """Exploration.

    Training episodes go for the goals of the "environment", for states "achieved" so far, or for
    the "rare" ones of these, which few others are near. Evaluation takes the environment's.
    """

    num_initial_random_steps: int = setting(
        500, COUNT_FROM_0, "uniformly random actions at the beginning", "steps"
    )
    random_action_share: float = setting(
        0.1, PROBABILITY, "share of uniformly random actions afterwards", mutable=True
    )
    random_action_steps: int = setting(
        1, COUNT, "for how long each is kept; longer gets farther", "steps", mutable=True
    )
    action_noise: float = setting(
        0.0, NON_NEGATIVE, "deviation of Gaussian noise on actions in [−1, 1]^A", mutable=True
    )
    exploration_goals: str | Mapping[str, float] = setting(
        "environment", GOAL_SOURCE, "goals of the episodes collected for training"
    )


@_group
class RLlibSettings:
    """RLlib's own settings.

    The defaults suit goal-reaching tasks. RLlib's documentation says more.
    """

    seed: int | None = setting(None, SEED.or_none(), "seed of everything random")
    env_config: dict[str, Any] = setting({}, MAPPING, "keyword arguments of the environment")
    max_episode_steps: int | None = setting(
        None, COUNT.or_none(), "time limit of episodes, for tasks without one of their own", "steps"
    )
    num_envs_per_env_runner: int = setting(10, COUNT, "environments of each env runner")
    rollout_fragment_length: int = setting(
        10, COUNT, "steps of each environment that one request asks for", "steps"
    )
    max_requests_in_flight_per_env_runner: int = setting(
        2, COUNT, "requests sent to an env runner at a time, so that the next one is there"
    )
    min_sample_timesteps_per_iteration: int = setting(
        1000, COUNT, "environment steps of a call of train()", "steps"
    )
    evaluation_duration: int = setting(20, COUNT, "episodes of an evaluation", "episodes")
    evaluation_num_env_runners: int = setting(
        0, COUNT_FROM_0, "remote env runners that evaluate beside training; 0 does it in between"
    )
    evaluation_sample_timeout_s: float = setting(
        600.0, POSITIVE, "time that remote env runners may take for an evaluation", "s"
    )
    sample_timeout_s: float = setting(
        60.0, POSITIVE, "time to wait for samples of env runners", "s"
    )
    learner_timeout_s: float = setting(
        600.0, POSITIVE, "time that remote learners may take for one answer, or count as dead", "s"
    )
    env_runner_restore_timeout_s: float = setting(
        600.0, POSITIVE, "time without any sample after which a run gives up", "s"
    )
    restart_failed_env_runners: bool = setting(True, SWITCH, "whether dead env runners come back")
    max_num_env_runner_restarts: int = setting(
        1000, COUNT_FROM_0, "restarts that an env runner may have"
    )
    num_consecutive_env_runner_failures_tolerance: int = setting(
        100, COUNT_FROM_0, "failures in a row after which a run gives up"
    )
    restart_failed_sub_environments: bool = setting(
        False, SWITCH, "whether an environment that raised an error is made anew"
    )
    num_cpus_per_env_runner: float = setting(1, NON_NEGATIVE, "CPUs of each env runner", "CPUs")
    num_gpus_per_env_runner: float = setting(0, NON_NEGATIVE, "GPUs of each env runner", "GPUs")
    num_cpus_per_learner: float | str = setting(
        "auto", NON_NEGATIVE.or_auto(), "CPUs of each remote learner", "CPUs"
    )
    num_gpus_per_learner: float = setting(0, NON_NEGATIVE, "GPUs of each learner", "GPUs")


class Settings(
    ObjectiveSettings, UpdateSettings, ReplaySettings, ExplorationSettings, RLlibSettings
):
    """Every setting, as typed attributes."""


GROUPS: tuple[type[Any], ...] = Settings.__bases__
SETTINGS: dict[str, Setting] = {
    name: declared for group in GROUPS for name, declared in declarations(group).items()
}


def find_setting(name: str) -> Setting:
    """The declaration of a setting.

    Raises:
        ValueError: If there is none of that name; the sentence says which are spelt alike.
    """
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"There is no setting '{name}'{hint}")
    return SETTINGS[name]


def check(name: str, value: Any) -> None:
    """Checks the value of a setting by itself.

    Raises:
        ValueError: With one sentence that names the setting, its value and what is allowed.
    """
    SETTINGS[name].check(name, value)


_Method = TypeVar("_Method", bound=Callable[..., Any])


def takes_settings(method: _Method) -> _Method:
    """Gives `training(self, **settings)` a signature and docstring that name every setting."""
    types = get_type_hints(Settings)
    signature = inspect.signature(method, eval_str=True)
    own, others = signature.parameters.values()
    named = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=types[name]
        )
        for name, one in SETTINGS.items()
    ]
    vars(method)["__signature__"] = signature.replace(parameters=[own, *named, others])
    arguments = [*listed(SETTINGS), f"    **{others.name}: More of RLlib's own `training()`."]
    method.__doc__ = "\n".join([inspect.cleandoc(method.__doc__ or ""), "", "Args:", *arguments])
    return method


def as_help() -> str:
    """A paragraph for each setting, for a command's help."""
    title = "Settings for --set, of which `odac settings` says more:"
    lines = [f"{name}: {declared.explained()}" for name, declared in SETTINGS.items()]
    return "\n\n".join([title, *lines]).replace("[", r"\[")  # no markup


def as_markdown() -> str:
    """The page `docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "What `ODACConfig.training(name=value)`, `odac train --set name=value`, run files and the",
        "spaces of sweeps may set. `odac settings` prints them too.",
    ]
    for group in GROUPS:
        title, _, notes = (inspect.getdoc(group) or "").partition(".")
        lines += ["", f"## {title}", "", *notes.strip().splitlines(), ""]
        lines += ["| name | default | allowed | meaning | unit |", "|---|---|---|---|---|"]
        for name, declared in declarations(group).items():
            default = f"`{shown(declared.default)}`"
            cells = [f"`{name}`", default, declared.rule.words, declared.meaning, declared.unit]
            lines.append(f"| {' | '.join(cells)} |")
    mutable = ", ".join(f"`{name}`" for name, declared in SETTINGS.items() if declared.mutable)
    lines += ["", f"Population-based training may change in the middle of a run: {mutable}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
