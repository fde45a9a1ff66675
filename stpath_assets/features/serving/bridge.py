"""The process that speaks with the cluster for a step: `python -m stpath_assets.features.serving.bridge ADDRESS IN OUT`.

Ray ends a process whose cluster is gone, and writes to its terminal; in a process of its own that costs the step nothing.
Requests come in by one pipe and answers go out by another, in any order. Ends with the step, or when the cluster is lost.
"""

import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from stpath_assets.errors import FeatureError, ServingError, StpathError
from stpath_assets.features.serving.cluster import connect, knock
from stpath_assets.features.serving.messages import APPLICATION, DEPLOYMENT, Hello

DEPLOYING_S = 600.0
"""Longest time that an encoder may take to load."""

_PULSE_S, _DEAF_S = 2.0, 30.0
_DEATHS = 5  # of a replica at one request: then the request is what kills it


class Bridge:
    """The two pipes and the handle of the application."""

    def __init__(self, address: str, incoming: Connection, outgoing: Connection) -> None:
        self._in, self._out, self._sending = incoming, outgoing, threading.Lock()
        self._ray = connect(address)
        from ray import serve

        self._serve = serve
        self._replicas = self._wait_until_running(address)
        self._handle = serve.get_app_handle(APPLICATION)

    def run(self) -> None:
        """Says hello and answers until the step closes its end."""
        hello = Hello(**self._handle.hello.remote().result(timeout_s=DEPLOYING_S), replicas=self._replicas)
        self._send("hello", hello)
        threading.Thread(target=self._watch, daemon=True).start()
        with ThreadPoolExecutor(hello.replicas * hello.in_flight) as pool:
            while True:
                try:
                    number, request = self._in.recv()
                except EOFError:
                    os._exit(0)  # the step is gone: nobody waits for what is still being computed
                pool.submit(self._answer, number, request)

    def _answer(self, number: int, request: Any) -> None:
        from ray.exceptions import RayActorError

        for _ in range(_DEATHS):
            try:
                self._send(number, self._handle.embed.remote(request).result())
            except RayActorError:
                time.sleep(0.5)  # a replica has died or is being started again: its successor gets the request
            except Exception as e:
                said = " ".join(str(getattr(e, "cause", None) or e).split())[-200:]
                self._send(
                    number, FeatureError(f"the served encoder failed ({type(e).__name__}: {said}); see Ray's logs")
                )
                return
            else:
                return
        died = f"the served encoder died {_DEATHS} times at the same tiles; see Ray's logs, or lower the batch size"
        self._send(number, FeatureError(died))

    def _wait_until_running(self, address: str) -> int:
        """The number of replicas that run, once any does."""
        began = time.monotonic()
        while True:
            application = self._serve.status().applications.get(APPLICATION)
            if application is None:
                raise ServingError(
                    f"no encoder is served on the Ray cluster at {address}; run: stpath-assets gigapath serve"
                )
            deployment = application.deployments.get(DEPLOYMENT)
            running = (
                sum(n for state, n in deployment.replica_states.items() if state == "RUNNING") if deployment else 0
            )
            if running:
                return running
            if application.status in ("DEPLOY_FAILED", "DELETING") or time.monotonic() - began > DEPLOYING_S:
                raise ServingError(
                    f"the encoder on the Ray cluster at {address} is {application.status}; serve it again"
                )
            time.sleep(0.5)

    def _watch(self) -> None:
        """Ends this process when the cluster no longer answers: requests to one that is gone would wait for ever."""
        pool, at = ThreadPoolExecutor(1), self._ray.get_runtime_context().gcs_address
        while True:
            time.sleep(_PULSE_S)
            try:
                knock(at)
            except OSError:
                os._exit(3)
            # Something listens there; is it the cluster that this process knows?
            pulse: Future[Any] = pool.submit(self._serve.status)
            try:
                gone = APPLICATION not in pulse.result(timeout=_DEAF_S).applications
            except Exception:  # a timeout, or whatever Ray raises of a cluster that is not there
                gone = True
            if gone:
                os._exit(3)

    def _send(self, what: int | str, value: Any) -> None:
        with self._sending:
            self._out.send((what, value))


def main(address: str, incoming: str, outgoing: str) -> None:
    """Runs a bridge between two inherited pipes."""
    out = Connection(int(outgoing), readable=False)
    try:
        Bridge(address, Connection(int(incoming), writable=False), out).run()
    except StpathError as e:
        out.send(("fatal", e))
    except Exception as e:  # whatever Ray raises while a cluster comes or goes
        said = " ".join(str(e).split())[:200]
        out.send(("fatal", ServingError(f"the Ray cluster at {address} does not answer ({type(e).__name__}: {said})")))


if __name__ == "__main__":
    main(*sys.argv[1:])
