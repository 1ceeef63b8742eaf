"""`Notices`: word that a node is going away, early enough to save what would be lost with it.

Clouds tell a spot machine that it will be taken, and autoscalers drain a node before they end it.
Ray keeps a list of such nodes, whoever told it: its own autoscaler, or `ray drain-node`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time

from rllib_odac.ray_compat import draining_nodes

ASK_EVERY_S = 2.0

logger = logging.getLogger(__name__)


class Notices:
    """What has been heard of nodes that are going away."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._is_asking = False
        self._answers: queue.SimpleQueue[set[str]] = queue.SimpleQueue()
        self._known: set[str] = set()

    def has_news(self) -> bool:
        """Whether a node is going away that was not on the list before; waits for nothing."""
        if not self._is_asking and time.monotonic() - self._asked >= ASK_EVERY_S:
            self._is_asking = True
            threading.Thread(target=self._ask, daemon=True).start()
        try:
            news = self._answers.get_nowait() - self._known
        except queue.Empty:
            return False
        self._asked, self._is_asking = time.monotonic(), False
        self._known |= news
        if news:
            logger.warning("Of the cluster's nodes %d will soon go away.", len(news))
        return bool(news)

    def _ask(self) -> None:
        # While the cluster's head is away this waits for it, up to a minute, or fails.
        try:
            self._answers.put(draining_nodes())
        except Exception:
            self._answers.put(set())
