"""What durable processes do over every engine, as a suite: a driver's test is a class with fixtures.

    class TestOverDocker(ProcessContract):
        @pytest.fixture
        async def engine(self): ...

        @pytest.fixture
        def make_spec(self, tmp_path): return spec_maker(tmp_path)

The containers need what the launcher needs (sh, setsid, grep, the basic programs). Nothing here
measures time; deadlines are generous, for a loaded machine.
"""

import asyncio
import contextlib
import os
from datetime import timedelta
from pathlib import Path, PurePosixPath

import pytest

from anyon.domain.errors import AnyonError, ConflictError, InvalidInputError, NotFoundError
from anyon.domain.ids import ProcessId, new_id
from anyon.domain.states import ExitReason
from anyon.engines.engine import Channel
from anyon.processes.directories import RunDirectory
from anyon.processes.durable import DurableProcesses
from anyon.processes.processes import ProcessSpec
from anyon.testing.engine_trials import GRACE, PATIENCE
from anyon.testing.process_ends import EndsContract
from anyon.testing.process_trials import Trial, seen

WEIRD = "it's \n a $x `y` \\ \udcff\udc81\udc88 한글 \x01 \"'"
"""Quotes, line ends, shell's signs, bytes that are no UTF-8: what must arrive as it is."""


