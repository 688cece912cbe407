"""The HTTP interface as an application: its endpoints, and the one form of its errors.

Every endpoint but ``/healthz`` asks for a token with a scope.
"""

from typing import Any

from phalanx.errors import ExtraMissingError
from phalanx.service.endpoints import Backend, Endpoints
from phalanx.service.http_guard import ApiError, Guard, error_headers
from phalanx.service.metrics import Metrics
from phalanx.service.openapi import PATHS

__all__ = ["create_app"]


def create_app(backend: Backend) -> Guard:
    """The application, for any ASGI server.

    Raises:
        ExtraMissingError: the package fastapi is missing.
    """
    try:
        from fastapi import FastAPI
    except ImportError:
        raise ExtraMissingError("fastapi", "serve", "serving over HTTP") from None
    from importlib.metadata import version

    app = FastAPI(
        title="phalanx", version=version("phalanx"), docs_url=None, redoc_url=None, openapi_url=None
    )
    _handle_errors(app, backend.metrics)
    api = Endpoints(backend, app.title, app.version)
    for path in PATHS:
        app.router.add_route(path.path, getattr(api, path.name), [path.method])
    return Guard(app, backend.metrics.request)


def _handle_errors(app: Any, metrics: Metrics) -> None:
    """Makes every error one of our form."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

    def answered(error: ApiError) -> Any:
        metrics.refuse(error.code)
        return Response(error.body, error.status, error_headers(error))

    async def own(request: Any, error: Any) -> Any:
        return answered(error)

    async def http(request: Any, error: Any) -> Any:
        code = {404: "not-found", 405: "not-allowed"}.get(error.status_code, "bad-request")
        headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
        what = "there is nothing like that here"
        if headers:
            what = f"this path takes {', '.join(headers.values())}"
        return answered(ApiError(error.status_code, code, what, "See GET /openapi.json", headers))

    async def invalid(request: Any, error: Any) -> Any:
        return answered(
            ApiError(400, "bad-request", "an argument is not what it should be", "See GET /openapi.json")
        )

    async def unforeseen(request: Any, error: Any) -> Any:
        return answered(ApiError(500, "internal", "an error that is logged", "Tell the operator"))

    app.add_exception_handler(Exception, unforeseen)
    app.add_exception_handler(ApiError, own)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
