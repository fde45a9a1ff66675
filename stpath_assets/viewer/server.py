"""Serves the viewer on this machine until it is interrupted."""

import socket
from collections.abc import Callable
from threading import Thread
from types import FrameType
from urllib.parse import quote, urlencode

import uvicorn

from stpath_assets.errors import ServingError
from stpath_assets.settings import Settings
from stpath_assets.viewer.answers import Answers
from stpath_assets.viewer.app import create_app

HOST = "127.0.0.1"


def link_to(settings: Settings, slide_id: str | None = None, port: int | None = None, **shown: str) -> str:
    """Return the viewer's address, of a slide if one is given; `shown` is what it opens with: gene, model, tile."""
    address = f"http://{HOST}:{port or settings.viewer_port}/"
    if slide_id is None:
        return address
    return f"{address}slides/{quote(slide_id, safe='')}" + (f"?{urlencode(shown)}" if shown else "")


def serve(settings: Settings, port: int, ready: Callable[[int], object] = lambda _: None) -> None:
    """Serve the viewer on `port` of 127.0.0.1, any free one for 0, until SIGINT or SIGTERM.

    `ready` is called with the port once it listens. Raises `ServingError` if the port is taken.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as e:
            raise ServingError(
                f"port {port} of {HOST} is taken or forbidden ({e.strerror}); give another: view --port 0 takes a free one"
            ) from e
        listening.listen(128)
        answers = Answers(settings)
        app = create_app(settings, answers)
        ready(int(listening.getsockname()[1]))
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=5)
        _Server(config, answers).run([listening])


class _Server(uvicorn.Server):
    """A server that stops running questions when it is told to end, and so does not wait for them."""

    def __init__(self, config: uvicorn.Config, answers: Answers) -> None:
        super().__init__(config)
        self._answers = answers

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # In a thread: a signal's handler must not wait.
        Thread(target=self._answers.close).start()
        super().handle_exit(sig, frame)
