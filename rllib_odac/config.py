"""`ODACConfig`: every setting of the algorithm, in groups, each with its default and meaning."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override
from ray.tune.registry import ENV_CREATOR, _global_registry
from ray.util import log_once

from rllib_odac.agent.objectives import Objective, make_objective, objective_class
from rllib_odac.envs import make_env
from rllib_odac.envs.adapter import own_success_distance
from rllib_odac.replay.relabelling import validate_exploration_goals, validate_relabelling
from rllib_odac.settings import RULES, SETTINGS, check

if TYPE_CHECKING:
    from rllib_odac.env_runner import GoalEnvRunner
    from rllib_odac.learner import ODACTorchLearner


class ODACConfig(AlgorithmConfig):
    """Configuration of `ODAC`, RLlib's own chained sections included.

    ```python
    config = ODACConfig().environment("FetchReach-v4").training(prior_discount=0.95)
    algo = config.build_algo()
    algo.train()
    ```

    `training()` explains the algorithm's own settings. Everything else is RLlib's:
    `env_runners(num_env_runners=...)`, `learners(num_learners=...)`, `debugging(seed=...)`.
    """

    def __init__(self, algo_class: type | None = None) -> None:  # noqa: PLR0915 (a list of settings)
        from rllib_odac.algorithm import ODAC
        from rllib_odac.env_runner import GoalEnvRunner
        from rllib_odac.runtime.evaluation import evaluate_on_held_out_goals

        super().__init__(algo_class=algo_class or ODAC)

        # Objective: how reward and discount come about.
        self.objective: str | type[Objective] = "odac"
        self.objective_settings: dict[str, Any] = {}  # further arguments of the objective's class
        self.prior_discount = 0.95  # p0, the prior probability of going on for another step
        self.learn_discount = True  # False: q_Δ = p_Δ, the ablation "fixed q_T"
        self.max_discount: float | str | None = "prior"  # limit on q_Δ(0): p0, a number or None
        self.learn_dynamics = True  # False: a fixed density around φ(s), the ablation "fixed p̂_d"
        self.dynamics_distribution = "laplace"  # or "gaussian"
        self.dynamics_min_scale = 0.01  # floor of the density's scale, in goal scales
        self.dynamics_background = 0.05  # ε, weight of the uniform background
        self.fixed_dynamics_scale = 0.05  # scale of the fixed density, in goal scales
        self.goal_scale: float | str = "auto"  # unit of goals: the environment's or from those seen
        self.success_distance: float | str = "auto"  # HER's, UVD's; "auto": the environment's
        self.kl_weight: float | str = 0.05  # weight of KL(π‖p); "auto": by a target entropy of −A

        # Networks and updates.
        self.num_threads = 1  # of PyTorch in each process; small networks gain nothing from more
        self.matmul_precision = "highest"  # of updates; "medium" is faster where bfloat16 is
        self.hidden: tuple[int, ...] = (256, 256)  # hidden layers of every network
        self.num_critics = 2
        self.critic_layer_norm = False
        self.lr = 1e-3  # Adam, every network
        self.tau = 0.05  # target networks' step towards the critics, per update
        self.train_batch_size_per_learner = 256
        self.updates_per_env_step = 0.5
        self.on_divergence = "stop"  # at an update that is not finite; or "skip" it
        self.num_steps_before_learning = 500  # environment steps collected before the first update
        self.asynchronous: bool | str = "auto"  # whether sampling and learning overlap
        self.max_weight_lag = 200  # updates that sampling may be ahead of

        # Replay.
        self.replay_capacity = 1_000_000  # states kept by each learner
        self.checkpoint_replay = True  # whether checkpoints hold it
        self.relabel: str | Mapping[str, float] = "auto"  # the objective's own choice

        # Exploration: the policy samples its actions, and ...
        self.num_initial_random_steps = 500  # ... the first steps are uniformly random,
        self.random_action_share = 0.1  # ... as is this share of all later ones,
        self.random_action_steps = 1  # ... each kept for so many steps,
        self.exploration_goals: str | Mapping[str, float] = "environment"  # or what was achieved
        self.action_noise = 0.0  # ... and Gaussian noise of this deviation may come on top.

        self._environment_function: Callable[..., gym.Env[Any, Any]] | None = None
        self._environment_facts: tuple[Any, dict[str, Any]] | None = None

        # RLlib's own settings, with defaults that suit goal-reaching tasks.
        self.env_runner_cls: type[GoalEnvRunner] = GoalEnvRunner
        self.num_envs_per_env_runner = 10
        self.max_requests_in_flight_per_env_runner = 2  # the next is there when one is done
        # RLlib would wait for all env runners after each iteration, for connectors nobody uses.
        self.merge_env_runner_states = False
        self.env_runner_restore_timeout_s = 600.0  # without any sample: then a run gives up
        self.rollout_fragment_length: int = 10
        self.max_episode_steps: int | None = None  # cut longer episodes (tasks without time limit)
        self.min_sample_timesteps_per_iteration = 1000
        self.min_time_s_per_iteration = None
        self.evaluation_interval = 1
        self.evaluation_duration = 20  # episodes, each with a held-out goal
        self.custom_evaluation_function = evaluate_on_held_out_goals
        # Our guard names the tensor that went bad; two sweeps an update over all gradients do not.
        self.torch_skip_nan_gradients = True
        # Normaliser statistics are summed over learners explicitly.
        self.torch_ddp_kwargs = {"broadcast_buffers": False}

    @override(AlgorithmConfig)
    def environment(self, env: Any = NotProvided, **kwargs: Any) -> Self:
        """Sets the environment; see RLlib for further arguments.

        Args:
            env: An id, a function that makes one from `env_config` as keyword arguments, or a
                class that takes it as one mapping, as RLlib's do.
            **kwargs: RLlib's, such as `env_config`.
        """
        if env is not NotProvided:
            self._environment_function = self._environment_facts = None
        if callable(env) and not isinstance(env, type):
            # It travels with the configuration: a registry would forget it with the process.
            self._environment_function = env
            env = f"{env.__module__}.{getattr(env, '__qualname__', type(env).__name__)}"
        return super().environment(env, **kwargs)

    @override(AlgorithmConfig)
    def training(
        self,
        *,
        objective: str | type[Objective] = NotProvided,
        objective_settings: dict[str, Any] = NotProvided,
        prior_discount: float = NotProvided,
        learn_discount: bool = NotProvided,
        max_discount: float | str | None = NotProvided,
        learn_dynamics: bool = NotProvided,
        dynamics_distribution: str = NotProvided,
        dynamics_min_scale: float = NotProvided,
        dynamics_background: float = NotProvided,
        fixed_dynamics_scale: float = NotProvided,
        goal_scale: float | str = NotProvided,
        success_distance: float | str = NotProvided,
        kl_weight: float | str = NotProvided,
        matmul_precision: str = NotProvided,
        hidden: tuple[int, ...] = NotProvided,
        num_critics: int = NotProvided,
        critic_layer_norm: bool = NotProvided,
        tau: float = NotProvided,
        updates_per_env_step: float = NotProvided,
        on_divergence: str = NotProvided,
        num_steps_before_learning: int = NotProvided,
        asynchronous: bool | str = NotProvided,
        max_weight_lag: int = NotProvided,
        replay_capacity: int = NotProvided,
        checkpoint_replay: bool = NotProvided,
        relabel: str | Mapping[str, float] = NotProvided,
        num_initial_random_steps: int = NotProvided,
        random_action_share: float = NotProvided,
        random_action_steps: int = NotProvided,
        exploration_goals: str | Mapping[str, float] = NotProvided,
        action_noise: float = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Sets the algorithm's own settings; further ones (`lr`, `grad_clip`, ...) are RLlib's.

        Args:
            objective: "odac", "her", "sac", "discern", "uvd", or a subclass of `Objective`.
            objective_settings: Further keyword arguments for the objective's class.
            prior_discount: p0 in (0, 1), the prior probability of going on. A step of delay
                costs −log p0 nats. The discount γ of other objectives.
            learn_discount: Infer q_Δ; False fixes it to its prior.
            max_discount: Upper limit on q_Δ(0) in (0, 1), "prior" for p0, or None for no limit.
            learn_dynamics: Learn p_ψ; False fixes it to a density around φ(s).
            dynamics_distribution: "laplace" or "gaussian".
            dynamics_min_scale: Floor of the density's scale in goal scales, in (0, 1).
            dynamics_background: Weight ε of the uniform background, in [0, 1).
            fixed_dynamics_scale: Scale of the fixed density in goal scales, in (0, 1).
            goal_scale: Positive number, in the task's units, that goals are divided by, or "auto":
                the environment's own, or the half-width of the goals seen first.
            success_distance: Distance, in the task's units, from which on HER and UVD pay their
                reward, or "auto" for the environment's own.
            kl_weight: Weight of the KL to the action prior, at least 0, or "auto"; 1.0 is the
                exact posterior.
            matmul_precision: "highest" (float32), "high" or "medium" matrix products in updates,
                as `torch.set_float32_matmul_precision` names them. "medium" rounds factors to
                bfloat16 on CPUs that multiply it (AMX, AVX512-BF16), and to TF32 on GPUs.
            hidden: Widths of the hidden layers of every network.
            num_critics: Critics in the ensemble; their minimum is used.
            critic_layer_norm: Normalise the critics' hidden layers.
            tau: Polyak step of the target networks, in (0, 1].
            updates_per_env_step: Gradient updates for each environment step.
            on_divergence: What to do where a loss or gradient is NaN or infinite: "stop" training
                with an error that names it and describes the batch, or "skip" the update, on all
                learners, counted in the metric "updates_skipped".
            num_steps_before_learning: Environment steps before the first update.
            asynchronous: Whether remote env runners go on while learners update; "auto": if there
                are any. Without it they take turns, which can be repeated exactly.
            max_weight_lag: In asynchronous mode, updates that the steps collected or asked for may
                be ahead of, or a single fragment of an env runner if that asks for more. Updates
                are never ahead of the steps that ask for them.
            replay_capacity: States kept by each learner.
            checkpoint_replay: Whether checkpoints hold the replay. Without it they are small, and
                after a restore learning waits for `num_steps_before_learning` new steps; networks,
                optimizer and input statistics are there all the same.
            relabel: Probabilities of "future", "discounted" (future by a geometric clock of
                `prior_discount`), "final", "episode", "random" and "own"; "auto" for the
                objective's: future 0.8 and own 0.2, SAC own alone.
            num_initial_random_steps: Uniformly random environment steps at the beginning.
            random_action_share: Share of uniformly random actions afterwards, in [0, 1].
            random_action_steps: Steps that a random action is kept for: one that is not taken back
                by the next gets farther, which finds things that are far away.
            exploration_goals: Goals of the episodes collected for training: "environment" for its
                own, "achieved" for states reached so far, "rare" for those of them that few others
                are near, or a mixture such as {"environment": 0.5, "rare": 0.5}. Evaluation always
                uses the environment's.
            action_noise: Standard deviation of Gaussian noise on actions in [−1, 1]^A.
            **kwargs: RLlib's own training settings.
        """
        own = {k: v for k, v in locals().items() if k not in ("self", "kwargs", "__class__")}
        super().training(**kwargs)
        for name, value in own.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def apply_settings(self, settings: Mapping[str, Any]) -> Self:
        """Sets fields by name, RLlib's among them, as `odac train --set key=value` does.

        Raises:
            ValueError: If there is no setting of that name.
        """
        for name, value in settings.items():
            if name not in SETTINGS:
                near = difflib.get_close_matches(name, SETTINGS, n=3)
                hint = f"; did you mean {' or '.join(near)}?" if near else "."
                raise ValueError(f"There is no setting '{name}'{hint}")
            setattr(self, name, value)
        return self

    @override(AlgorithmConfig)
    def validate(self) -> None:
        """Checks every setting and the environment before anything expensive starts.

        Raises:
            ValueError: With one sentence that names the setting, its value and what is allowed.
        """
        self.check_settings()
        # RLlib would warn once that this is the new API stack; ODAC knows no other.
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")
        super().validate()
        if not self.in_evaluation:
            self.check_environment()

    def check_settings(self) -> None:
        """Checks the value of each setting by itself; `validate` does so too."""
        for name in RULES:
            check(name, getattr(self, name))
        if self.asynchronous is True and not self.num_env_runners and not self.in_evaluation:
            raise ValueError(
                'asynchronous is True, but must be False or "auto" where num_env_runners is 0: '
                "a single process does one thing at a time."
            )
        validate_relabelling(self.relabelling)
        validate_exploration_goals(self.exploration_goals)
        self.build_objective()

    def check_environment(self) -> None:
        """Makes the environment once and checks that it is a goal environment ODAC can learn.

        Raises:
            ValueError: If there is none of that name, or its spaces do not fit.
        """
        if self.env is None:
            return
        facts = self.environment_facts
        if not facts["has_spec"]:
            return  # made by hand: it ends its episodes as it likes
        limit = self.max_episode_steps or facts["max_episode_steps"]
        if limit is None:
            raise ValueError(
                f"max_episode_steps is None, but '{self.env}' has no time limit: give the number "
                "of steps after which an episode is cut."
            )
        if self.replay_capacity <= limit:
            raise ValueError(
                f"replay_capacity is {self.replay_capacity}, but must be more than {limit}, the "
                f"steps of an episode of '{self.env}'."
            )

    @property
    def is_asynchronous(self) -> bool:
        """Whether sampling and learning overlap."""
        return bool(self.num_env_runners) and self.asynchronous in (True, "auto")

    def make_env(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Makes one environment of this configuration."""
        return make_env(self.env_specifier(), render_mode=render_mode, **self.env_config)

    @property
    def environment_facts(self) -> dict[str, Any]:
        """What the environment says of itself, found by making it once.

        `goal_scale` and `success_distance` in the task's units, `max_episode_steps` and
        `hand_object`, each None if it says nothing; `measured`, the coordinates of goals that
        count; and `has_spec`, whether Gymnasium knows how it was made.
        """
        key = (self.env, repr(self.env_config))
        known, facts = self._environment_facts or (None, {})
        if known != key or "measured" not in facts:  # which checkpoints from before lack
            env = self.make_env()
            spec, task = env.spec, env.unwrapped
            facts = {
                "goal_scale": _number_or_none(getattr(task, "goal_scale", None)),
                "success_distance": _number_or_none(own_success_distance(task)),
                "measured": getattr(task, "measured", slice(None)),
                "hand_object": getattr(task, "hand_object", None),
                "max_episode_steps": spec.max_episode_steps if spec else None,
                "has_spec": spec is not None,
            }
            env.close()  # type: ignore[no-untyped-call]
            if self._is_frozen:
                return facts
            self._environment_facts = (key, facts)
        return facts

    def env_specifier(self) -> Any:
        """The environment's id or, for one registered with Tune, its creator's wrapper."""
        if self._environment_function is not None:
            return self._environment_function
        if isinstance(self.env, str) and _global_registry.contains(ENV_CREATOR, self.env):
            return _from_settings(_global_registry.get(ENV_CREATOR, self.env), self.env)
        if isinstance(self.env, type):
            return _from_settings(self.env, self.env.__qualname__)
        return self.env

    def build_objective(self) -> Objective:
        """The objective that this configuration describes."""
        kind = objective_class(self.objective)
        settings = kind.settings(self)
        for name in settings.keys() & self.objective_settings.keys():
            raise ValueError(
                f"objective_settings has '{name}', but the configuration has a setting of its own "
                f"for {kind.__name__}'s {name}."
            )
        return make_objective(kind, **settings, **self.objective_settings)

    @property
    def learns_dynamics(self) -> bool:
        """Whether p_ψ is learned: asked for, and of any use to the objective."""
        return self.learn_dynamics and self.build_objective().uses_dynamics

    @property
    def relabelling(self) -> Mapping[str, float]:
        """Probabilities of the strategies of relabelling, the objective's own if none are given."""
        if self.relabel == "auto":
            return objective_class(self.objective).relabel
        assert isinstance(self.relabel, Mapping)
        return self.relabel

    @property
    def goal_success_distance(self) -> float:
        """Distance, in the task's units, within which a goal counts as reached."""
        distance = self.success_distance
        if distance == "auto" and self.env is not None:
            distance = self.environment_facts["success_distance"]
        if not isinstance(distance, int | float):
            raise ValueError(
                "success_distance is 'auto', but the environment names none; it must be a positive "
                "number in the task's units."
            )
        return distance

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from rllib_odac.rl_module import ODACRLModule

        return RLModuleSpec(module_class=ODACRLModule)

    @property
    @override(AlgorithmConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {
            "hidden": tuple(self.hidden),
            "num_critics": self.num_critics,
            "critic_layer_norm": self.critic_layer_norm,
            "dynamics_distribution": self.dynamics_distribution,
            "dynamics_min_scale": self.dynamics_min_scale,
            "dynamics_background": self.dynamics_background,
            "learn_dynamics": self.learns_dynamics,
            "fixed_dynamics_scale": self.fixed_dynamics_scale,
            "kl_weight": self.kl_weight,
            "auxiliary": self.build_objective().auxiliary,
        }

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> type[ODACTorchLearner]:
        from rllib_odac.learner import ODACTorchLearner

        return ODACTorchLearner


def _from_settings(creator: Callable[[Any], Any], name: str) -> Callable[..., Any]:
    """A function of keyword arguments from one of a mapping, as RLlib's creators are."""

    def make(**settings: Any) -> Any:
        return creator(settings)

    make.__qualname__ = name  # what messages call it
    return make


def _number_or_none(value: Any) -> float | None:
    return None if value is None else float(value)
