"""What every engine does, as a suite: a driver's test is a class with two fixtures.

    class TestDocker(EngineContract):
        installed_path = "/var/tmp/installed"

        @pytest.fixture
        async def engine(self): ...

        @pytest.fixture
        def make_spec(self, tmp_path): return spec_maker(tmp_path)

The containers need a POSIX ``sh`` and the basic programs of any distribution, nothing more.
Nothing here measures time; deadlines are generous, for a loaded machine.
"""

from anyon.domain.ids import ProjectId
from anyon.domain.layout import SECRETS
from anyon.engines.engine import (
    Command,
    ContainerSpec,
    Engine,
)
from anyon.testing.engine_life import LifeContract
from anyon.testing.engine_programs import ProgramsContract
from anyon.testing.engine_trials import (
    GRACE,
    SHARED,
    MakeSpec,
    read_until,
    run,
    sh,
    spec_maker,
)


class EngineContract(LifeContract, ProgramsContract):
    """All promises of ``engines.engine.Engine``."""

    async def test_mounts_are_the_hosts_directories(
        self, engine: Engine, project: ProjectId, spec: ContainerSpec
    ) -> None:
        """The project, the home and the run directory are read and written on both sides."""
        for mount in spec.mounts:
            if mount.read_only:
                continue
            (mount.source / "host").write_bytes(b"h\n")
            script = f"cat {mount.target}/host && echo c >{mount.target}/inside"
            assert await sh(engine, project, script) == b"h\n"
            assert (mount.source / "inside").read_bytes() == b"c\n"

    async def test_a_read_only_mount_refuses_writes(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """What is given to read cannot be changed."""
        assert await sh(engine, project, f"cat {SHARED}/given") == b"from the host\n"
        code, _, err = await run(engine, project, "sh", "-c", f"echo x >{SHARED}/new")
        assert code != 0
        assert err

    async def test_secrets_have_a_tmpfs(self, engine: Engine, project: ProjectId) -> None:
        """There is a place in memory for secrets, and it is gone after a stop."""
        await sh(
            engine, project, f"grep -q ' {SECRETS} tmpfs ' /proc/mounts && echo s >{SECRETS}/s"
        )
        await engine.stop(project, grace=GRACE)
        await engine.start(project)
        assert await sh(engine, project, f"test ! -e {SECRETS}/s && echo gone") == b"gone\n"

    async def test_projects_do_not_see_each_other(
        self, engine: Engine, project: ProjectId, make_spec: MakeSpec
    ) -> None:
        """Neither another project's files nor its processes are there."""
        other = make_spec()
        await engine.ensure(other)
        try:
            await engine.start(other.project)
            await sh(engine, other.project, "echo secret >/workspace/secret")
            stream = await engine.open(
                other.project, Command(argv=["sh", "-c", "echo on; exec sleep 98765"])
            )
            await read_until(stream, b"on")
            source = other.mounts[0].source
            out = await sh(
                engine,
                project,
                f"ls {source} 2>/dev/null; cat /proc/[0-9]*/cmdline | tr '\\0' ' '; "
                "ls -a /workspace",
            )
            assert b"secret" not in out
            assert b"98765" not in out.replace(b"sh -c", b"")
            await stream.close()
        finally:
            await engine.remove(other.project)


__all__ = ["EngineContract", "MakeSpec", "spec_maker"]
