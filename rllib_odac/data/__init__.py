"""Logs as training data: recorded, read in any of several formats, and described.

ODAC needs no reward, so any log of states and actions will do.
"""

from rllib_odac.data.logged import LoggedEpisode
from rllib_odac.data.read import read_episodes
from rllib_odac.data.record import record

__all__ = ["LoggedEpisode", "read_episodes", "record"]
