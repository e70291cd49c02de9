"""The images of a Docker engine: implements the interface ``ImageStore`` of the room ``images``."""

import asyncio
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from anyon.domain.errors import EngineFailedError
from anyon.engines.docker_client import DockerClient
from anyon.engines.docker_errors import RefusedError, failed
from anyon.engines.docker_hosts import CHANGE, LOOK

_IMPORT = timedelta(minutes=30)
_BUILD = timedelta(hours=2)
_PIECE = 1 << 20


class DockerImages:
    """Images of the engine at *socket*."""

    def __init__(self, socket: str) -> None:
        self._client = DockerClient(socket)

    async def find(self, reference: str) -> str | None:
        """Return the image's id, or None."""
        try:
            answer = await self._client.get(f"/images/{reference}/json", deadline=LOOK)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise failed("look at an image", error) from error
        return str(answer["Id"])

    async def import_archive(self, archive: Path, *, reference: str, changes: Sequence[str]) -> str:
        """Make an image of a tar."""
        name, tag = split(reference)
        query = [("fromSrc", "-"), ("repo", name), ("tag", tag)]
        query += [("changes", change) for change in changes]
        image = ""
        try:
            with await asyncio.to_thread(archive.open, "rb") as file:
                async for message in self._client.upload(
                    "/images/create", _pieces(file), deadline=_IMPORT, query=query
                ):
                    _check(message, "import the image")
                    image = str(message.get("status") or image)
        except RefusedError as error:
            raise failed("import the image", error) from error
        return await self.find(reference) or image

    async def build(
        self, context: Path, *, reference: str, dockerfile: str, arguments: Mapping[str, str]
    ) -> AsyncIterator[str]:
        """Build a Dockerfile, yielding the builder's lines."""
        query = {
            "t": reference,
            "dockerfile": dockerfile,
            "buildargs": json.dumps(dict(arguments)),
            "rm": "1",
            "forcerm": "1",
        }
        with tempfile.TemporaryFile() as file:
            await asyncio.to_thread(pack, context, file)
            try:
                async for message in self._client.upload(
                    "/build", _pieces(file), deadline=_BUILD, query=query
                ):
                    _check(message, "build the image")
                    for line in str(message.get("stream") or message.get("status") or "").split(
                        "\n"
                    ):
                        if line.strip():
                            yield line.rstrip()
            except RefusedError as error:
                raise failed("build the image", error) from error

    async def remove(self, reference: str) -> None:
        """Remove the name."""
        try:
            await self._client.delete(f"/images/{reference}", deadline=CHANGE)
        except RefusedError as error:
            if error.status != 404:
                raise failed("remove the image", error) from error

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()


def split(reference: str) -> tuple[str, str]:
    """Return an image's name and tag; a colon before a slash is a port."""
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")


def pack(context: Path, file: IO[bytes]) -> None:
    """Write the directory *context* as a tar, without its ``.git``, and go back to its beginning."""

    def own(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if ".git" in Path(member.name).parts else member

    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(context, arcname=".", filter=own)
    file.seek(0)


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece


def _check(message: Mapping[str, Any], what: str) -> None:
    detail = message.get("errorDetail") or {}
    words = detail.get("message") or message.get("error")
    if words:
        raise EngineFailedError(
            f"the Docker engine could not {what}: {words}",
            code="image_build_failed",
            hint="the message is the builder's own; a base image needs a registry, or must be here",
        )
