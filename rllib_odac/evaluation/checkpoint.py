"""Evaluating and watching a checkpoint, without a Ray cluster and without its replay."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.checkpoints.find import checkpoint_here
from rllib_odac.checkpoints.networks import read_networks, read_settings
from rllib_odac.config import ODACConfig
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.envs.goals import reported_distance
from rllib_odac.evaluation.plots import plot_distances
from rllib_odac.evaluation.video import Frame, picture_strip, record_video, render_frame
from rllib_odac.replay.episodes import COLUMNS, GoalEpisode
from rllib_odac.runtime.evaluator import held_out_seeds, summarize
from rllib_odac.storage import PLACE


@dataclass
class FollowedEpisode:
    """One deterministic episode as it was.

    Attributes:
        seed: The environment's.
        episode: T steps.
        distances: (T + 1,) to the goal, in the task's units.
        success: Whether the goal is reached at the end.
        frames: (T + 1,) pictures, or none.
    """

    seed: int
    episode: GoalEpisode
    distances: list[float]
    success: bool
    frames: list[Frame]


class CheckpointPolicy:
    """The policy of a checkpoint with the environment that it was trained on.

    Args:
        checkpoint: Directory, or its URI, that `ODAC.save_to_path` or `odac train` wrote, a
            checkpoint or a run.
        trust: Whether its configuration may be unpickled, which runs whatever its author likes;
            without it nothing is. It is needed where the environment or the objective was given as
            a function or class of one's own.

    Raises:
        ValueError: If there is no checkpoint of ODAC in that directory, or it has to be trusted.
    """

    def __init__(self, checkpoint: PLACE, trust: bool = False) -> None:
        path = checkpoint_here(checkpoint)
        self.config = _unpickled_config(path) if trust else _config(path)
        self._arrays = read_networks(path)
        runner_config = self.config.copy(copy_frozen=False)
        runner_config.env_runners(num_env_runners=0)
        self.runner = GoalEnvRunner(config=runner_config, worker_index=0)
        self.runner.module.set_state(self._arrays)

    def networks(self) -> ActorCritic:
        """All networks of the checkpoint: policy, critics, dynamics and normalisers."""
        spec = self.config.get_rl_module_spec(spaces=self.runner.get_spaces(), inference_only=False)
        module: Any = spec.build()
        module.set_state(self._arrays)
        networks: ActorCritic = module.networks
        return networks

    def evaluate(self, num_episodes: int, seed: int = 0) -> dict[str, float]:
        """Acts deterministically on held-out goals; the figures are those of `summarize`."""
        return summarize(self.runner.evaluate(held_out_seeds(num_episodes, seed)))

    def record(self, path: str | Path, seed: int = 0, num_episodes: int = 3) -> list[Path]:
        """Films some held-out episodes.

        Args:
            path: Video file (.mp4 or .gif); a picture strip goes beside it as .png. With the
                suffix .png only the strip is written.
            seed: Which held-out goals.
            num_episodes: Episodes in the video.

        Returns:
            The files written. Where nothing can be rendered, a plot of the distance to the goal
            over time takes their place.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        seeds = held_out_seeds(num_episodes, seed)
        strip = path.with_suffix(".png")
        try:
            films = [self.follow(seed, film=True) for seed in seeds]
        except RuntimeError as error:
            print(f"warning: {error}", file=sys.stderr)
            lines = [self.follow(seed).distances for seed in seeds]
            plot_distances(lines, strip, f"{self.config.env}, held-out goals")
            return [strip]
        picture_strip(strip, films[0].frames[: arrival(films[0].distances) + 1])
        if path == strip:
            return [strip]
        record_video(path, [frame for film in films for frame in film.frames], fps=25)
        return [path, strip]

    def follow(
        self, seed: int, film: bool = False, options: dict[str, Any] | None = None
    ) -> FollowedEpisode:
        """Acts deterministically for one episode.

        Args:
            seed: The environment's.
            film: Whether to take pictures.
            options: What `reset` may be asked for besides.

        Raises:
            RuntimeError: MuJoCo finds no OpenGL library to film with.
        """
        env: Any = self.config.make_env(render_mode="rgb_array" if film else None)
        goals = self.config.goals
        frames: list[Frame] = []
        distances: list[float] = []
        states: list[dict[str, Any]] = []
        actions: list[Any] = []
        terminated = ended = False
        try:
            state, info = env.reset(seed=seed, options=options)
            while True:
                distances.append(float(reported_distance(info, state, goals)))
                states.append({name: np.array(state[name], np.float32).ravel() for name in COLUMNS})
                if film:
                    frames.append(render_frame(env))
                if ended:
                    break
                unit_action, action = self.runner.decide(state)
                actions.append(unit_action)
                state, _, terminated, truncated, info = env.step(action)
                ended = terminated or truncated or len(distances) == self.config.max_episode_steps
        finally:
            env.close()
        columns = {name: np.stack([state[name] for state in states]) for name in COLUMNS}
        episode = GoalEpisode(**columns, actions=np.stack(actions), terminated=bool(terminated))
        success = bool(info.get("is_success", info.get("success", False)))
        return FollowedEpisode(seed, episode, distances, success, frames)


def arrival(distances: list[float]) -> int:
    """The step at which nearly all of the way is made; what follows looks all the same."""
    start, end = distances[0], distances[-1]
    near = [abs(distance - end) <= 0.03 * abs(start - end) for distance in distances]
    return max(near.index(True), 5)


def _config(path: Path) -> ODACConfig:
    env, env_config, settings = read_settings(path)
    config: ODACConfig = ODACConfig().environment(env, env_config=env_config)
    config.apply_settings(settings)
    return config


def _unpickled_config(path: Path) -> ODACConfig:
    try:
        with open(path / "class_and_ctor_args.pkl", "rb") as stream:
            state = pickle.load(stream)["ctor_args_and_kwargs"][0][0]
        config: ODACConfig = ODACConfig.from_state(state)
    except Exception as error:
        raise ValueError(f"The checkpoint '{path}' is damaged: {error}") from error
    return config
