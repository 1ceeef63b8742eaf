"""`ODACConfig`: the settings of `rllib_odac.settings` as a configuration of RLlib's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override
from ray.util import log_once

from rllib_odac.agent.action_prior import BEHAVIOR, PREVIOUS, UNIFORM, find_factory
from rllib_odac.agent.objectives import AnyObjective, Objective, make_objective, objective_class
from rllib_odac.agent.rules import DDPG_BC, EXPECTILE, Rules
from rllib_odac.data.load import check_log, check_rollouts, logged_spaces
from rllib_odac.envs import make_env
from rllib_odac.envs.actions import Actions, actions_of
from rllib_odac.envs.goals import Goals
from rllib_odac.envs.known import KnownEnvironment, look_at, widths_of
from rllib_odac.ray_compat import registered_env_creator
from rllib_odac.replay.exploration_goals import validate_exploration_goals
from rllib_odac.replay.relabelling import validate_relabelling
from rllib_odac.settings import SETTINGS, Settings, check, find_setting, takes_settings

if TYPE_CHECKING:
    from rllib_odac.env_runner import GoalEnvRunner
    from rllib_odac.learner import ODACTorchLearner

# Most goals of a log lie far from a state, and all that is seen of the near ones is there already.
RELABEL_OFFLINE = {"next": 0.2, "discounted": 0.5, "random": 0.3}
RULES_OFFLINE: dict[str, Any] = {"values": EXPECTILE, "extraction": DDPG_BC}


class ODACConfig(AlgorithmConfig, Settings):
    """Configuration of `ODAC`, RLlib's own chained sections included.

    ```python
    config = ODACConfig().environment("FetchReach-v4").training(prior_discount=0.95)
    algo = config.build_algo()
    algo.train()
    ```

    `training()` explains the algorithm's own settings. Everything else is RLlib's:
    `env_runners(num_env_runners=...)`, `learners(num_learners=...)`, `debugging(seed=...)`.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        from rllib_odac.algorithm import ODAC
        from rllib_odac.env_runner import GoalEnvRunner

        super().__init__(algo_class=algo_class or ODAC)

        for name, declared in SETTINGS.items():
            setattr(self, name, copy(declared.default))

        self._environment_function: Callable[..., gym.Env[Any, Any]] | None = None
        self._known_environment: tuple[Any, KnownEnvironment] | None = None

        # RLlib's fields that are no settings here.
        self.env_runner_cls: type[GoalEnvRunner] = GoalEnvRunner
        # RLlib would wait for all env runners after each iteration, for connectors nobody uses.
        self.merge_env_runner_states = False
        self.min_time_s_per_iteration = None
        self.evaluation_interval = 1
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
            self._environment_function = self._known_environment = None
        if callable(env) and not isinstance(env, type):
            # It travels with the configuration: a registry would forget it with the process.
            self._environment_function = env
            env = f"{env.__module__}.{getattr(env, '__qualname__', type(env).__name__)}"
        return super().environment(env, **kwargs)

    @override(AlgorithmConfig)
    @takes_settings
    def training(self, **settings: Any) -> Self:
        """Sets settings by name; one that is not given stays as it is.

        Raises:
            ValueError: If there is no setting of that name.
        """
        of_rllib = inspect.signature(super().training).parameters
        for name, value in settings.items():
            if name in SETTINGS:
                if value is not NotProvided:
                    setattr(self, name, value)
            elif name in of_rllib:
                super().training(**{name: value})
            else:
                find_setting(name)  # raises
        return self

    @override(AlgorithmConfig)
    def offline_data(self, *, input_: Any = NotProvided, **kwargs: Any) -> Self:
        """Learns from a log alone, without env runners; steps of a run are then updates.

        Args:
            input_: The log, as `odac data` takes it: a file, a folder or a URI.
            **kwargs: Nothing: RLlib's other arguments are about its own readers.

        Raises:
            ValueError: If another argument is given.
        """
        for name in kwargs:
            raise ValueError(f"offline_data has {name}, but must have input_ alone.")
        return self if input_ is NotProvided else self.training(data=input_, offline=True)

    def apply_settings(self, settings: Mapping[str, Any]) -> Self:
        """Sets settings by name, as `odac train --set key=value` does.

        Raises:
            ValueError: If there is no setting of that name.
        """
        for name in settings:
            find_setting(name)
        return self.training(**settings)

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
        for name in SETTINGS:
            check(name, getattr(self, name))
        if self.asynchronous is True and not self.num_env_runners and not self.in_evaluation:
            raise ValueError(
                'asynchronous is True, but must be False or "auto" where num_env_runners is 0: '
                "a single process does one thing at a time."
            )
        if self.evaluation_parallel_to_training:
            raise ValueError(
                "evaluation_parallel_to_training is True, but must be False: the env runners of "
                "evaluation_num_env_runners evaluate beside training anyway."
            )
        validate_relabelling(self.relabelling)
        validate_exploration_goals(self.exploration_goals)
        if self.target_critics is not None and self.target_critics > self.num_critics:
            raise ValueError(
                f"target_critics is {self.target_critics}, but must be at most num_critics, "
                f"{self.num_critics}."
            )
        if self.action_prior not in (UNIFORM, BEHAVIOR, PREVIOUS):
            find_factory(self.action_prior)
        objective = self.build_objective()
        self.rules.check(self.kl_weight, objective)
        if self.rollout_weight and not self.learns_dynamics:
            raise ValueError(
                f"rollout_weight is {self.rollout_weight}, but must be 0 unless p_ψ is learned."
            )
        if self.disagreement_weight and not (self.learns_dynamics and self.dynamics_members > 1):
            raise ValueError(
                f"disagreement_weight is {self.disagreement_weight}, but must be 0 unless p_ψ is "
                "learned and dynamics_members is at least 2."
            )
        if self.kl_weight == "auto" and self.action_prior != UNIFORM:
            raise ValueError(
                'kl_weight is "auto", but must be a number with an action_prior other than '
                '"uniform": entropy is what tunes it.'
            )
        if self.offline and (self.data is None or self.num_env_runners):
            raise ValueError(
                "offline is True, but must be False where data is None or num_env_runners is "
                "positive."
            )
        if self.target_steps > 1 and objective.auxiliary is not None:
            raise ValueError(
                f"target_steps is {self.target_steps}, but must be 1 for an objective that learns "
                "a reward or a bound of its own."
            )

    @property
    def rules(self) -> Rules:
        """How values are estimated and the policy follows them."""
        given = {field.name: getattr(self, field.name) for field in fields(Rules)}
        chosen = {
            **(RULES_OFFLINE if self.offline else {}),
            **objective_class(self.objective).rules,
        }
        return Rules(**chosen | {name: value for name, value in given.items() if value != "auto"})

    def check_environment(self) -> None:
        """Makes the environment once and checks that it is a goal environment ODAC can learn.

        Raises:
            ValueError: If there is none, or none of that name, or its spaces do not fit.
        """
        if self.env is None and not self.offline:
            raise ValueError("env is None, but must be an environment where not offline.")
        check_rollouts(self)
        if self.env is None:
            assert self.data is not None, "`check_settings` looks at it"
            self.environment(**logged_spaces(self.data, self.data_goal))
            self.evaluation(evaluation_interval=None)
            return
        known = self._environment
        if self.data is not None:
            check_log(self.data, self.data_goal, known.widths, known.actions, str(self.env))
        if self.action_noise and known.actions.choices is not None:
            raise ValueError(
                f"action_noise is {self.action_noise}, but must be 0 where there are finitely many "
                f"actions, as in '{self.env}': random_action_share explores them."
            )
        limit = self.max_episode_steps or known.horizon
        if limit is None and not known.ends:
            raise ValueError(
                f"max_episode_steps is None, but '{self.env}' has no time limit, and an episode of "
                "random actions did not end: give the number of steps after which one is cut."
            )
        if limit is not None and self.replay_capacity <= limit:
            raise ValueError(
                f"replay_capacity is {self.replay_capacity}, but must be more than {limit}, the "
                f"steps of an episode of '{self.env}'."
            )

    @property
    def steps_to_whole_episodes(self) -> int:
        """Steps, at most, until each environment of this process has ended an episode.

        0 where a log is learned from, and where env runners are remote, whose open episodes go on
        while a checkpoint is written.
        """
        if self.num_env_runners or self.env is None or self.offline:
            return 0
        return self.num_envs_per_env_runner * (
            self.max_episode_steps or self._environment.horizon or 0
        )

    @property
    def saves_replay(self) -> bool:
        """Whether checkpoints hold the replay: not what a log holds anyway."""
        return self.checkpoint_replay and not self.offline

    @property
    def is_asynchronous(self) -> bool:
        """Whether sampling and learning overlap."""
        return bool(self.num_env_runners) and self.asynchronous in (True, "auto")

    def make_env(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Makes one environment of this configuration."""
        return make_env(self.env_specifier(), render_mode=render_mode, **self.env_arguments)

    @property
    def env_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `make_env`: `env_config`, and what the objective asks for."""
        if objective_class(self.objective).uses_time:
            return dict(self.env_config) | {"shows_time": True}
        return dict(self.env_config)

    @property
    def goals(self) -> Goals:
        """What reaching a goal means: the environment's, at `success_distance` if it is given."""
        goals = Goals() if self.env is None else self._environment.goals
        return goals.at(self.success_distance)

    @property
    def judged_goals(self) -> Goals:
        """The same, for those who need to know when a goal is reached.

        Raises:
            ValueError: If neither the environment nor the configuration says so.
        """
        goals = self.goals
        if goals.success_distance is None:
            raise ValueError(
                "success_distance is 'auto', but the environment names none; it must be a positive "
                "number in the task's units."
            )
        return goals

    @property
    def actions(self) -> Actions:
        """How rows of numbers, as replays hold them, stand for actions of environment or log."""
        return actions_of(self.action_space) if self.env is None else self._environment.actions

    @property
    def widths(self) -> dict[str, int]:
        """Numbers in a row of observations and goals."""
        return widths_of(self.observation_space) if self.env is None else self._environment.widths

    @property
    def environment_pays(self) -> bool:
        """Whether the environment computes rewards for any pair of goals."""
        return self.env is not None and self._environment.pays

    @property
    def _environment(self) -> KnownEnvironment:
        """What is known of the environment, which is made once for it."""
        is_unlimited = self.max_episode_steps is None
        key = (self.env, repr(self.env_arguments), is_unlimited)
        if self._known_environment is not None and self._known_environment[0] == key:
            return self._known_environment[1]
        found = look_at(self.make_env(), tries_an_episode=is_unlimited)
        if not self._is_frozen:
            self._known_environment = (key, found)
        return found

    @property
    def names_environment(self) -> bool:
        """Whether the environment is given by its name, not as a function or class."""
        return self._environment_function is None and isinstance(self.env, str)

    def env_specifier(self) -> Any:
        """The environment's id or, for one registered with Tune, its creator's wrapper."""
        if self._environment_function is not None:
            return self._environment_function
        if (creator := registered_env_creator(self.env)) is not None:
            return _from_settings(creator, self.env)
        if isinstance(self.env, type):
            return _from_settings(self.env, self.env.__qualname__)
        return self.env

    def build_objective(self) -> AnyObjective:
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
            own = objective_class(self.objective).relabel
            return RELABEL_OFFLINE if self.offline and own == Objective.relabel else own
        assert isinstance(self.relabel, Mapping)
        return self.relabel

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from rllib_odac.rl_module import ODACRLModule

        return RLModuleSpec(module_class=ODACRLModule)

    @property
    @override(AlgorithmConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        of_networks = {n: getattr(self, n) for n, declared in SETTINGS.items() if declared.network}
        return super()._model_config_auto_includes | {
            **of_networks,
            "learn_dynamics": self.learns_dynamics,
            "rules": self.rules,
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
