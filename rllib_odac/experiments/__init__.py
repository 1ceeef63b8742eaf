"""Runs, studies and sweeps: what is asked for, where it is stored and what came out.

run.py      one training run in a directory           spec.py        what a run is
study.py    tasks × methods × seeds                   spec_files.py  how files name runs
            study_runner.py makes its runs            sweeps/        searches with Ray Tune
            study_results.py keeps their results
"""
