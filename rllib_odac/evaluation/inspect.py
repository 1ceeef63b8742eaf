"""`odac inspect`: pictures of what a checkpoint has inferred, on held-out goals."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rllib_odac.envs.catalogue import env_facts
from rllib_odac.evaluation import captions
from rllib_odac.evaluation import inference_plots as plots
from rllib_odac.evaluation.checkpoint import (
    CheckpointPolicy,
    FollowedEpisode,
    arrival,
)
from rllib_odac.evaluation.inference import (
    INFERS_DISCOUNT,
    Array,
    check_plane,
    coverage,
    infer,
    missing_quantities,
    plane_fields,
    predict_next,
    realised_return,
    termination_times,
    transitions,
)
from rllib_odac.evaluation.page import Section, Table, png, render_page, with_subscripts
from rllib_odac.evaluation.statistics import rank_correlation
from rllib_odac.files import write_text
from rllib_odac.maths.losses import termination_probabilities
from rllib_odac.runtime.evaluator import held_out_seeds

PATHS = 6  # episodes drawn into a field
POINTS_SHOWN = 4000  # transitions in the picture of the calibration, at most


def inspect_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    episodes: int = 50,
    seed: int = 0,
    trust: bool = False,
) -> dict[str, Any]:
    """Draws what a checkpoint infers about held-out goals, and writes a page of it.

    Args:
        checkpoint: Directory that `ODAC.save_to_path` or `odac train` wrote.
        out: Directory for the PNGs and `report.html`; made if it is not there.
        episodes: Held-out episodes, with deterministic actions.
        seed: Which held-out goals.
        trust: As `CheckpointPolicy` takes it.

    Returns:
        Figures: `success_rate`, `value_mean`, `value_return_correlation` and
        `value_distance_correlation` (Spearman, V(s0, g)), and where the objective infers them
        `discount_mean`, `median_termination_time` (steps, of the mean q_T; None if it is after the
        episode), `coverage_50`, `coverage_90` (shares) and `prediction_error` (median distance, in
        the task's units), of several models also `disagreement_error_correlation` (Spearman);
        `missing`, what there is not and why; and `files`, what was written.

    Raises:
        ValueError: If there is no checkpoint of ODAC, `out` is a file, or an argument is too low.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, but must be at least 1.")
    if seed < 0:
        raise ValueError(f"seed is {seed}, but must be at least 0.")
    directory = Path(out)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"out is '{directory}', which is a file; it must be a directory.")
    policy = CheckpointPolicy(checkpoint, trust)
    directory.mkdir(parents=True, exist_ok=True)
    return _Inspection(policy, directory, episodes, seed).run()


def inspected_sections(policy: CheckpointPolicy, out: Path, episodes: int) -> list[Section]:
    """What `inspect_checkpoint` draws into a directory, as sections of another page."""
    return _Inspection(policy, out, episodes, seed=0).sections()


