"""`lorascope serve`: dashboards and reports of all experiments on 127.0.0.1, and nothing else of the machine.

Only the pages' own files are served: the folders of `feature_dashboard` and `paper_report`, the comparison, manifests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.dashboard.config import FEATURE_DASHBOARD
from assets.paper.config import PAPER_REPORT
from dagster_project.experiment import Experiments
from dagster_project.plan import keys
from dagster_project.rooms import STAGES
from resources.errors import BadInput
from resources.home import Home
from resources.manifest import FILE_NAME
from resources.ports import HOST, PAGES_PORT
from resources.store import Store

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

COMPARISON = f"http://{HOST}:{PAGES_PORT}/comparison/index.html"
PAGES = {FEATURE_DASHBOARD.asset: "dashboard", PAPER_REPORT.asset: "report"}
"""Assets with a page, and what the list calls it."""


@dataclass(frozen=True)
class Listed:
    """One experiment of the list."""

    name: str
    description: str
    pages: Mapping[str, str]
    """What it is called -> its address; empty when nothing is computed, or the file is invalid."""
    valid: bool = True


def page_address(asset: str, key: str) -> str:
    """Where a page is, while `lorascope serve` runs on its usual port."""
    return f"http://{HOST}:{PAGES_PORT}/store/{asset}/{key}/index.html"


def listed(home: Home) -> list[Listed]:
    """Every experiment with what it has to look at; a broken file is listed with what is wrong."""
    experiments, store = Experiments(home.experiments), Store(home.store)
    return [_listed(experiments, store, name) for name in experiments.names()]


def _listed(experiments: Experiments, store: Store, name: str) -> Listed:
    try:
        experiment = experiments.load(name)
        found = keys(experiment)
    except BadInput as error:
        return Listed(name, str(error), {}, valid=False)
    pages = {PAGES[a]: f"store/{a}/{found[a]}/index.html" for a in PAGES if store.peek(a, found[a]) is not None}
    return Listed(name, experiment.description, pages)


def application(home: Home) -> "Starlette":
    """The web application; folders may appear after it has started."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse
    from starlette.routing import BaseRoute, Mount, Route
    from starlette.staticfiles import StaticFiles

    def front(request: "Request") -> "Response":
        del request
        from assets.paper.page import render_front

        comparison = "comparison/index.html" if (home.comparison / "index.html").exists() else None
        return HTMLResponse(render_front(listed(home), comparison))

    def manifest(request: "Request") -> "Response":
        asset, key = request.path_params["asset"], request.path_params["key"]
        path = Store(home.store).folder(asset, key) / FILE_NAME
        named = asset in assets and key.isalnum()  # neither dots, which lead elsewhere, nor what no file name holds
        return FileResponse(path) if named and path.is_file() else PlainTextResponse("no such artifact", 404)

    assets = {stage.asset for stage in STAGES}
    shown = [(f"/store/{asset}", home.store / asset) for asset in PAGES] + [("/comparison", home.comparison)]
    routes: list[BaseRoute] = [Route("/", front), Route("/store/{asset}/{key}/" + FILE_NAME, manifest)]
    for path, folder in shown:
        files = StaticFiles(directory=folder, html=True, check_dir=False)
        files.config_checked = True  # a folder that is not there yet has no page yet, which is no error
        routes.append(Mount(path, files))
    # A page of another site could otherwise read ours by pointing its own name at 127.0.0.1 (DNS rebinding).
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=routes, middleware=[hosts])


def serve(home: Home, port: int) -> None:
    """Serve until interrupted."""
    import uvicorn

    uvicorn.run(application(home), host=HOST, port=port, log_level="warning")
