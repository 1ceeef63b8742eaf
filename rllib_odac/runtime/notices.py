"""`Notices`: word that a node is going away, early enough to save what would be lost with it.

Clouds tell a spot machine that it will be taken, and autoscalers drain a node before they end it.
Ray keeps a list of such nodes, whoever told it: its own autoscaler, or `ray drain-node`.
"""

from __future__ import annotations

import logging
import time

from rllib_odac.ray_compat import draining_nodes

ASK_EVERY_S = 2.0

logger = logging.getLogger(__name__)


class Notices:
    """What has been heard of nodes that are going away."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._known: set[str] = set()

    def has_news(self) -> bool:
        """Whether a node is going away that was not on the list before; asks every few seconds."""
        if time.monotonic() - self._asked < ASK_EVERY_S:
            return False
        self._asked = time.monotonic()
        news = draining_nodes() - self._known
        self._known |= news
        if news:
            logger.warning("Of the cluster's nodes %d will soon go away.", len(news))
        return bool(news)
