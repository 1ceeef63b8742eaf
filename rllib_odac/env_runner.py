"""`GoalEnvRunner`: collects whole goal-conditioned episodes as arrays.

RLlib's own env runner sends each observation through connector pipelines, which for small policies
costs more than the physics. The module here takes the environment's Dict observation as it is.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RESET_TIMER, ENV_STEP_TIMER, SAMPLE_TIMER, WEIGHTS_SEQ_NO

from rllib_odac.agent.exploration import ExplorationGoalAssignment, HeldRandomActions
from rllib_odac.envs import make_vector_env
from rllib_odac.envs.actions import actions_of
from rllib_odac.envs.goals import reported_distance, reported_success
from rllib_odac.ray_compat import was_restarted
from rllib_odac.replay.episodes import COLUMNS, Array, GoalEpisode, OpenEpisodes, check_it_ends
from rllib_odac.replay.exploration_goals import validate_exploration_goals

TRAINING_SEEDS = 2**31  # training uses environment seeds below, held-out goals those from here on
RUNNER_STATE = "goal_env_runner"

logger = logging.getLogger(__name__)


class GoalEnvRunner(SingleAgentEnvRunner):
    """Steps vectorised goal environments and returns `GoalEpisode`s.

    Only whole episodes leave the runner: relabelling needs to know what came later. Connectors and
    RLlib's per-episode callbacks are not used.
    """

    env: Any

    @override(SingleAgentEnvRunner)
    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        torch.set_num_threads(config.num_threads)
        # Of exploration and of the environments' seeds; its state is part of a checkpoint. A runner
        # that Ray has restarted must not live through its predecessor's beginning again.
        self.rng = np.random.default_rng(None if was_restarted() else self._seed)
        self.env_steps = 0  # made by this runner
        self._failures = 0  # of the environment, without a whole episode in between
        self._open: OpenEpisodes | None = None
        self._observation: dict[str, Array] = {}
        self._mixture = validate_exploration_goals(config.exploration_goals)
        self._exploration_goals: dict[str, Array] = {}  # (M, G) of each source
        self._goals = ExplorationGoalAssignment(0, 0, self._mixture)
        self._random_actions = HeldRandomActions(0, 0, config.random_action_steps)

    @override(SingleAgentEnvRunner)
    def make_env(self) -> None:
        if self.env is not None:
            with contextlib.suppress(Exception):  # it may be broken
                self.env.close()
        config = self.config
        if config.env is None:
            return  # a log is all there is
        self.num_envs = config.num_envs_per_env_runner
        self.env = make_vector_env(
            config.env_specifier(),
            self.num_envs,
            env_threads=config.env_threads,
            **config.env_arguments,
        )
        self._action_space = actions_of(self.env.single_action_space)
        self._needs_initial_reset = True
        make_callback(
            "on_environment_created",
            callbacks_objects=self._callbacks,
            callbacks_functions=config.callbacks_on_environment_created,
            kwargs={
                "env_runner": self,
                "metrics_logger": self.metrics,
                "env": self.env.unwrapped,
                "env_context": config.env_config,
            },
        )

    @override(SingleAgentEnvRunner)
    def get_spaces(self) -> dict[str, tuple[gym.Space[Any], gym.Space[Any]]]:
        if self.config.env is None:
            single = (self.config.observation_space, self.config.action_space)
            keys = (INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID)
            return dict.fromkeys(keys, single)
        if self.env is None:
            return self.spaces
        single = (self.env.single_observation_space, self.env.single_action_space)
        return {
            INPUT_ENV_SPACES: (self.env.observation_space, self.env.action_space),
            INPUT_ENV_SINGLE_SPACES: single,
            DEFAULT_MODULE_ID: single,
        }

    # Collecting -----------------------------------------------------------------------------------

    @override(SingleAgentEnvRunner)
    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[GoalEpisode]:
        """Steps the environments, and returns the episodes that ended.

        Args:
            num_timesteps: Environment steps over all environments, at most, as long as one of each
                is not more; `rollout_fragment_length` of each by default.
            num_episodes: Episodes to finish instead.
            explore: Whether to act with exploration; `config.explore` by default.
            random_actions: Whether to act uniformly at random.
            force_reset: Whether to drop the episodes that are still open first.

        Raises:
            ValueError: If the environment gives NaN or infinity.
        """
        explore = self.config.explore if explore is None else explore
        if num_timesteps is None and num_episodes is None:
            fragment = self.config.get_rollout_fragment_length(self.worker_index)
            num_timesteps = fragment * self.num_envs
        episodes: list[GoalEpisode] = []
        steps = 0
        with self.metrics.log_time(SAMPLE_TIMER):
            if force_reset or self._needs_initial_reset:
                self._reset()
            while (
                len(episodes) < num_episodes
                if num_episodes is not None
                else steps == 0 or steps + self._num_running() <= (num_timesteps or 0)
            ):
                steps += self._step(explore, random_actions, episodes)
            make_callback(
                "on_sample_end",
                callbacks_objects=self._callbacks,
                callbacks_functions=self.config.callbacks_on_sample_end,
                kwargs={"env_runner": self, "metrics_logger": self.metrics, "samples": episodes},
            )
        self.metrics.log_value(WEIGHTS_SEQ_NO, self._weights_seq_no, window=1)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        self._increase_sampled_metrics(steps, len(episodes))
        self.env_steps += steps
        return episodes

    def _num_running(self) -> int:
        return 0 if self._open is None else int(np.count_nonzero(self._open.is_open))

    def _reset(self) -> None:
        self.drop_open_episodes()
        seeds = self.rng.integers(TRAINING_SEEDS, size=self.num_envs).tolist()
        while (results := self._attempt(self.env.reset, seed=seeds)) is None:
            seeds = self.rng.integers(TRAINING_SEEDS, size=self.num_envs).tolist()
        observation, _ = results
        action_dim, goal_dim = self._action_space.width, observation["desired_goal"].shape[-1]
        steps = self.config.random_action_steps
        self._random_actions = HeldRandomActions(self.num_envs, action_dim, steps)
        self._goals = ExplorationGoalAssignment(self.num_envs, goal_dim, self._mixture)
        self._observation = self._begin_episodes(np.ones(self.num_envs, bool), observation)
        self._open = OpenEpisodes(self._observation, action_dim, self.config.replay_capacity)
        self._needs_initial_reset = False

    def set_exploration_goals(self, goals: dict[str, Array]) -> None:
        """Takes goals (N, G) of each source, which coming episodes may be given."""
        self._exploration_goals = goals

    def _begin_episodes(self, begins: Array, observation: dict[str, Array]) -> dict[str, Array]:
        """The observation with the goals that are sought, some anew where (N,) episodes begin."""
        self._goals.choose(begins, self._exploration_goals, observation, self.rng)
        return self._goals.applied_to(observation)

    def _step(self, explore: bool, random_actions: bool, episodes: list[GoalEpisode]) -> int:
        """Makes one vectorised step; returns how many environments made a real one."""
        actions = self._actions(explore, random_actions)
        results = self._attempt(self.env.step, self._action_space.to_env(actions))
        if results is None:  # the environments were made anew
            self._reset()
            return 0
        observation, _, terminated, truncated, infos = results
        running = self._open
        assert running is not None
        # The step after an episode's end is the vector environment's reset.
        begins = ~running.is_open
        self._random_actions.release(begins)
        self._observation = self._begin_episodes(begins, observation)
        ended = terminated | truncated
        if self._goals.is_assigned.any():
            # Reaching the environment's own goal is no terminal state where another is sought.
            terminated = terminated & ~(
                self._goals.is_assigned & reported_success(infos, self.num_envs)
            )
        running.append(actions, self._observation)
        cut = ~(begins | ended) & (running.lengths == self.config.max_episode_steps)
        if not (ended.any() or cut.any() or begins.any()):
            return self.num_envs
        for index in np.flatnonzero(~begins & (ended | cut)).tolist():
            episodes.append(running.close(index, bool(terminated[index])))
            self._failures = 0
        if cut.any():  # the environment goes on; what follows is another episode to the replay
            self._observation = self._begin_episodes(cut, observation)
            running.show(self._observation)
        running.begin(begins | cut)
        return self.num_envs - int(np.count_nonzero(begins))

    def _attempt(self, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What an environment's reset or step gives, its observation checked.

        None if it failed and was made anew, as `restart_failed_sub_environments` asks for.
        """
        try:
            with self.metrics.log_time(
                ENV_RESET_TIMER if act == self.env.reset else ENV_STEP_TIMER
            ):
                observation, *rest = act(*args, **kwargs)
            return _checked(observation), *rest
        except Exception as error:
            self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            self._failures += 1
            config = self.config
            most = config.num_consecutive_env_runner_failures_tolerance
            if not config.restart_failed_sub_environments or self._failures > most:
                raise
            logger.warning("The environment failed, and is made anew: %s", error)
            self.make_env()
            return None

    def _actions(self, explore: bool, random_actions: bool) -> Array:
        """(N, A) actions, as replays hold them."""
        config = self.config
        shape = (self.num_envs, self._action_space.width)
        if not explore:
            return self._module_actions(self.module.forward_inference)
        # RLlib tells each runner what all have made, but only between iterations.
        mine = self.env_steps * max(1, config.num_env_runners)
        steps = max(self.num_env_steps_sampled_lifetime, mine)
        if random_actions or steps < config.num_initial_random_steps:
            everywhere = np.ones(self.num_envs, bool)
            uniform = self._action_space.uniform(self.rng, self.num_envs)
            return self._random_actions.step(uniform, everywhere)
        uniform = self._action_space.uniform(self.rng, self.num_envs)
        noise = torch.from_numpy(self.rng.standard_normal(shape, dtype=np.float32))
        actions = self._module_actions(self.module.forward_exploration, noise=noise)
        if config.action_noise > 0:
            extra = self.rng.normal(scale=config.action_noise, size=shape)
            actions = np.clip(actions + extra, -1, 1).astype(np.float32)
        probability = self._random_actions.begin_probability(config.random_action_share)
        begins = self.rng.random(self.num_envs) < probability
        random = self._random_actions.step(uniform, begins)
        return np.where(self._random_actions.is_held[:, None], random, actions)

    def _module_actions(self, forward: Any, **inputs: torch.Tensor) -> Array:
        obs = {name: torch.from_numpy(self._observation[name]) for name in COLUMNS}
        return forward({Columns.OBS: obs, **inputs})[Columns.ACTIONS].numpy()

    def act(self, observation: dict[str, Array]) -> Array:
        """The deterministic action for one observation, as the environment takes it."""
        return self.decide(observation)[1]

    def decide(self, observation: dict[str, Array]) -> tuple[Array, Array]:
        """The deterministic action (A,) as replays hold it, and the environment's own."""
        columns = _checked({name: observation[name][None] for name in COLUMNS})
        obs = {name: torch.from_numpy(values) for name, values in columns.items()}
        actions = self.module.forward_inference({Columns.OBS: obs})[Columns.ACTIONS].numpy()
        return actions[0], self._action_space.to_env(actions)[0]

    @property
    def unfinished_steps(self) -> int:
        """Steps made in the episodes that are going on."""
        return 0 if self._open is None else int(self._open.lengths[self._open.is_open].sum())

    def num_unfinished(self) -> int:
        """Episodes that are going on and have made a step."""
        return 0 if self._open is None else self._open.num_begun

    def drop_open_episodes(self) -> int:
        """Drops the episodes that are going on, and says how many; the next start from fresh seeds.

        A checkpoint cannot hold the inside of a simulator: a run drops them when it saves, so that
        one that goes on and one that is restored continue alike.
        """
        dropped = self.num_unfinished()
        self._open = None
        self._needs_initial_reset = True
        return dropped

    # Evaluating -----------------------------------------------------------------------------------

    def evaluate(self, seeds: Sequence[int]) -> dict[str, Array]:
        """Acts deterministically for one episode from each seed.

        Returns:
            (N,) arrays: `success` at the end, `final_distance` and `initial_distance` to the goal
            in the task's units, `episode_return` and `episode_length`.
        """
        self.drop_open_episodes()
        rounds = []
        for start in range(0, len(seeds), self.num_envs):
            batch = list(seeds[start : start + self.num_envs])
            unused = self.num_envs - len(batch)
            while (result := self._evaluate_round(batch + batch[-1:] * unused)) is None:
                pass  # the environments were made anew
            rounds.append({name: values[: len(batch)] for name, values in result.items()})
            self._failures = 0
        return {name: np.concatenate([r[name] for r in rounds]) for name in rounds[0]}

    def _evaluate_round(self, seeds: list[int]) -> dict[str, Array] | None:
        results = self._attempt(self.env.reset, seed=seeds)
        if results is None:
            return None
        self._observation, infos = results
        goals = self.config.goals
        result = {
            "success": np.zeros(self.num_envs),
            "final_distance": np.zeros(self.num_envs),
            "initial_distance": reported_distance(infos, self._observation, goals),
            "episode_return": np.zeros(self.num_envs),
            "episode_length": np.zeros(self.num_envs, dtype=np.int64),
        }
        running = np.ones(self.num_envs, dtype=bool)
        while running.any():
            actions = self._actions(explore=False, random_actions=False)
            results = self._attempt(self.env.step, self._action_space.to_env(actions))
            if results is None:
                return None
            self._observation, reward, terminated, truncated, infos = results
            result["episode_return"][running] += reward[running]
            result["episode_length"][running] += 1
            check_it_ends(int(result["episode_length"].max()), self.config.replay_capacity)
            too_long = result["episode_length"] == self.config.max_episode_steps
            ended = running & (terminated | truncated | too_long)
            if ended.any():
                distance = reported_distance(infos, self._observation, goals)
                result["final_distance"][ended] = distance[ended]
                result["success"][ended] = reported_success(infos, self.num_envs, required=True)[
                    ended
                ]
                running &= ~ended
        return result

    # State ----------------------------------------------------------------------------------------

    @override(SingleAgentEnvRunner)
    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, **kwargs)
        if self._check_component(RUNNER_STATE, components, kwargs.get("not_components")):
            state[RUNNER_STATE] = {
                "worker_index": self.worker_index,
                "rng": self.rng.bit_generator.state,
                "env_steps": self.env_steps,
                "goals_of_sources": self._exploration_goals,
            }
        return state

    @override(SingleAgentEnvRunner)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if RUNNER_STATE in state:
            self._exploration_goals = state[RUNNER_STATE].get("goals_of_sources", {})
        # RLlib sends the local runner's state to remote ones, which must not all act alike.
        if state.get(RUNNER_STATE, {}).get("worker_index") == self.worker_index:
            self.rng.bit_generator.state = state[RUNNER_STATE]["rng"]
            self.env_steps = state[RUNNER_STATE]["env_steps"]

    def reseed(self, env_steps: int, clone: int = 0) -> None:
        """Starts a random stream that neither the run, up to so many steps, nor a clone uses."""
        self.rng = np.random.default_rng([self._seed or 0, self.worker_index, env_steps, clone])

    def forget_weights_version(self) -> None:
        """Takes the next weights whatever their number: a restore may go back in time."""
        self._weights_seq_no = 0


def _checked(observation: dict[str, Array]) -> dict[str, Array]:
    """Float32 copies of the goal environment's columns, refused if not finite."""
    columns = {}
    for name in COLUMNS:
        values = observation[name].reshape(len(observation[name]), -1)
        if not np.isfinite(values).all():
            raise ValueError(
                f"The environment gave NaN or infinity in '{name}'; every value must be finite."
            )
        columns[name] = np.array(values, dtype=np.float32)
    return columns
