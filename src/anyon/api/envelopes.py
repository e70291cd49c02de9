"""Every answer's form, errors too: what was raised becomes a status and the four keys."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from anyon.domain.errors import AnyonError
from anyon.sdk.models import ErrorEnvelope

log = structlog.get_logger(__name__)

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": words}
    for status, words in {
        400: "A path or query value is malformed.",
        401: "A token is needed, or the one given is no good.",
        403: "The caller may not, or the request came from another web site.",
        404: "There is no such thing, or it is another's.",
        408: "The body did not come in time.",
        409: "The thing is in a state that forbids this.",
        413: "The body is too large.",
        416: "The range begins beyond the end.",
        421: "The Host header does not name this server.",
        422: "The data is wrong; the message says where.",
        424: "Something must be installed or set first.",
        429: "A quota is used up.",
        500: "A mistake of the server's; its log says more.",
        502: "The engine failed.",
        503: "A part that Anyon needs does not answer.",
        504: "An answer did not come in time.",
    }.items()
}
"""The errors of every route, for the OpenAPI document."""


def error_body(code: str, message: str, hint: str = "", /, **more: Any) -> dict[str, Any]:
    """Return an error's envelope; *more* are keys of its ``error_data``, whatever their names."""
    return {
        "success": False,
        "data": None,
        "error_data": {"code": code, "hint": hint, **more},
        "message": message,
    }


def error_of(error: AnyonError, path: str = "") -> JSONResponse:
    """Return the response that tells *error* of a request for *path*."""
    more: dict[str, Any] = {}
    if error.code == "merge_conflict":  # the front end reads this form
        op = "rebase" if path.endswith("/rebase") else "merge"
        more = {"type": "merge_conflicts", "message": error.message, "op": op}
    if error.code == "rebase_in_progress":
        more = {"type": "rebase_in_progress"}
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    if error.status == 413:  # the rest of the body is never read
        headers = {"Connection": "close"}
    body = error_body(error.code, error.message, error.hint, **more)
    return JSONResponse(body, error.status, headers)


async def answer(connection: HTTPConnection, response: Response) -> Response | None:
    """Give an error's response to a request, or to a WebSocket's opening; an open one is closed."""
    if not isinstance(connection, WebSocket):
        return response
    if connection.application_state is not WebSocketState.CONNECTING:
        await connection.close(1011)
    elif "websocket.http.response" in connection.scope.get("extensions", {}):
        await connection.send_denial_response(response)
    else:
        await connection.close(1008)
    return None


def wrong_input(errors: Sequence[Mapping[str, Any]]) -> JSONResponse:
    """Return the response to values of a wrong form: what, where, and never the value itself."""
    places = [".".join(str(part) for part in error["loc"]) for error in errors]
    words = "; ".join(
        f"{place}: {error['msg']}" for place, error in zip(places, errors, strict=True)
    )
    first = str(errors[0]["loc"][0]) if errors else "body"
    kinds = {str(error["type"]) for error in errors}
    if first in {"path", "query", "header"}:
        return JSONResponse(error_body("malformed", words[:2000]), 400)
    if "json_invalid" in kinds:
        hint = "Send a JSON object as the body."
        return JSONResponse(error_body("not_json", "The body is not JSON.", hint), 400)
    return JSONResponse(error_body("invalid_input", words[:2000]), 422)


async def _on_anyon_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, AnyonError)
    if error.status >= 500:
        log.warning("request.failed", path=connection.url.path, code=error.code, detail=str(error))
    return await answer(connection, error_of(error, connection.url.path))


async def _on_wrong_input(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, (RequestValidationError, WebSocketRequestValidationError))
    return await answer(connection, wrong_input(error.errors()))


async def _on_http_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, HTTPException)
    code = {400: "not_json", 404: "no_such_route", 405: "method_not_allowed"}.get(
        error.status_code, f"http_{error.status_code}"
    )
    body = error_body(code, str(error.detail))
    headers = dict(error.headers) if error.headers else None
    return await answer(connection, JSONResponse(body, error.status_code, headers))


async def _on_mistake(request: Request, error: Exception) -> Response:
    log.error("request.crashed", path=request.url.path, exc_info=error)
    hint = "The server's log says more; please report it."
    return JSONResponse(error_body("internal", "The server made a mistake.", hint), 500)


def install(app: FastAPI) -> None:
    """Make *app* answer all its errors in the envelope."""
    app.add_exception_handler(AnyonError, _on_anyon_error)  # type: ignore[arg-type] # WebSockets too
    app.add_exception_handler(RequestValidationError, _on_wrong_input)  # type: ignore[arg-type] # as above
    app.add_exception_handler(WebSocketRequestValidationError, _on_wrong_input)  # type: ignore[arg-type] # as above
    app.add_exception_handler(HTTPException, _on_http_error)  # type: ignore[arg-type] # as above
    app.add_exception_handler(Exception, _on_mistake)
