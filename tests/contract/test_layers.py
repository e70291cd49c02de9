"""The engines that keep what is installed in each container, and the double of them, show it alike."""

import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.docker_fixtures import IMAGE, missing, socket_or_skip

from anyon.domain.errors import MissingError
from anyon.engines.docker import DockerEngine
from anyon.engines.docker_layers import DockerLayers, parse_layer, why_hidden
from anyon.engines.docker_options import Host
from anyon.testing.engine_contract import MakeSpec, spec_maker
from anyon.testing.engine_trials import sh
from anyon.testing.layered import LayeredEngine
from anyon.testing.layers_contract import LayersContract


class TestLayeredEngine(LayersContract):
    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[LayeredEngine]:
        """The double."""
        engine = LayeredEngine(tmp_path / "layers", hidden=[tmp_path / "hidden"])
        yield engine
        for info in await engine.list():
            await engine.remove(info.project)
        await engine.close()

    @pytest.fixture
    def layers(self, engine: LayeredEngine) -> LayeredEngine:
        """It shows its layers itself."""
        return engine

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """Specs of projects."""
        return spec_maker(tmp_path)


@pytest.mark.docker
class TestDockerLayers(LayersContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[DockerEngine]:
        """An engine whose programs are the image's root, without any powers."""
        socket = socket_or_skip()
        if os.geteuid() != 0:
            missing("only root reads the engine's files")
        engine = DockerEngine(socket, instance=f"test-{uuid4()}", uid=0, image=IMAGE)
        yield engine
        for info in await engine.list():
            await engine.remove(info.project)
        await engine.close()

    @pytest.fixture
    def layers(self, engine: DockerEngine) -> DockerLayers:
        """What it shows them by."""
        return engine.layers

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """Specs of projects of root's."""
        return spec_maker(tmp_path, owner=0)

    async def test_deletions_of_the_image_are_marks(
        self, engine: DockerEngine, layers: DockerLayers, make_spec: MakeSpec
    ) -> None:
        """What a program deletes of the image stands in the layer as a device 0/0, and back."""
        spec = make_spec()
        await engine.ensure(spec)
        layer = await layers.layer(spec.project)
        assert layer is not None
        (layer.path / "etc").mkdir()
        os.mknod(layer.path / "etc/passwd", 0o020000, os.makedev(0, 0))
        await engine.start(spec.project)
        assert await sh(engine, spec.project, "test -e /etc/passwd || echo gone") == b"gone\n"
        await sh(engine, spec.project, "rm /etc/group")
        found = (layer.path / "etc/group").lstat()
        assert (found.st_mode & 0o170000, found.st_rdev) == (0o020000, 0)


HOST = Host(instance="i", uid=1000, gid=1000, image="image")
GOOD = {"Driver": "overlay2", "DockerRootDir": "/", "DriverStatus": [["Supports d_type", "true"]]}


@pytest.mark.parametrize(
    ("info", "host", "is_local", "words"),
    [
        ({}, {}, False, "another machine"),
        ({}, {"is_rootless": True}, True, "rootless"),
        ({"Driver": "btrfs"}, {}, True, "'btrfs'"),
        ({"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]},
         {}, True, "containerd"),
        ({"SecurityOptions": ["name=seccomp", "name=userns"]}, {}, True, "userns-remap"),
        ({"DriverStatus": [["Using metacopy", "true"]]}, {}, True, "metacopy"),
        ({"DockerRootDir": "/no/such"}, {}, True, "not on this machine"),
    ],
)  # fmt: skip
def test_why_layers_are_hidden(
    info: dict[str, object], host: dict[str, bool], is_local: bool, words: str
) -> None:
    """Each engine whose layers cannot be read and written is told by its own words."""
    found = why_hidden(GOOD | info, dataclasses.replace(HOST, **host), is_local=is_local)
    assert words in found


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root cannot read layers")
def test_layers_in_reach_have_no_reason() -> None:
    """The control: an engine as it should be is not refused."""
    assert why_hidden(GOOD, HOST, is_local=True) == ""


@pytest.mark.parametrize(
    "graph",
    [
        None,
        {"Name": "overlayfs", "Data": None},
        {"Name": "overlay2", "Data": {}},
        {"Name": "overlay2", "Data": {"UpperDir": "relative/diff"}},
        {"Name": "overlay2", "Data": {"UpperDir": "/var/../etc"}},
        {"Name": "overlay2", "Data": {"UpperDir": "/no/such/diff"}},
        {"Name": "overlay2", "Data": {"UpperDir": "/etc/passwd"}},
        {"Name": "btrfs", "Data": {"UpperDir": "/tmp"}},
    ],
)
def test_an_answer_without_a_place_is_refused(graph: object) -> None:
    """Only an absolute path of a directory that is there is taken for a layer."""
    with pytest.raises(MissingError) as refused:
        parse_layer({"Id": "1", "GraphDriver": graph})
    assert refused.value.code == "layer_hidden"
