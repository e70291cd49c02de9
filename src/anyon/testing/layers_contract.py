"""What every engine keeps that can show the layers of its containers. A driver's test is a fixture."""

from anyon.engines.engine import Engine
from anyon.engines.layers import KeepsLayers
from anyon.testing.engine_contract import MakeSpec
from anyon.testing.engine_trials import sh


class LayersContract:
    """Give fixtures ``engine``, ``layers`` and ``make_spec``; programs inside must be root or the owner."""

    async def test_they_are_in_reach(self, layers: KeepsLayers) -> None:
        """An engine whose layers can be read has no reason why not."""
        assert await layers.why_hidden() == ""

    async def test_without_a_container_there_is_none(
        self, layers: KeepsLayers, make_spec: MakeSpec
    ) -> None:
        """A project without a container has no layer, and asking makes none."""
        assert await layers.layer(make_spec().project) is None

    async def test_what_is_put_in_before_the_start_is_inside(
        self, engine: Engine, layers: KeepsLayers, make_spec: MakeSpec
    ) -> None:
        """A layer that is written before the first start is what programs see."""
        spec = make_spec()
        await engine.ensure(spec)
        layer = await layers.layer(spec.project)
        assert layer is not None
        assert layer.base["engine"] == engine.name
        (layer.path / "opt").mkdir(exist_ok=True)
        (layer.path / "opt/tool").write_text("from outside")
        await engine.start(spec.project)
        assert await sh(engine, spec.project, "cat /opt/tool") == b"from outside"

    async def test_what_programs_write_is_in_it(
        self, engine: Engine, layers: KeepsLayers, make_spec: MakeSpec
    ) -> None:
        """While the container runs, and when it has stopped and started, its layer is one and the same."""
        spec = make_spec()
        await engine.ensure(spec)
        await engine.start(spec.project)
        await sh(engine, spec.project, "echo inside > /opt/tool")
        layer = await layers.layer(spec.project)
        assert layer is not None
        assert (layer.path / "opt/tool").read_text() == "inside\n"
        assert await layers.layer(spec.project) == layer

    async def test_another_container_has_another(
        self, engine: Engine, layers: KeepsLayers, make_spec: MakeSpec
    ) -> None:
        """A removed container takes its layer along; the next one's is new."""
        spec = make_spec()
        await engine.ensure(spec)
        await engine.start(spec.project)
        await sh(engine, spec.project, "echo inside > /opt/tool")
        first = await layers.layer(spec.project)
        await engine.remove(spec.project)
        assert await layers.layer(spec.project) is None
        await engine.ensure(spec)
        second = await layers.layer(spec.project)
        assert first is not None
        assert second is not None
        assert first.container != second.container
        assert not (second.path / "opt/tool").exists()
