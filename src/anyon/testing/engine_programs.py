"""The promises of an engine about programs opened in a container."""

import asyncio
from pathlib import PurePosixPath

import pytest

from anyon.domain.errors import ConflictError
from anyon.domain.ids import ProjectId
from anyon.engines.engine import (
    Command,
    ContainerSpec,
    Engine,
    TerminalSize,
)
from anyon.testing.engine_trials import (
    PATIENCE,
    EngineTrials,
    drain,
    read_until,
    run,
    sh,
    size,
    until,
)

TERMINAL_SCRIPT = (
    "test -t 0 && test -t 1 && test -t 2 && echo tty; stty size; echo ready; "
    "read line; stty size; echo got $line; : </dev/tty && echo controlling"
)


class ProgramsContract(EngineTrials):
    """Open, and the streams that it returns."""

    @pytest.mark.parametrize(
        ("script", "code"),
        [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)],
    )
    async def test_exit_codes(
        self, engine: Engine, project: ProjectId, script: str, code: int
    ) -> None:
        """The exit code is the program's own, 128+n after signal n."""
        assert (await run(engine, project, "sh", "-c", script))[0] == code

    async def test_a_program_that_cannot_be_run(self, engine: Engine, project: ProjectId) -> None:
        """Absent is 127, not executable 126, each with words on stderr."""
        code, out, err = await run(engine, project, "no-such-program-at-all")
        assert (code, out) == (127, b"")
        assert err
        await sh(engine, project, "echo text >/workspace/plain; chmod 644 /workspace/plain")
        code, out, err = await run(engine, project, "/workspace/plain")
        assert (code, out) == (126, b"")
        assert err

    async def test_argv_cwd_and_env_arrive_as_they_are(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """No shell stands between: blanks, quotes, newlines and empty arguments survive."""
        await sh(engine, project, "mkdir -p '/workspace/a b'")
        odd = ["", "a b", "'\"$HOME`x`", "l1\nl2", "-n", "한글"]
        stream = await engine.open(
            project,
            Command(
                argv=[
                    "sh",
                    "-c",
                    'pwd; echo "$FROM_SPEC|$BOTH|$OWN|$HOME"; printf "<%s>" "$@"',
                    "sh",
                    *odd,
                ],
                cwd=PurePosixPath("/workspace/a b"),
                env={"BOTH": "command", "OWN": "x y\n'z'"},
            ),
        )
        out, _ = await drain(stream)
        assert await stream.wait() == 0
        expected = "/workspace/a b\nspec value|command|x y\n'z'|/home/anyon\n"
        assert out.decode() == expected + "".join(f"<{item}>" for item in odd)
        await stream.close()

    async def test_stdin_is_echoed_and_stderr_is_apart(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """Three pipes: what goes in comes out, and the two outputs are not mixed."""
        stream = await engine.open(project, Command(argv=["sh", "-c", "cat; echo oops >&2"]))
        await stream.write(b"one\n")
        assert await read_until(stream, b"one\n") == b"one\n"
        await stream.write(b"two\n")
        await stream.close_stdin()
        await stream.close_stdin()
        assert await drain(stream) == (b"two\n", b"oops\n")
        assert await stream.wait() == 0
        assert await stream.read() is None
        with pytest.raises(ConflictError) as refused:
            await stream.write(b"late")
        assert refused.value.code == "stdin_closed"
        await stream.close()

    async def test_bytes_that_are_no_text(self, engine: Engine, project: ProjectId) -> None:
        """Every byte passes unchanged, both ways."""
        data = bytes(range(256)) * 5
        code, out, _ = await run(engine, project, "cat", stdin=data)
        assert (code, out) == (0, data)

    async def test_large_output_both_ways(self, engine: Engine, project: ProjectId) -> None:
        """8 MiB go in while 8 MiB come out, without a deadlock or a lost byte."""
        data = bytes(range(256)) * 32768
        stream = await engine.open(project, Command(argv=["cat"]))

        async def feed() -> None:
            for start in range(0, len(data), 1 << 20):
                await stream.write(data[start : start + (1 << 20)])
            await stream.close_stdin()

        async with asyncio.timeout(PATIENCE):
            _, (out, err) = await asyncio.gather(feed(), drain(stream))
            assert await stream.wait() == 0
        assert out == data
        assert err == b""
        await stream.close()

    async def test_wait_drops_output_that_nobody_reads(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """Wait does not hang on a program that writes more than the pipes hold."""
        stream = await engine.open(
            project, Command(argv=["sh", "-c", "head -c 4000000 /dev/zero; exit 7"])
        )
        async with asyncio.timeout(PATIENCE):
            assert await stream.wait() == 7
        await stream.close()

    async def test_close_ends_the_program(
        self, engine: Engine, project: ProjectId, spec: ContainerSpec
    ) -> None:
        """A program whose stream is closed does not go on."""
        beats = spec.mounts[0].source / "beats"
        stream = await engine.open(
            project,
            Command(
                argv=[
                    "sh",
                    "-c",
                    "echo on; while :; do echo x >>/workspace/beats; sleep 0.02; done",
                ]
            ),
        )
        await read_until(stream, b"on\n")
        await stream.close()

        async def still() -> bool:
            before = size(beats)
            await asyncio.sleep(0.5)
            return size(beats) == before

        await until(still)

    async def test_a_terminal(self, engine: Engine, project: ProjectId) -> None:
        """With a terminal the program has one of the given size, which can be changed."""
        stream = await engine.open(
            project,
            Command(
                argv=[
                    "sh",
                    "-c",
                    TERMINAL_SCRIPT,
                ],
                terminal=TerminalSize(columns=91, rows=37),
            ),
        )
        seen = await read_until(stream, b"ready")
        assert b"tty" in seen
        assert b"37 91" in seen
        await stream.resize(TerminalSize(columns=70, rows=20))
        await stream.write(b"words\n")
        rest, err = await drain(stream)
        assert await stream.wait() == 0
        assert b"20 70" in rest
        assert b"got words" in rest
        assert b"controlling" in rest
        assert err == b""
        await stream.close()

    async def test_interrupt_and_end_of_file_on_a_terminal(
        self, engine: Engine, project: ProjectId
    ) -> None:
        """Control-C reaches the program as INT; close_stdin is an end of file."""
        terminal = TerminalSize(columns=80, rows=24)
        stream = await engine.open(
            project,
            Command(
                argv=[
                    "sh",
                    "-c",
                    "trap 'echo caught; exit 5' INT; echo on; while :; do sleep 0.1; done",
                ],
                terminal=terminal,
            ),
        )
        await read_until(stream, b"on")
        await stream.write(b"\x03")
        await read_until(stream, b"caught")
        assert await stream.wait() == 5
        await stream.close()
        reader = await engine.open(
            project, Command(argv=["sh", "-c", "echo on; cat; echo ended"], terminal=terminal)
        )
        await read_until(reader, b"on")
        await reader.close_stdin()
        await read_until(reader, b"ended")
        assert await reader.wait() == 0
        await reader.close()

    async def test_many_streams_at_once(self, engine: Engine, project: ProjectId) -> None:
        """Streams do not disturb each other."""
        results = await asyncio.gather(
            *(run(engine, project, "sh", "-c", f"cat; exit {n}", stdin=b"%d" % n) for n in range(8))
        )
        assert [(code, out) for code, out, _ in results] == [(n, b"%d" % n) for n in range(8)]
