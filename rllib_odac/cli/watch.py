"""`odac watch`."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Annotated

import typer

from rllib_odac.cli.common import Debug, Trust, errors_in_one_sentence, quiet_libraries

if TYPE_CHECKING:
    from rllib_odac.evaluation.watch import WatchedRun


def watch(
    run: Annotated[str, typer.Argument(help="A run's directory, or its URI.")],
    port: Annotated[int, typer.Option(help="Port of this machine; 0: one that is free.")] = 8271,
    every: Annotated[float, typer.Option(help="Seconds between two looks at the run.")] = 2.0,
    episodes: Annotated[
        int, typer.Option(help="Episodes that show what the newest checkpoint infers; 0: none.")
    ] = 5,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Show a run, while it trains or later, as a page in the browser that follows it.

    Learning curves, the newest film in the run's directory, and what the newest checkpoint infers.
    It reads the run's directory alone, and only this machine can open the page.
    """
    with errors_in_one_sentence(debug), quiet_libraries(debug):
        from rllib_odac.evaluation.watch import WatchedRun

        if not every > 0:
            raise ValueError(f"every is {every}, but must be above 0.")
        watched = WatchedRun(run, trust, episodes)
        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), _handler(watched))
        except (OSError, OverflowError) as error:
            raise ValueError(f"port is {port}, which cannot be opened: {error}.") from None
        # Pictures are drawn in this thread, as Matplotlib asks for; the other one hands them out.
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        try:
            while True:
                watched.look()
                time.sleep(every)
        except KeyboardInterrupt:
            server.shutdown()


def _handler(watched: WatchedRun) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            answers = {
                "/": ("text/html; charset=utf-8", watched.page.encode()),
                "/version": ("text/plain", str(watched.version).encode()),
            }
            if watched.film is not None:
                answers["/film"] = watched.film
            if path not in answers:
                self.send_error(404)
                return
            kind, content = answers[path]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    return Handler
