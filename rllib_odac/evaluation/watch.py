"""A run as a page that follows it, from nothing but the run's directory."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib import pyplot as plt

from rllib_odac.checkpoints.find import checkpoints_of_run
from rllib_odac.evaluation.checkpoint import CheckpointPolicy
from rllib_odac.evaluation.inspect import inspected_sections
from rllib_odac.evaluation.page import Section, Table, png, render_page, svg
from rllib_odac.evaluation.plots import BLUE
from rllib_odac.metrics import METRICS
from rllib_odac.storage import PLACE, Storage

# Title and columns of each curve; with three columns, which are quantiles, the first and the last
# bound an area.
CURVES = {
    "success on held-out goals": ["success_rate"],
    "final distance": ["final_distance"],
    "reward r": ["reward_p10", "reward_p50", "reward_p90"],
    "discount q_Δ(0)": ["discount_p10", "discount_p50", "discount_p90"],
    "Q(s, a, g)": ["q_value"],
    "critics' loss": ["critic_loss"],
}
NO_ROWS = pd.DataFrame(columns=[*METRICS])
FILMS = {".mp4": "video/mp4", ".gif": "image/gif"}
# Asks for the page's version, and takes over the body of a newer page; the place in it stays.
SCRIPT = Markup(
    """
let shown = null;
async function look() {
  try {
    const version = await (await fetch("version")).text();
    if (shown !== null && version !== shown) {
      const page = await (await fetch(".")).text();
      document.body = new DOMParser().parseFromString(page, "text/html").body;
    }
    shown = version;
    document.title = document.title.replace(/^\\(not answering\\) /, "");
  } catch {
    if (!document.title.startsWith("(")) document.title = "(not answering) " + document.title;
  }
  setTimeout(look, 1000);
}
look();
"""
)


class WatchedRun:
    """What a run's directory says by now; it is read only.

    Args:
        run: The directory of a run, or its URI.
        trust: As `CheckpointPolicy` takes it.
        episodes: Held-out episodes that show what the newest checkpoint infers; 0: none.

    Raises:
        ValueError: If there is no run.
    """

    def __init__(self, run: PLACE, trust: bool = False, episodes: int = 5) -> None:
        if episodes < 0:
            raise ValueError(f"episodes is {episodes}, but must be at least 0.")
        self.place = Storage.of(run)
        config = (self.place / "config.json").read_json()
        if config is None:
            raise ValueError(f"run is '{self.place}', which holds no run: there is no config.json.")
        self._config: dict[str, Any] = config
        self._trust, self._episodes = trust, episodes
        self._read: tuple[Any, ...] = ()
        self._inspected = ("", list[Section]())  # a checkpoint's name, and what it infers
        self.film: tuple[str, bytes] | None = None  # its media type, and itself
        self.version = 0
        self._show(NO_ROWS, has_ended=False)

    def look(self) -> bool:
        """Draws the page anew where there is something new, and says whether there was.

        The curves come first: to look at what a new checkpoint infers takes seconds.
        """
        progress = (self.place / "progress.csv").read_text() or ""
        summary = (self.place / "summary.json").read_json()
        checkpoint = next((c for c in checkpoints_of_run(self.place)), None)
        name = "" if checkpoint is None else checkpoint.name
        film = self._newest_film()
        read = (progress, summary is not None, name, film)
        if read == self._read:
            return False
        if film is not None:
            with (self.place / film[1]).open() as file:
                self.film = FILMS[Path(film[1]).suffix], file.readall()
        self._read = read
        rows = pd.read_csv(io.StringIO(progress)) if progress else NO_ROWS
        self._show(rows, summary is not None)
        if checkpoint is not None and name != self._inspected[0] and self._episodes:
            self._inspected = name, self._inspect(checkpoint)
            self._show(rows, summary is not None)
        return True

    def _show(self, rows: pd.DataFrame, has_ended: bool) -> None:
        self.page = self._draw(rows, has_ended)
        self.version += 1

    def _newest_film(self) -> tuple[int, str] | None:
        films = [name for name in self.place.names() if Path(name).suffix in FILMS]
        times = self.place.filesystem.get_file_info([(self.place / name).path for name in films])
        return max(
            ((info.mtime_ns or 0, name) for info, name in zip(times, films, strict=True)),
            default=None,
        )

    def _inspect(self, checkpoint: Storage) -> list[Section]:
        title = f"What {checkpoint.name} does"
        if self._config["env"] is None:
            return []
        try:
            with tempfile.TemporaryDirectory() as directory:
                policy = CheckpointPolicy(checkpoint, self._trust)
                strip = Path(directory) / "strip.png"
                policy.record(strip, num_episodes=1)
                seen = Section(title, text="One held-out goal.", pictures=[png(strip, title)])
                return [seen, *inspected_sections(policy, Path(directory), self._episodes)]
        except (ValueError, OSError) as error:  # it needs --trust, or is removed meanwhile
            return [Section(title, text=f"Not shown: {error}")]

    def _draw(self, rows: pd.DataFrame, has_ended: bool) -> str:
        config = self._config
        is_offline = config["env"] is None or bool(config["settings"].get("offline"))
        x = "updates" if is_offline else "env_steps"
        done = 0 if rows.empty else int(rows[x].iloc[-1])
        unit = x.replace("_", " ")
        summary = f"{done:,} of {config['steps']:,} {unit}"
        if has_ended:
            summary = f"Ended after {done:,} {unit}"
        pictures = [
            curve
            for title, columns in CURVES.items()
            if (curve := _curve(rows, x, title, columns)) is not None
        ]
        sections = [Section("Learning curves", pictures=pictures, beside=True)]
        if not pictures:
            sections = [Section("Learning curves", text="No row yet.")]
        if self.film is not None:
            kind, content = self.film
            source = Markup("film?{}").format(len(content))
            tag = (
                '<video controls loop src="{}"></video>'
                if kind == "video/mp4"
                else '<img src="{}">'
            )
            sections.append(Section("The newest film", pictures=[Markup(tag).format(source)]))
        sections += self._inspected[1]
        if not rows.empty:
            last = rows.iloc[-1].dropna()
            cells = [(n, f"{last[n]:.4g} {_unit(n)}") for n in last.index if "_p" not in n]
            sections.append(Section("The last row of progress.csv", table=Table(cells)))
        return render_page(
            f"{config['objective']} on {config['env'] or 'a log'}",
            f"{self.place}, seed {config['seed']}",
            sections,
            summary,
            script=SCRIPT,
        )


def _curve(rows: pd.DataFrame, x: str, title: str, columns: list[str]) -> Markup | None:
    """A learning curve as SVG; None where there is nothing to draw."""
    if not set(columns) <= set(rows.columns):
        return None
    rows = rows.dropna(subset=columns)
    if rows.empty:
        return None
    figure, axes = plt.subplots(figsize=(5.4, 2.7), layout="constrained")
    middle = columns[len(columns) // 2]
    axes.plot(rows[x], rows[middle], color=BLUE, marker="o", markersize=3)
    if len(columns) == 3:
        axes.fill_between(rows[x], rows[columns[0]], rows[columns[2]], color=BLUE, alpha=0.2)
        title += ", median and 80 %"
    if middle == "success_rate":
        axes.set_ylim(-0.03, 1.03)
    axes.set(xlabel=x.replace("_", " "), title=f"{title} ({_unit(middle)})".replace(" ()", ""))
    axes.grid(alpha=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    plt.close(figure)
    return svg(text.getvalue())


def _unit(column: str) -> str:
    metric = METRICS.get(column)
    return "" if metric is None or metric.unit == "1" else metric.unit
