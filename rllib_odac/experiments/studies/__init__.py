"""Studies: grids of runs, made on as many CPUs as there are, and their results."""

from rllib_odac.experiments.studies.runner import run_study
from rllib_odac.experiments.studies.study import Study, StudyRun, read_study, select

__all__ = ["Study", "StudyRun", "read_study", "run_study", "select"]
