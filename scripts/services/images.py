"""Build the images that the tests use, where they are not there: images.py [--cache DIR] [--fresh | --status].

The archives are kept, so that an engine that lost its images has them again in seconds.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from anyon.domain.errors import AnyonError
from anyon.engines import docker_sockets
from anyon.engines.docker_images import DockerImages
from anyon.images.builder import ImageBuilder
from anyon.images.images import FULL, BuildStep, Recipe

RECIPES = (
    Recipe(reference="anyon/workspace:latest"),
    Recipe(reference="anyon/workspace:full", packages=FULL),
)


async def main(cache: Path, *, fresh: bool, only_look: bool) -> None:
    """Build what is missing, saying so line by line."""
    socket = docker_sockets.find()
    if socket is None:
        sys.exit("images: no engine answers; what to do: scripts/services/docker.sh start")
    store = DockerImages(socket)
    try:
        for recipe in RECIPES:
            if not fresh and await store.find(recipe.reference):
                print(f"images: {recipe.reference} is there")
                continue
            if only_look:
                sys.exit(f"images: {recipe.reference} is missing")
            builder = ImageBuilder(store, cache=cache, keep=True)
            async for event in builder.build(recipe):
                if event.step is not BuildStep.BOOTSTRAP or event.text.startswith("I: "):
                    print(f"images: {event.step}: {event.text}", flush=True)
    except AnyonError as error:
        sys.exit(f"images: {error.message}\nimages: what to do: {error.hint or 'see above'}")
    finally:
        await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".cache/images"))
    parser.add_argument("--fresh", action="store_true", help="build again, with packages of today")
    parser.add_argument("--status", action="store_true", help="only say what is there")
    given = parser.parse_args()
    if given.fresh:
        for old in given.cache.glob("*.tar"):
            old.unlink()
    asyncio.run(main(given.cache, fresh=given.fresh, only_look=given.status))
