"""What goes wrong with a Docker engine, in Anyon's own errors with what to do about each."""

import json

from anyon.domain.errors import (
    AnyonError,
    ConflictError,
    EngineFailedError,
    EngineUnavailableError,
    MissingError,
    NotFoundError,
)
from anyon.domain.ids import ProjectId


class RefusedError(Exception):
    """The engine answered with a status that is an error; for callers that tell them apart."""

    code = "refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"[{status}] {message}")
        self.status = status
        self.message = message


def message_of(body: bytes) -> str:
    """Return the words of an error's body."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip()
    if isinstance(parsed, dict):
        return str(parsed.get("message") or parsed.get("cause") or parsed)
    return str(parsed)


def unreachable(at: str, error: Exception) -> EngineUnavailableError:
    """Return the error for an engine that cannot be reached, with what to do about it."""
    reason = error.__cause__ or error
    system = getattr(error, "os_error", None) or reason
    if isinstance(system, FileNotFoundError):
        hint = "start Docker or Podman, set docker_socket to its socket, or use engine = bubblewrap"
    elif isinstance(system, PermissionError):
        hint = "give this user access to the socket (the group docker), or run rootless Podman"
    elif isinstance(system, ConnectionRefusedError):
        hint = "nothing listens there: start Docker again (`anyon doctor` looks for other engines)"
    else:
        hint = "the engine may be starting again; repeat the call, or look at the engine's log"
    return EngineUnavailableError(
        f"the Docker engine at {at} cannot be reached: {error}", hint=hint
    )


def failed(what: str, error: RefusedError) -> AnyonError:
    """Return the error for a call that the engine refused for no reason known here."""
    return EngineFailedError(
        f"the Docker engine could not {what}: {error.message}",
        hint="the message is the engine's own; `anyon doctor` checks the engine",
    )


def absent(project: ProjectId) -> NotFoundError:
    """Return the error for a project without a container."""
    return NotFoundError(f"project {project} has no container", code="container_absent")


def frozen(project: ProjectId) -> ConflictError:
    """Return the error for what a frozen container cannot do."""
    return ConflictError(
        f"the container of project {project} is frozen", code="frozen", hint="thaw it first"
    )


def image_missing(image: str, error: RefusedError) -> MissingError:
    """Return the error for an image that the engine does not have."""
    return MissingError(
        f"the image {image} is not there: {error.message}",
        code="image_missing",
        hint="`anyon image build` makes one without a registry; or `docker pull` it",
    )


def start_failed(error: RefusedError) -> AnyonError:
    """Return the error for a container that does not start, by the engine's words."""
    words = error.message
    if "executable file not found" in words and "docker-init" not in words:
        return MissingError(
            f"the image cannot be used: it lacks a basic program ({words})",
            code="image_unusable",
            hint="an image needs sh, sleep and git; `anyon image build` makes one",
        )
    if "docker-init" in words or "catatonit" in words:
        return MissingError(
            f"the engine lacks its init: {words}",
            code="init_missing",
            hint="install tini (for Docker) or catatonit (for Podman)",
        )
    return failed("start the container", error)