class _Inspection:
    """The pictures of one checkpoint, one method each."""

    def __init__(self, policy: CheckpointPolicy, out: Path, episodes: int, seed: int) -> None:
        self.policy, self.networks, self.out, self.seed = policy, policy.networks(), out, seed
        self.objective = policy.config.build_objective()
        env: Any = policy.config.make_env()
        task = env.unwrapped
        self.regions: Array = np.asarray(getattr(task, "regions", np.zeros((0, 2, 2))), float)
        self.goal_space = env.observation_space["desired_goal"]
        self.place_unit = _units(policy.config.env, task)
        self.success_distance = policy.config.goals.success_distance
        env.close()
        self.seeds = held_out_seeds(episodes, seed)
        self.followed = [policy.follow(seed) for seed in self.seeds]
        self.quantities = [
            infer(self.networks, self.objective, transitions(f.episode)) for f in self.followed
        ]
        self.infers = INFERS_DISCOUNT in self.quantities[0]
        self.unit = "nats" if self.infers else "own units"
        self.pictures: list[tuple[Path, captions.Caption]] = []
        self.missing = missing_quantities(self.networks, self.objective)
        self.figures: dict[str, Any] = {
            "success_rate": float(np.mean([f.success for f in self.followed]))
        }

    def run(self) -> dict[str, Any]:
        sections = self.sections()
        config = self.policy.config
        report = self.out / "report.html"
        objective = type(self.objective).__name__.removesuffix("Objective")
        # JSON knows no NaN, which a correlation is where nothing varies.
        self.figures = {k: None if v is None or np.isnan(v) else v for k, v in self.figures.items()}
        figures = {k: v for k, v in self.figures.items() if v is not None}
        page = render_page(
            f"What {objective} inferred on {config.env}",
            f"{len(self.followed)} held-out goals, deterministic actions. Every quantity comes "
            "from the trained networks and from the functions that they were trained with; where "
            "training draws one action, these are means over 16.",
            sections,
            facts=Table([(_words(name), f"{value:.3g}") for name, value in figures.items()]),
        )
        write_text(report, page)
        files = [report, *(file for file, _ in self.pictures)]
        return self.figures | {"missing": self.missing, "files": [str(file) for file in files]}

    def sections(self) -> list[Section]:
        """Draws everything; a section of the page for each picture."""
        self.draw_fields()
        self.draw_episodes()
        if self.infers:
            self.draw_termination()
        if self.networks.dynamics.is_learned:
            self.draw_calibration()
        self.draw_value()
        shown = [
            Section(title, equation, with_subscripts(text), [png(file, title)])
            for file, (title, equation, text) in self.pictures
        ]
        return [*shown, Section("What is not shown", items=self.missing)] if self.missing else shown

    def add(self, name: str, caption: captions.Caption) -> Path:
        """Notes a picture, and says where it goes."""
        file = self.out / f"{name}.png"
        self.pictures.append((file, caption))
        return file

    def draw_fields(self) -> None:
        try:
            check_plane([f.episode for f in self.followed])
        except ValueError as error:
            self.missing.append(f"No fields over the plane: {error}")
            return
        first = self.followed[0]
        far = max(self.followed, key=lambda f: np.linalg.norm(_goal(f) - _goal(first)))
        shown = [first] if far is first else [first, far]
        goals = [_goal(f) for f in shown]
        low, high = self.goal_space.low, self.goal_space.high
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            places = np.concatenate([f.episode.achieved_goal for f in self.followed] + [goals])
            low, high = places.min(0), places.max(0)
        extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
        plots.plot_fields(
            [plane_fields(self.networks, self.objective, goal, extent) for goal in goals],
            goals,
            [self.paths_to(f) for f in shown],
            self.regions,
            self.unit,
            self.place_unit,
            self.add("fields", captions.fields(self.infers)),
        )

    def paths_to(self, followed: FollowedEpisode) -> list[Array]:
        """Places of episodes that seek the same goal, where the environment can be asked for it."""
        goal = _goal(followed)
        others = [seed for seed in held_out_seeds(PATHS, self.seed) if seed != followed.seed]
        asked = [self.policy.follow(seed, options={"goal": goal}) for seed in others]
        found = [f.episode for f in asked if np.allclose(f.episode.desired_goal, goal)]
        return [e.achieved_goal.astype(float) for e in (followed.episode, *found)]

    def draw_episodes(self) -> None:
        # The farthest of each kind: there is most to see.
        order = sorted(range(len(self.followed)), key=lambda i: -self.followed[i].distances[0])
        reached = [i for i in order if self.followed[i].success]
        failed = [i for i in order if not self.followed[i].success]
        for index in [*reached[:1], *failed[:1]]:
            followed = self.followed[index]
            outcome = "reached" if followed.success else "not reached"
            steps = min(len(followed.distances) - 1, max(10, 2 * arrival(followed.distances)))
            plots.plot_episode(
                {name: values[:steps] for name, values in self.quantities[index].items()},
                followed.distances[: steps + 1],
                self.success_distance,
                self.film(followed.seed)[: steps + 1],
                self.unit,
                self.place_unit,
                f"held-out goal {index + 1}, {outcome} at the end",
                self.add(f"episode_{index + 1}", captions.episode(self.infers, outcome)),
            )

    def film(self, seed: int) -> list[Any]:
        try:
            return self.policy.follow(seed, film=True).frames
        except RuntimeError as error:
            print(f"warning: {error}", file=sys.stderr)
            return []

    def draw_termination(self) -> None:
        steps = max(len(f.episode) for f in self.followed)
        all_times = np.stack([termination_times(q["discount"], steps) for q in self.quantities])
        mean = all_times.mean(0)
        prior = _prior_times(self.objective, steps)
        near = self.success_distance
        arrivals = np.array([_first(np.array(f.distances[1:]) < near) if near else np.nan
                             for f in self.followed])  # fmt: skip
        medians = np.array([_median(times) for times in all_times])
        self.figures["discount_mean"] = float(
            np.concatenate([q["discount"] for q in self.quantities]).mean()
        )
        self.figures["median_termination_time"] = _median(mean)
        plots.plot_termination(
            mean,
            prior,
            medians,
            arrivals,
            self.add("termination", captions.termination()),
        )

    def draw_calibration(self) -> None:
        parts = [predict_next(self.networks, transitions(f.episode)) for f in self.followed]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        error = np.linalg.norm(whole["predicted"] - whole["realised"], axis=-1)
        shares = coverage(whole["central_probability"], [0.5, 0.9])
        self.figures |= {
            "coverage_50": float(shares[0]),
            "coverage_90": float(shares[1]),
            "prediction_error": float(np.median(error)),
        }
        if "disagreement" in whole:
            self.figures["disagreement_error_correlation"] = rank_correlation(
                whole["disagreement"], error
            )
        distribution = self.networks.dynamics.distribution
        every = max(1, len(error) // POINTS_SHOWN)
        plots.plot_calibration(
            {name: values[::every] for name, values in whole.items()},
            self.place_unit,
            self.add("calibration", captions.calibration(distribution, "disagreement" in whole)),
        )

    def draw_value(self) -> None:
        values = [float(q["value"][0]) for q in self.quantities]
        returns = None
        if "reward" in self.quantities[0]:
            returns = [
                realised_return(q, 0.0 if f.episode.terminated else float(q["next_value"][-1]))
                for q, f in zip(self.quantities, self.followed, strict=True)
            ]
            self.figures["value_return_correlation"] = rank_correlation(values, returns)
        distances = [f.distances[-1] for f in self.followed]
        self.figures["value_mean"] = float(np.mean(values))
        self.figures["value_distance_correlation"] = rank_correlation(values, distances)
        plots.plot_value_outcome(
            values,
            returns,
            distances,
            [f.success for f in self.followed],
            self.unit,
            self.place_unit,
            self.add("value", captions.value(returns is not None)),
        )


def _goal(followed: FollowedEpisode) -> Array:
    return np.asarray(followed.episode.desired_goal[0], dtype=np.float64)


def _units(env: Any, task: Any) -> str:
    """What distances are in, as far as anyone says."""
    with contextlib.suppress(KeyError):
        return getattr(task, "units", None) or env_facts(str(env)).units
    return "task's units"


def _prior_times(objective: Any, steps: int) -> Array:
    prior = torch.full((steps,), objective.prior_discount, dtype=torch.float64)
    return np.asarray(termination_probabilities(prior), dtype=float)


def _median(times: Array) -> float:
    """The median of a distribution as of `termination_times`; NaN if it is a later time."""
    return _first(times[:-1].cumsum() >= 0.5)


def _first(flags: Any) -> float:
    found = np.flatnonzero(flags)
    return float(found[0]) if len(found) else float("nan")


def _words(name: str) -> str:
    return name.replace("_", " ")
