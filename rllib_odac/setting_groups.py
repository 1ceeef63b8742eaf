"""The settings of `ODACConfig` in groups, each setting with default, allowed values and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rllib_odac.declarations import (
    COUNT,
    COUNT_FROM_0,
    FRACTION,
    MAPPING,
    NON_NEGATIVE,
    NUMBER,
    POSITIVE,
    POSITIVE_SHARE,
    PROBABILITY,
    SEED,
    SHARE_BELOW_1,
    SWITCH,
    TEXT,
    Rule,
    one_of,
    setting,
)

# The registry of objectives checks these two, for it knows which there are.
NAMED_OBJECTIVE = Rule(
    lambda _: True,
    '"odac", "horizon", "her", "sac", "discern", "uvd", "contrastive", "quasimetric", "gciql", '
    '"gcbc" or "actionable"',
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
ACTION_PRIOR = Rule(
    lambda v: v in ("uniform", "behavior", "previous") or callable(v) or ":" in v,
    '"uniform", "behavior", "previous", a function of observations that makes a distribution, or '
    '"MODULE:FUNCTION" of one',
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
    `kl_weight` 1 gives the exact posterior, and "auto" tunes it to an entropy of −A nats, or of
    half that of a uniform choice where there are finitely many actions.
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
    dynamics_members: int = setting(
        1, COUNT, "models that p_ψ is a mixture of, each learned by itself", network=True
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
class RuleSettings:
    """Action prior, values and policy.

    The posterior is taken against an action prior p(a|s): "uniform", the "behavior" in the replay,
    learned by maximum likelihood, the "previous" policy, or a function that makes a
    `torch.distributions` object over actions in [−1, 1]^A from observations (B, D), a `Categorical`
    where there are finitely many; the command line takes it as "MODULE:FUNCTION".

    "explicit" values are those of the policy's own actions. "expectile" and "soft" ones come from
    replayed actions alone, as logs ask for: an upper expectile, or w log E_{a~π_β} exp(Q/w), w the
    KL weight. "returns" learn V(s, g) alone, an upper expectile of targets of `target_steps` along
    the log, which see far in few updates; a stochastic world makes them too high. The policy
    follows the "posterior", or imitates replayed actions by their "advantage", or does both, as
    "ddpg_bc"; "imitation" looks at no value. "auto" is the objective's choice: that of most is
    "explicit" and "posterior" where an environment is at hand, and "expectile" and "ddpg_bc" where
    `offline`, without a penalty on values.

    Where the `dynamics_members` predict far from each other the replay does not say what comes
    next. A negative `disagreement_weight` keeps away from there, as logs ask for; a positive one
    draws exploration there, up to the value of a goal that is surely reached, which limits targets.
    With a `rollout_weight` critics learn from steps that p_ψ makes up besides, one of the policy
    from each replayed state, where the observation is the achieved goal and nothing else.
    """

    action_prior: Any = setting(
        "uniform", ACTION_PRIOR, "what the KL of the policy is taken to", network=True
    )
    behavior_components: int = setting(
        5, COUNT, 'Gaussians that the prior "behavior" is a mixture of', network=True
    )
    previous_policy_updates: int = setting(
        1000, COUNT, 'between two moves of the prior "previous"', "updates", network=True
    )
    values: str = setting(
        "auto",
        one_of("auto", "explicit", "expectile", "soft", "returns"),
        "how V(s', g) is estimated",
    )
    expectile: float = setting(0.9, FRACTION, "τ of values by expectile")
    extraction: str = setting(
        "auto",
        one_of("auto", "posterior", "advantage", "ddpg_bc", "imitation"),
        "what the policy follows",
    )
    bc_weight: float = setting(
        0.03, NON_NEGATIVE, 'weight of the likelihood of replayed actions in "ddpg_bc"'
    )
    conservative_weight: float | str = setting(
        "auto",
        NON_NEGATIVE.or_auto(),
        "weight of a penalty on values of actions that are not in the replay",
    )
    rollout_weight: float = setting(
        0.0, NON_NEGATIVE, "weight of steps that p_ψ makes up, beside replayed ones, for critics"
    )
    disagreement_weight: float = setting(
        0.0,
        NUMBER,
        "what disagreement of p_ψ's models adds to rewards; negative is a penalty",
        "nats per goal scale",
    )


@_group
class UpdateSettings:
    """Networks and updates.

    Asynchronous env runners go on while learners update; "auto" is so if there are any. The steps
    that they collect or are asked for are at most `max_weight_lag` updates ahead, or one fragment
    of an env runner if that asks for more; "auto" is 200 or, where that is more, what learners make
    in half a second. Taking turns instead can be repeated exactly.

    At an update that is not finite "stop" raises an error that names the loss or gradient and
    describes the batch; "skip" leaves it out, on all learners, and counts it in `updates_skipped`.

    `matmul_precision` is what `torch.set_float32_matmul_precision` takes: "medium" rounds factors
    to bfloat16 on CPUs that multiply it (AMX, AVX512-BF16), and to TF32 on GPUs. "auto" is
    "high" (TF32) on a GPU and "highest" on a CPU. With `autocast` layers multiply and pass on
    bfloat16 numbers; densities, targets and losses stay in float32, and so do parameters.

    The executor "captured" repeats updates on a GPU as one CUDA graph for each 16 of them; what
    cannot be captured runs eagerly, and the log says why. On a CPU it is for tests, and slow.
    """

    hidden: tuple[int, ...] = setting(
        (256, 256), WIDTHS, "widths of the hidden layers of every network", network=True
    )
    num_critics: int = setting(2, COUNT, "critics, whose minimum is used", network=True)
    fourier_features: int = setting(
        0,
        COUNT_FROM_0,
        "fixed random sines of their inputs that policy and values see besides",
        network=True,
    )
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
    max_weight_lag: int | str = setting(
        "auto",
        COUNT_FROM_0.or_auto(),
        "how far asynchronous sampling may be ahead of learning",
        "updates",
    )
    matmul_precision: str = setting(
        "auto", one_of("auto", "highest", "high", "medium"), "precision of float32 products"
    )
    autocast: str = setting(
        "none", one_of("none", "bfloat16"), "type that factors of networks' products are cast to"
    )
    executor: str = setting(
        "eager", one_of("eager", "captured"), "how updates run: call by call, or as recorded"
    )
    num_threads: int = setting(1, COUNT, "threads of PyTorch in each process")
    env_threads: int = setting(
        1, COUNT, "threads that step the environments of each env runner; MuJoCo's gain by them"
    )


@_group
class ReplaySettings:
    """Replay.

    A checkpoint without the replay is small; after a restore from it learning waits for
    `num_steps_before_learning` new steps. Hindsight takes goals from the "future" of the episode,
    from there by a geometric clock of `prior_discount` ("discounted"), from the "next" or the
    "final" state, the whole "episode" or "random" states, or it takes the nearest of several such
    ("near"), which tells values what is behind a wall; "own" keeps the episode's goal. "auto" is
    the objective's choice: SAC's is "own" alone, that of most others 0.8 "future" and 0.2 "own", or
    where `offline` 0.2 "next", 0.5 "discounted" and 0.3 "random".

    With `data` learning begins with the first step. Episodes of a log that names no goals have what
    they achieved last for their own. What is more than `replay_capacity` passes through the replays
    where `offline`, at the pace of `data_reuse`; else its last part is kept.
    """

    replay_capacity: int = setting(1_000_000, COUNT, "states kept by each learner", "states")
    checkpoint_replay: bool = setting(True, SWITCH, "whether checkpoints hold the replay")
    relabel: str | Mapping[str, float] = setting(
        "auto", RELABEL, "where hindsight takes goals from"
    )
    data: str | None = setting(
        None, TEXT.or_none(), "log whose episodes the replay begins with; see `odac data`"
    )
    offline: bool = setting(
        False, SWITCH, "learn from `data` alone; steps of a run are then updates"
    )
    data_share: float | None = setting(
        None,
        FRACTION.or_none(),
        "share of each batch that is drawn from `data`; None draws all transitions alike",
    )
    data_reuse: float = setting(
        4.0,
        POSITIVE,
        "draws of each transition of `data` that passes through the replay, on average",
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

    Training episodes go for the goals of the "environment", for states "achieved" so far, for the
    "rare" ones of these, which few others are near, or for one that is "displaced" from where they
    begin by as much as another episode brought about. Evaluation takes the environment's.
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
    torch_compile_learner: bool = setting(
        False, SWITCH, "compile updates with torch.compile, which takes a minute and pays on a GPU"
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
