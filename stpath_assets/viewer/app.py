"""The viewer's URLs: thin, each asks `answers`, `scans` or `regions`, and turns errors into one line of JSON.

Only slides of the lake are served, by their slide_id; no path comes from a request. Reading is free for whoever reaches the
port, which is this machine; the one change, saving regions, must come from the viewer's own page (`guard`).
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import wraps
from pathlib import Path
from threading import Thread
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from stpath_assets.errors import StpathError, one_line
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.version import __version__
from stpath_assets.viewer.answers import Answers
from stpath_assets.viewer.guard import App, allowed_hosts, guard
from stpath_assets.viewer.pyramid import TILE_PX
from stpath_assets.viewer.regions import MOST_BYTES, RegionsChangedError, read_drawn, save_drawn
from stpath_assets.viewer.scans import Scans

STATIC = Path(__file__).with_name("static")
_HEADERS = {
    # What the page loads comes from here. Pictures of regions and downloads are made in the page.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Pages of others cannot show our pictures either.
    "cross-origin-resource-policy": "same-origin",
}
_FOR_A_DAY = {"cache-control": "private, max-age=86400, immutable"}
_THUMBNAIL_PX, _CROP_PX = 400, 224
_JPEG = "image/jpeg"


def create_app(settings: Settings, answers: Answers | None = None) -> App:
    """Return the viewer of a data root as an ASGI app, behind its filter. `answers` is what it asks, for who ends it early."""
    pages = _Pages(settings, answers or Answers(settings))
    one = "/api/slides/{slide_id}"
    routes = [
        Route("/", _page("slides.html")),
        Route("/slides/{slide_id}", pages.slide_page),
        Route("/api/slides", pages.slides),
        Route(one, pages.slide),
        Route(f"{one}/thumbnail.jpg", pages.thumbnail),
        Route(f"{one}/picture/{{version}}/{{level:int}}/{{column:int}}_{{row:int}}.jpg", pages.picture),
        Route(f"{one}/genes", pages.genes),
        Route(f"{one}/expression", pages.expression),
        Route(f"{one}/measured", pages.measured),
        Route(f"{one}/tiles/{{tile_id}}.jpg", pages.crop),
        Route(f"{one}/tiles/{{tile_id}}", pages.tile),
        Route(f"{one}/tiles/{{tile_id}}/similar", pages.similar),
        Route(f"{one}/regions", pages.regions),
        Route(f"{one}/regions", pages.save_regions, methods=["PUT"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes, lifespan=pages.lifespan, exception_handlers={HTTPException: _refuse, StpathError: _refuse_known}
    )
    return guard(_with_headers(app), allowed_hosts())


Asked = Callable[["_Pages", Request], Response]


def _threaded(work: Asked) -> Any:
    """Run a handler in a thread: it reads files and asks the lake."""

    @wraps(work)
    async def handle(self: "_Pages", request: Request) -> Response:
        return await run_in_threadpool(work, self, request)

    return handle


class _Pages:
    """The handlers of one data root."""

    def __init__(self, settings: Settings, answers: Answers) -> None:
        self.store, self.answers = Store.of(settings), answers
        self.scans = Scans(self.store)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Begin with a question: the first opens the lake and loads libraries, better before than while someone waits. End with
        stopping those that still run: a process that exits in the middle of one is aborted.
        """
        first = Thread(target=self.warm_up)
        first.start()
        yield
        await run_in_threadpool(self.answers.close)
        first.join()

    def warm_up(self) -> None:
        """Ask one question of each kind. What is wrong will be said to whoever asks."""
        with suppress(Exception):
            first = self.answers.slides()[0]["slide_id"]
            gene = self.answers.genes(first, self.answers.models(first)[0]["model"])[0]["gene"]
            self.answers.measured(first, gene, "")

    @_threaded
    def slide_page(self, request: Request) -> Response:
        self.scans.row(request.path_params["slide_id"])
        return FileResponse(STATIC / "slide.html")

    @_threaded
    def slides(self, request: Request) -> Response:
        return JSONResponse({"slides": self.answers.slides(), "version": __version__})

    @_threaded
    def slide(self, request: Request) -> Response:
        """What the page needs before it shows anything. Neither label nor macro image, nor a path, is among it."""
        row = self.scans.row(request.path_params["slide_id"])
        pyramid = self.scans.pyramid(row.slide_id)
        return JSONResponse(
            {
                **{
                    name: getattr(row, name)
                    for name in ("slide_id", "organ", "tech", "cohort", "mpp", "objective_power")
                },
                "width": pyramid.width,
                "height": pyramid.height,
                "stretch_y": pyramid.stretch_y,
                "tile_px": TILE_PX,
                "version": row.sha256[:12],
                "models": self.answers.models(row.slide_id),
                "measured": row.spots_uri is not None,
                "warnings": list(row.warnings),
            }
        )

    @_threaded
    def thumbnail(self, request: Request) -> Response:
        pyramid = self.scans.pyramid(request.path_params["slide_id"])
        scale = min(1.0, _THUMBNAIL_PX / max(pyramid.width, pyramid.height))
        size = (max(1, round(pyramid.width * scale)), max(1, round(pyramid.height * scale)))
        picture = pyramid.region(0, 0, pyramid.width, pyramid.slide.height_px, size)
        return Response(picture, media_type=_JPEG)

    @_threaded
    def picture(self, request: Request) -> Response:
        at = request.path_params
        try:
            picture = self.scans.pyramid(at["slide_id"]).tile(at["level"], at["column"], at["row"])
        except KeyError as e:
            raise HTTPException(404, f"no such picture: {e.args[0]}") from e
        return Response(picture, media_type=_JPEG, headers=_FOR_A_DAY)

    @_threaded
    def genes(self, request: Request) -> Response:
        row = self.scans.row(request.path_params["slide_id"])
        return JSONResponse({"genes": self.answers.genes(row.slide_id, _asked(request, "model"))})

    @_threaded
    def expression(self, request: Request) -> Response:
        row, gene, model = (
            self.scans.row(request.path_params["slide_id"]),
            _asked(request, "gene"),
            _asked(request, "model"),
        )
        found = self.answers.expression(row.slide_id, gene, model)
        if not found["tile_id"]:
            raise HTTPException(404, f"{row.slide_id}: {model} has not predicted {gene}; choose a gene of the list")
        return JSONResponse(found)

    @_threaded
    def measured(self, request: Request) -> Response:
        row = self.scans.row(request.path_params["slide_id"])
        found = self.answers.measured(row.slide_id, _asked(request, "gene"), _asked(request, "model"))
        return JSONResponse(found)

    @_threaded
    def tile(self, request: Request) -> Response:
        row, tile_id = self.scans.row(request.path_params["slide_id"]), request.path_params["tile_id"]
        found = self.answers.tile(row.slide_id, tile_id, _asked(request, "model"))
        if found is None:
            raise _no_tile(row.slide_id, tile_id)
        return JSONResponse(found)

    @_threaded
    def similar(self, request: Request) -> Response:
        row, tile_id = self.scans.row(request.path_params["slide_id"]), request.path_params["tile_id"]
        if self.answers.place_of(row.slide_id, tile_id) is None:
            raise _no_tile(row.slide_id, tile_id)
        return JSONResponse({"tiles": self.answers.similar(row.slide_id, tile_id)})

    @_threaded
    def crop(self, request: Request) -> Response:
        """One tile's picture."""
        row, tile_id = self.scans.row(request.path_params["slide_id"]), request.path_params["tile_id"]
        place = self.answers.place_of(row.slide_id, tile_id)
        if place is None:
            raise _no_tile(row.slide_id, tile_id)
        x, y, side = place
        pyramid = self.scans.pyramid(row.slide_id)
        return Response(pyramid.region(x, y, side, side / pyramid.stretch_y, (_CROP_PX, _CROP_PX)), media_type=_JPEG)

    @_threaded
    def regions(self, request: Request) -> Response:
        return JSONResponse(read_drawn(self.scans.row(request.path_params["slide_id"])))

    async def save_regions(self, request: Request) -> Response:
        """Keep regions: a JSON object of their GeoJSON, `regions`, and the digest that the page read, `before`."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise HTTPException(415, "regions come as JSON (content-type application/json)")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"regions have more than {MOST_BYTES // 2**20} MB; draw fewer points")
        try:
            said = json.loads(body)
            regions, before = said["regions"], str(said["before"])
        except (ValueError, TypeError, KeyError) as e:
            raise HTTPException(400, "regions come as an object with `regions` and `before`") from e

        def save() -> str:
            return save_drawn(self.store, self.scans.row(request.path_params["slide_id"]), regions, before)

        return JSONResponse({"digest": await run_in_threadpool(save)})


def _asked(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise HTTPException(400, f"the question has no {name}")
    return value


def _no_tile(slide_id: str, tile_id: str) -> HTTPException:
    return HTTPException(404, f"{slide_id}: its grid has no tile {tile_id}; reload the page")


def _page(name: str) -> Callable[[Request], Response]:
    def page(_request: Request) -> Response:
        return FileResponse(STATIC / name)

    return page


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(request, error.status_code, error.detail)


def _refuse_known(request: Request, error: Exception) -> Response:
    changed, unknown = isinstance(error, RegionsChangedError), "no such slide" in str(error)
    return _said(request, 409 if changed else 404 if unknown else 422, str(error))


def _said(request: Request, status: int, why: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": one_line(why)}, status)
    # A page of its own for whoever opens an old link. It asks for its text, so that nothing is written into HTML here.
    return Response((STATIC / "missing.html").read_bytes(), status, media_type="text/html")


def _with_headers(app: Any) -> App:
    async def answered(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def send_more(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await app(scope, receive, send_more)

    return answered
