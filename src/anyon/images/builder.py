"""Making workspace images: from the distribution's packages, or from a Dockerfile."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from anyon.domain.errors import EngineFailedError, InvalidInputError, MissingError
from anyon.images import bootstrap, sources
from anyon.images.images import BuildEvent, BuildStep, ImageStore, Recipe, checked, settings

_REMEMBERED = 12
_GRACE = 30.0
_SUBORDINATES = Path("/etc/subuid")


class ImageBuilder:
    """Builds images into *store*. Archives are made in *cache*, and kept there if *keep*.

    A kept archive makes the same image again in seconds, with the packages as they were.
    *read_sources* tells a suite's name and package sources, by default the machine's own.
    """

    def __init__(
        self,
        store: ImageStore,
        *,
        cache: Path,
        keep: bool = False,
        read_sources: Callable[[str | None], tuple[str, str]] = sources.of_host,
    ) -> None:
        self._read_sources = read_sources
        self._store = store
        self._cache = cache
        self._keep = keep

    async def build(self, recipe: Recipe) -> AsyncIterator[BuildEvent]:
        """Make the image of *recipe*, yielding what happens; the last event has its id.

        Raises MissingError (codes ``mmdebstrap_missing``, ``root_missing``,
        ``no_package_sources``), InvalidInputError ``bad_image_recipe``, or EngineFailedError
        ``image_build_failed``; then nothing is left behind. Closing the iterator ends the build.
        """
        recipe = checked(recipe)
        suite, text = self._read_sources(recipe.suite)
        archive = self._cache / f"{archive_key(recipe, text + trusted())}.tar"
        yield BuildEvent(step=BuildStep.PREPARE, text=f"{recipe.reference} from {suite}")
        if self._keep and await asyncio.to_thread(archive.is_file):
            yield BuildEvent(step=BuildStep.BOOTSTRAP, text=f"using {archive.name}, made before")
        else:
            check_tools()
            async for line in self._bootstrap(recipe, suite, text, archive):
                yield BuildEvent(step=BuildStep.BOOTSTRAP, text=line)
        try:
            megabytes = archive.stat().st_size // 1_000_000
            yield BuildEvent(step=BuildStep.IMPORT, text=f"importing {megabytes} MB")
            image = await self._store.import_archive(
                archive, reference=recipe.reference, changes=settings(recipe)
            )
        finally:
            if not self._keep:
                archive.unlink(missing_ok=True)
        yield BuildEvent(step=BuildStep.DONE, text=image)

    async def build_dockerfile(
        self, dockerfile: Path, *, reference: str, arguments: Mapping[str, str] | None = None
    ) -> AsyncIterator[BuildEvent]:
        """Build *dockerfile* with its directory as context, by the engine's own builder.

        Raises InvalidInputError (code ``dockerfile_missing``) or what the store raises.
        """
        reference = checked(Recipe(reference=reference)).reference
        if not await asyncio.to_thread(dockerfile.is_file):
            raise InvalidInputError(
                f"there is no Dockerfile at {dockerfile}", code="dockerfile_missing"
            )
        lines = self._store.build(
            dockerfile.parent,
            reference=reference,
            dockerfile=dockerfile.name,
            arguments=arguments or {},
        )
        async for line in lines:
            yield BuildEvent(step=BuildStep.BUILD, text=line)
        image = await self._store.find(reference)
        if image is None:
            raise EngineFailedError(
                f"the builder ended without an image {reference}", code="image_build_failed"
            )
        yield BuildEvent(step=BuildStep.DONE, text=image)

    async def _bootstrap(
        self, recipe: Recipe, suite: str, text: str, archive: Path
    ) -> AsyncIterator[str]:
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="anyon-image-", dir=self._cache) as directory:
            listed = Path(directory) / "host.sources"
            listed.write_text(text, encoding="utf-8")
            part = Path(directory) / "root.tar"
            argv = bootstrap.command(recipe, suite=suite, sources=listed, archive=part)
            async with contextlib.aclosing(run(argv)) as lines:
                async for line in lines:
                    yield line
            part.replace(archive)


def archive_key(recipe: Recipe, text: str) -> str:
    """Return a name for what *recipe* gives from the sources *text*."""
    nowhere = Path("-")
    told = bootstrap.command(recipe, suite="-", sources=nowhere, archive=nowhere)
    parts = [text, *told, str(recipe.suite)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def trusted(directory: Path = bootstrap.AUTHORITIES) -> str:
    """Return the certificates that this machine trusts on its own, which go into an image."""
    return "".join(file.read_text("utf-8", "replace") for file in sorted(directory.glob("*.crt")))


def check_tools() -> None:
    """Raise MissingError where mmdebstrap, or the right to use it, is missing."""
    if shutil.which("mmdebstrap") is None:
        raise MissingError(
            "mmdebstrap, which makes images from packages, is not installed",
            code="mmdebstrap_missing",
            hint="apt-get install mmdebstrap; or build from a Dockerfile (needs a registry)",
        )
    if os.geteuid() != 0 and not (shutil.which("newuidmap") and _SUBORDINATES.is_file()):
        raise MissingError(
            "making an image from packages needs root, or subordinate user ids",
            code="root_missing",
            hint="run it as root; or apt-get install uidmap and give this user a line in /etc/subuid",
        )


async def run(argv: Sequence[str]) -> AsyncGenerator[str, None]:
    """Run a program and yield its lines of stderr; closing the iterator ends the program.

    Raises EngineFailedError (code ``image_build_failed``) with its last words when it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
        start_new_session=True,  # a Ctrl-C is ours to pass on, once
    )
    assert process.stderr is not None
    last: deque[str] = deque(maxlen=_REMEMBERED)
    try:
        async for raw in process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            if line:
                last.append(line)
                yield line
        code = await process.wait()
    finally:
        if process.returncode is None:
            await _end(process)
    if code != 0:
        raise EngineFailedError(
            f"{argv[0]} ended with {code}:\n" + "\n".join(last),
            code="image_build_failed",
            hint="the lines are its own: look for a package's name, the network or a full disk",
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    # TERM, and time: it has file systems to unmount and a directory to remove.
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _GRACE)
    except TimeoutError:
        process.kill()
        await process.wait()