class ProcessContract(EndsContract):
    """All promises of ``processes.processes.Processes``."""

    async def test_what_goes_in_and_comes_out(self, trial: Trial, server: DurableProcesses) -> None:
        """Words, variables, stdin and both outputs are bytes, untouched; the code is the program's."""
        spec = ProcessSpec(
            id=ProcessId(new_id()),
            argv=[
                "sh",
                "-c",
                'printf "%s|" "$@" "$W" "$PWD"; cat; echo e >&2; exit 3',
                WEIRD,
                WEIRD,
                "",
            ],
            cwd=PurePosixPath("/usr"),
            env={"W": WEIRD},
            stdin=bytes(range(256)) * 300,
        )
        await server.start(trial.project, spec)
        got = await trial.outputs(server, spec.id)
        weird = os.fsencode(WEIRD)
        assert got[Channel.STDOUT] == weird + b"||" + weird + b"|/usr|" + (spec.stdin or b"")
        assert got[Channel.STDERR] == b"e\n"
        ended = await server.wait(trial.project, spec.id)
        assert (ended.code, ended.reason) == (3, ExitReason.EXITED)
        state = await server.state(trial.project, spec.id)
        assert state is not None
        assert state.exit == ended
        assert state.stdout_bytes == len(got[Channel.STDOUT])
        assert state.started_at <= ended.at

    async def test_what_cannot_be_run_says_so_itself(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """No such program is 127, one that may not run 126, no such directory 127, with words."""
        (trial.files / "plain").write_text("no program")
        for argv, cwd, code in (
            (["no-such-program"], "/", 127),
            (["/workspace/plain"], "/", 126),
            (["true"], "/no/such/directory", 127),
        ):
            done = await server.run(trial.project, argv, cwd=PurePosixPath(cwd))
            assert done.exit.code == code, done
            assert done.stderr

    async def test_it_begins_as_an_ordinary_program(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """No signal is ignored, it leads no strange terminal, its marker is in its environment."""
        script = "grep SigIgn /proc/self/status; echo $ANYON_PROCESS; umask"
        state = await trial.start(server, script)
        lines = (await trial.output(server, state.id)).split()
        assert lines == [b"SigIgn:", b"0" * 16, state.id.encode(), b"0022"]

    async def test_the_same_id_is_one_process(self, trial: Trial) -> None:
        """However many servers start it at once, and again later, it runs once."""
        servers = [trial.server() for _ in range(3)]
        spec = ProcessSpec(
            id=ProcessId(new_id()), argv=["sh", "-c", "echo x >>/workspace/count; exit 4"]
        )
        await asyncio.gather(*(s.start(trial.project, spec) for s in servers for _ in range(3)))
        ended = await servers[0].wait(trial.project, spec.id)
        again = await trial.server().start(trial.project, spec)
        assert again.exit == ended
        assert (trial.files / "count").read_text() == "x\n"

    async def test_many_start_at_once(self, trial: Trial, server: DurableProcesses) -> None:
        """Forty starts together all run, each with its own output."""
        states = await asyncio.gather(
            *(trial.start(server, f"echo {n}; exit {n}") for n in range(40))
        )
        ends = [await server.wait(trial.project, state.id) for state in states]
        assert [end.code for end in ends] == list(range(40))
        assert await trial.output(server, states[39].id) == b"39\n"
        assert {s.id for s in await server.list(trial.project)} >= {s.id for s in states}

    async def test_followers_get_every_byte_once(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """From any offset, while it runs and after it; one that does not read holds up nobody."""
        state = await trial.start(
            server, "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.05; done; echo end"
        )
        idle = server.follow(trial.project, state.id)
        await anext(idle)  # and then never again
        whole, late = await asyncio.gather(
            trial.output(server, state.id),
            trial.output(trial.server(), state.id, {Channel.STDOUT: 0}),
        )
        expected = b"".join(b"line %d\n" % n for n in range(1, 10)) + b"end\n"
        assert whole == late == expected
        assert await trial.output(server, state.id, {Channel.STDOUT: 9}) == expected[9:]
        rest = b"".join([c.data async for c in idle])
        assert expected.endswith(rest)

    async def test_reading_by_offset(self, trial: Trial, server: DurableProcesses) -> None:
        """A piece is what lies there, no more than asked for; past the end is the caller's error."""
        state = await trial.start(server, "printf 0123456789")
        await server.wait(trial.project, state.id)
        chunk = await server.read(trial.project, state.id, Channel.STDOUT, 3, 4)
        assert (chunk.data, chunk.offset, chunk.next_offset) == (b"3456", 3, 7)
        assert (await server.read(trial.project, state.id, Channel.STDOUT, 10, 4)).data == b""
        with pytest.raises(InvalidInputError, match="11") as past:
            await server.read(trial.project, state.id, Channel.STDOUT, 11, 4)
        assert past.value.code == "offset_past_end"

    async def test_short_commands_leave_nothing(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """``run`` gives all that was written, and afterwards there is no trace of it."""
        done = await server.run(
            trial.project,
            ["sh", "-c", "cat; head -c 300000 /dev/zero; echo $A >&2; exit 9"],
            stdin=b"\xff\xfe",
            env={"A": "b"},
        )
        assert done.stdout == b"\xff\xfe" + bytes(300000)
        assert (done.stderr, done.exit.code) == (b"b\n", 9)
        assert list(trial.run.iterdir()) == []
        late = await server.run(
            trial.project, ["sh", "-c", "echo on; sleep 987"], timeout=timedelta(seconds=1)
        )
        assert (late.stdout, late.exit.reason) == (b"on\n", ExitReason.TIMEOUT)

    async def test_what_is_forgotten_is_not_held_open(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """A removed directory is let go of by all who looked after it; whoever waits for it is told."""
        for _ in range(10):
            await server.run(trial.project, ["true"])
        state = await trial.start(server, "sleep 987")
        waiting = asyncio.create_task(server.wait(trial.project, state.id))
        await asyncio.sleep(0)  # it holds the directory open now
        RunDirectory(trial.run).remove(state.id)
        with pytest.raises(NotFoundError) as forgotten:
            async with asyncio.timeout(PATIENCE):
                await waiting
        assert forgotten.value.code == "process_unknown"
        await seen(lambda: not _held_open(trial.run))

    async def test_a_command_nobody_waits_for_is_ended(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """Who gives up on ``run`` leaves neither a program nor a directory behind."""
        task = asyncio.create_task(
            server.run(trial.project, ["sh", "-c", "touch /workspace/on; sleep 987"])
        )
        await seen((trial.files / "on").exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await seen(lambda: not any(trial.run.iterdir()))

    async def test_secrets_reach_the_program_alone(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """They are in its environment, and in no argv, file or directory of anybody else."""
        value = "s3cr'et\nof two lines 한 \\"
        state = await trial.start(
            server,
            'printf "%s\n" "$KEY" | tr a-z A-Z; ls -A /run/anyon-secrets; '
            "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' >/workspace/argv",
            secrets={"KEY": value},
        )
        assert (await trial.output(server, state.id)).decode() == value.upper() + "\n"
        assert b"anyon-launcher" in (trial.files / "argv").read_bytes()  # it did look
        for file in [trial.files / "argv", *trial.run.rglob("*")]:
            assert not file.is_file() or b"s3cr" not in file.read_bytes(), file

    async def test_secrets_without_their_place_are_refused(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """Where the tmpfs cannot be written nothing starts, nothing is left, and others still can."""
        await server.run(trial.project, ["rm", "-rf", "/run/anyon-secrets/x"])
        done = await server.run(trial.project, ["sh", "-c", "exec chmod 0 /run/anyon-secrets"])
        probe = await server.run(trial.project, ["sh", "-c", "touch /run/anyon-secrets/x"])
        if done.exit.code or not probe.exit.code:
            pytest.skip("as root every directory can be written")
        with pytest.raises(AnyonError) as refused:
            await trial.start(server, "true", secrets={"KEY": "secret"})
        assert refused.value.code == "secrets_directory_missing"
        assert (await trial.finish(server, "exit 5")).code == 5

    async def test_a_lost_launcher_is_replaced(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """Killing the launcher hurts no process, and the next start opens another."""
        state = await trial.start(
            server, "while [ ! -e /workspace/go ]; do sleep 0.1; done; exit 6"
        )
        for _ in range(2):
            await server.run(trial.project, ["sh", "-c", _KILL_LAUNCHERS])
            assert (await trial.finish(server, "exit 7")).code == 7
        (trial.files / "go").touch()
        assert (await server.wait(trial.project, state.id)).code == 6

    async def test_what_is_not_there_is_said(self, trial: Trial, server: DurableProcesses) -> None:
        """Unknown ids, unsafe ids, bad specifications and a stopped container have their errors."""
        unknown = ProcessId(new_id())
        assert await server.state(trial.project, unknown) is None
        await server.forget(trial.project, unknown)
        with pytest.raises(NotFoundError):
            await server.wait(trial.project, unknown)
        for bad in ("../x", "", ".", "a/b", "x" * 65):
            with pytest.raises(InvalidInputError):
                await server.start(trial.project, ProcessSpec(id=ProcessId(bad), argv=["true"]))
        for spec in (
            ProcessSpec(id=unknown, argv=[]),
            ProcessSpec(id=unknown, argv=["a\0b"]),
            ProcessSpec(id=unknown, argv=["true"], env={"a=b": "c"}),
        ):
            with pytest.raises(InvalidInputError):
                await server.start(trial.project, spec)
        await trial.engine.stop(trial.project, grace=GRACE)
        with pytest.raises(ConflictError) as stopped:
            await server.start(trial.project, ProcessSpec(id=unknown, argv=["true"]))
        assert stopped.value.code == "not_running"
        assert await server.state(trial.project, unknown) is None

    async def test_forgetting(self, trial: Trial, server: DurableProcesses) -> None:
        """What runs is not forgotten; what is over leaves nothing, whatever it made there."""
        state = await trial.start(server, "while :; do sleep 0.1; done")
        with pytest.raises(ConflictError) as running:
            await server.forget(trial.project, state.id)
        assert running.value.code == "process_running"
        await server.kill(trial.project, state.id, grace=timedelta(seconds=1))
        state = await trial.start(
            server,
            "d=/run/anyon/$ANYON_PROCESS; mkdir -p $d/a/b/c; ln -s /etc $d/a/l; mkfifo $d/a/f",
        )
        async with asyncio.timeout(PATIENCE):
            await server.wait(trial.project, state.id)
        await server.forget(trial.project, state.id)
        assert not (trial.run / state.id).exists()
        assert await server.state(trial.project, state.id) is None


def _held_open(run: Path) -> list[str]:
    """Return the removed directories of processes that this process still has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [name for name in found if name.startswith(str(run)) and name.endswith(" (deleted)")]


_KILL_LAUNCHERS = (
    "for f in /proc/[0-9]*/cmdline; do"
    " if tr '\\0' '\\n' <$f 2>/dev/null | grep -qx anyon-launcher; then"
    " p=${f#/proc/}; kill -KILL ${p%/cmdline}; fi; done"
)
