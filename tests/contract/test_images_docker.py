"""The images of a Docker engine keep the promises of the image store."""

import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.docker_fixtures import IMAGE, socket_or_skip

from anyon.domain.errors import EngineFailedError
from anyon.engines.docker_images import DockerImages, split
from anyon.images.builder import ImageBuilder
from anyon.images.images import BuildStep

pytestmark = pytest.mark.docker


@pytest.fixture
async def store() -> AsyncIterator[DockerImages]:
    """The images of the engine that answers."""
    store = DockerImages(socket_or_skip())
    yield store
    await store.close()


@pytest.fixture
async def reference(store: DockerImages) -> AsyncIterator[str]:
    """A name that no image has; what gets it is removed."""
    name = f"anyon/test-{uuid4()}:one"
    yield name
    await store.remove(name)


async def test_an_archive_becomes_an_image(
    store: DockerImages, reference: str, tmp_path: Path
) -> None:
    """A tar is imported under its name, can be found, and is gone after remove."""
    (tmp_path / "file").write_text("x")
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(tmp_path / "file", arcname="file")
    assert await store.find(reference) is None
    made = await store.import_archive(
        tmp_path / "root.tar", reference=reference, changes=["ENV A=b", "USER 1000"]
    )
    assert made.startswith("sha256:")
    assert await store.find(reference) == made
    await store.remove(reference)
    await store.remove(reference)
    assert await store.find(reference) is None


async def test_an_archive_that_is_none(store: DockerImages, reference: str, tmp_path: Path) -> None:
    """Bytes that are no tar make no image."""
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(EngineFailedError):
        await store.import_archive(tmp_path / "bad.tar", reference=reference, changes=[])
    assert await store.find(reference) is None


async def test_a_dockerfile_is_built_without_a_registry(
    store: DockerImages, reference: str, tmp_path: Path
) -> None:
    """On a base that is here, the builder's lines arrive and the image is there."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\nARG WHO\nCOPY given /given\nENV WHO=$WHO\n"
    )
    (tmp_path / "given").write_text("x")
    (tmp_path / ".git").mkdir()
    builder = ImageBuilder(store, cache=tmp_path)
    events = [
        event
        async for event in builder.build_dockerfile(
            tmp_path / "Dockerfile", reference=reference, arguments={"WHO": "me"}
        )
    ]
    assert any(event.text.startswith("Step 1/") for event in events)
    assert (events[-1].step, events[-1].text) == (BuildStep.DONE, await store.find(reference))


async def test_a_step_that_fails_is_told(
    store: DockerImages, reference: str, tmp_path: Path
) -> None:
    """A failing step ends the build with the builder's words, and no image has the name."""
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN exit 7\n")
    builder = ImageBuilder(store, cache=tmp_path)
    events = builder.build_dockerfile(tmp_path / "Dockerfile", reference=reference)
    with pytest.raises(EngineFailedError) as failed:
        [event async for event in events]
    assert failed.value.code == "image_build_failed"
    assert "7" in failed.value.message
    assert await store.find(reference) is None


def test_names_and_tags() -> None:
    """A colon is a tag's only after the last slash."""
    assert split("a/b:c") == ("a/b", "c")
    assert split("host:5000/a") == ("host:5000/a", "latest")
    assert split("a") == ("a", "latest")
