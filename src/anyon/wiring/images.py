"""Making a workspace image, as ``anyon image build`` asks for it."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from anyon.config import Settings
from anyon.engines.docker_images import DockerImages
from anyon.images.builder import ImageBuilder
from anyon.images.images import FULL, BuildEvent, Recipe
from anyon.wiring.engines import docker_socket


async def build(
    settings: Settings,
    *,
    reference: str,
    agents: Sequence[str] = (),
    dockerfile: Path | None = None,
) -> AsyncIterator[BuildEvent]:
    """Build *reference* and yield what is done; *agents* are agents' names or npm packages."""
    store = DockerImages(docker_socket(settings))
    builder = ImageBuilder(store, cache=settings.home / "images")
    recipe = Recipe(
        reference=reference, packages=FULL, npm=tuple(agents), uid=settings.container_uid
    )
    events = (
        builder.build(recipe)
        if dockerfile is None
        else builder.build_dockerfile(dockerfile, reference=reference)
    )
    try:
        async for event in events:
            yield event
    finally:
        await store.close()
