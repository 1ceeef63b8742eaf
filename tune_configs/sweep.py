"""Hyper-parameter search with Ray Tune; the same command on a laptop and on any Ray cluster.

    python tune_configs/sweep.py                          # FetchReach, 24 configurations
    python tune_configs/sweep.py --study sawyer_window --seeds 2 --searcher optuna
    python tune_configs/sweep.py --env odac/Box2D-v0 --objective her --steps 30000
    ray job submit --working-dir . -- python tune_configs/sweep.py

It is `odac sweep`, for `ray job submit` with a working directory. Studies, with their search space,
stop rule and pass threshold, stand in rllib_odac/tuned/sweeps.
"""

from rllib_odac.cli.sweep import main

if __name__ == "__main__":
    main()
