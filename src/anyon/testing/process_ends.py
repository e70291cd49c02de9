"""How processes end, over every engine: kills, timeouts, caps, restarts, hostile directories."""

import asyncio
from datetime import timedelta
from pathlib import Path

from anyon.domain.ids import ProcessId
from anyon.domain.states import ExitReason
from anyon.engines.engine import Channel
from anyon.processes.durable import DurableProcesses
from anyon.processes.processes import Exit
from anyon.testing.engine_trials import GRACE, PATIENCE, until
from anyon.testing.process_trials import ProcessFixtures, Trial, seen

STUBBORN = """
trap '' TERM
sh -c 'trap "" TERM; echo 1 >>/workspace/tree; while :; do sleep 0.1; done' &
(setsid sh -c 'trap "" TERM; echo 2 >>/workspace/tree; while :; do sleep 0.1; done' &)
env -i PATH="$PATH" setsid sh -c 'trap "" TERM; echo 3 >>/workspace/tree; while :; do sleep 0.1; done' &
(env -i PATH="$PATH" setsid sh -c 'echo 4 >>/workspace/tree; while :; do sleep 0.1; done' &)
while :; do sleep 0.1; done
"""
"""Ignores TERM; a child, a double fork in a session of its own, a child and an orphan with no marker."""
TREE = "^sh -c [te].*>>/workspace/tree; while"
"""How the four look in the table of processes."""


class EndsContract(ProcessFixtures):
    """The promises of ``kill``, ``wait``, ``adopt``, ``container_stopped`` and the cap."""

    async def test_a_kill_ends_the_whole_tree(self, trial: Trial, server: DurableProcesses) -> None:
        """Whatever it forked, however it hid, is gone; what it wrote and its first exit stay.

        Control: all of it ran before, and another process goes on.
        """
        other = await trial.start(server, "while [ ! -e /workspace/go ]; do sleep 0.1; done")
        state = await trial.start(server, "echo partial; " + STUBBORN)
        await seen(lambda: _lines(trial.files / "tree", 4))
        assert await trial.count(server, TREE) == 4
        ended = await _kill(trial, server, state.id, grace=timedelta(seconds=0.3))
        assert (ended.code, ended.reason) == (137, ExitReason.KILLED_BY_USER)
        assert await trial.count(server, TREE) == 0
        again = await _kill(trial, server, state.id, reason=ExitReason.TIMEOUT)
        assert again == ended
        assert await trial.output(server, state.id) == b"partial\n"
        (trial.files / "go").touch()
        assert (await server.wait(trial.project, other.id)).reason is ExitReason.EXITED

    async def test_a_kill_is_quicker_than_a_start(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """Killed in the moment of its start, a process does not begin afterwards."""
        for _ in range(10):
            state = await trial.start(server, "while :; do sleep 0.1; done")
            ended = await _kill(trial, server, state.id)
            assert ended.reason is ExitReason.KILLED_BY_USER

    async def test_a_polite_process_may_clean_up(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """TERM comes first: who ends by itself within the grace keeps its code."""
        state = await trial.start(
            server, "trap 'echo bye; exit 5' TERM; echo on; while :; do sleep 0.1; done"
        )
        await trial.until_said(server, state.id, b"on")
        ended = await _kill(trial, server, state.id, grace=timedelta(seconds=30))
        assert (ended.code, ended.reason) == (5, ExitReason.KILLED_BY_USER)
        assert await trial.output(server, state.id) == b"on\nbye\n"

    async def test_a_signal_is_told_from_an_exit(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """A process that dies of a signal has 128+n and is no ordinary exit; no memory was short."""
        for name, code in (("TERM", 143), ("KILL", 137), ("INT", 130)):
            ended = await trial.finish(server, f"kill -{name} $$; sleep 9")
            assert (ended.code, ended.reason) == (code, ExitReason.SIGNALLED)

    async def test_a_timeout_ends_it(self, trial: Trial, server: DurableProcesses) -> None:
        """What overruns is ended with all it forked, and says why; what is quicker is not touched."""
        ended = await trial.finish(server, "sleep 300 & sleep 300", timeout=timedelta(seconds=0.5))
        assert (ended.code, ended.reason) == (143, ExitReason.TIMEOUT)
        quick = await trial.finish(server, "exit 2", timeout=timedelta(seconds=300))
        assert (quick.code, quick.reason) == (2, ExitReason.EXITED)
        left = await trial.count(server, "^sleep 30")
        assert left == 0  # neither its own nor its watcher's

    async def test_the_middle_of_too_much_output_is_dropped(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """Head and tail stay, offsets stay true, the disk gets back the rest."""
        cap = 1 << 20
        lines = 2_000_000  # of 8 bytes
        (trial.files / "block").write_bytes(b"0123456\n" * 10000)
        state = await trial.start(
            server,
            f"i=0; while [ $i -lt {lines // 10000} ]; do cat /workspace/block; i=$((i+1)); done; echo tail",
            output_cap_bytes=cap,
        )
        async with asyncio.timeout(PATIENCE):
            await server.wait(trial.project, state.id)
        total = lines * 8 + 5
        file = trial.run / state.id / "stdout"
        await seen(lambda: file.stat().st_blocks * 512 <= 2 * cap)
        stands = await server.state(trial.project, state.id)
        assert stands is not None
        assert stands.stdout_bytes == total

        async def is_trimmed() -> bool:
            gap = await server.read(trial.project, state.id, Channel.STDOUT, cap // 2, 1)
            return gap.dropped_bytes == total - cap

        await until(is_trimmed)
        head = await server.read(trial.project, state.id, Channel.STDOUT, 0, total)
        assert head.data == (b"0123456\n" * (cap // 8))[: len(head.data)]
        rest = await server.read(trial.project, state.id, Channel.STDOUT, head.next_offset, total)
        assert rest.offset == head.next_offset + rest.dropped_bytes
        assert rest.next_offset == total
        assert rest.data.endswith(b"0123456\ntail\n")
        assert b"\0" not in rest.data
        assert len(head.data) + len(rest.data) == cap

    async def test_a_new_server_takes_over(self, trial: Trial) -> None:
        """What runs goes on and can be followed; what ended meanwhile has its own exit."""
        old = trial.server()
        runs = await trial.start(
            old, "echo a; while [ ! -e /workspace/go ]; do sleep 0.1; done; echo b"
        )
        ends = await trial.start(old, "while [ ! -e /workspace/go2 ]; do sleep 0.1; done; exit 9")
        await old.close()
        (trial.files / "go2").touch()
        await seen((trial.run / ends.id / "exit").exists)
        new = trial.server()
        states = {state.id: state for state in await new.adopt(trial.project)}
        assert states[runs.id].exit is None
        ended = states[ends.id].exit
        assert ended is not None
        assert (ended.code, ended.reason) == (9, ExitReason.EXITED)
        (trial.files / "go").touch()
        assert await trial.output(new, runs.id) == b"a\nb\n"

    async def test_a_timeout_outlives_the_server(self, trial: Trial) -> None:
        """Adopted after it should have ended, a process is ended then; nobody had to be there."""
        old = trial.server()
        state = await trial.start(old, "sleep 300", timeout=timedelta(seconds=1))
        await old.close()
        new = trial.server()
        await new.adopt(trial.project)
        async with asyncio.timeout(PATIENCE):
            assert (await new.wait(trial.project, state.id)).reason is ExitReason.TIMEOUT

    async def test_a_stopped_container_ends_its_processes(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """Whether told or found out at adoption, also when the container runs again by then."""
        told = await trial.start(server, "sleep 300")
        await trial.engine.stop(trial.project, grace=GRACE)
        await server.container_stopped(trial.project, ExitReason.CONTAINER_STOPPED)
        ended = await server.wait(trial.project, told.id)
        assert ended.reason is ExitReason.CONTAINER_STOPPED
        for restart in (False, True):
            await trial.engine.start(trial.project)
            found = await trial.start(server, "sleep 300")
            await trial.engine.stop(trial.project, grace=GRACE)
            if restart:
                await trial.engine.start(trial.project)
            await trial.server().adopt(trial.project)
            ended = await server.wait(trial.project, found.id)
            assert ended.reason is ExitReason.CONTAINER_STOPPED

    async def test_a_killed_wrapper_is_found_out(
        self, trial: Trial, server: DurableProcesses
    ) -> None:
        """If what would write the exit is killed, the process is interrupted and never waited for."""
        state = await trial.start(
            server, "read pid rest </run/anyon/$ANYON_PROCESS/pid; kill -KILL $pid; echo killed"
        )
        await trial.until_said(server, state.id, b"killed")
        await until(lambda: _adopted_as_over(trial, state.id))
        assert (await server.wait(trial.project, state.id)).reason is ExitReason.INTERRUPTED

    async def test_a_hostile_directory_shows_nothing_of_the_host(
        self, trial: Trial, server: DurableProcesses, tmp_path: Path
    ) -> None:
        """Links are not followed, pipes not waited for, nonsense in ``exit`` is an interruption."""
        secret = tmp_path / "host-secret"
        secret.write_text("of the host\n")
        script = f"""
        cd /run/anyon/$ANYON_PROCESS
        ln -sf {secret} stdout; rm stderr; mkfifo stderr; echo '[0, 99999999]' >dropped.stdout
        printf '0 exited; rm -rf /\\n' >exit
        """
        state = await trial.start(server, script)
        ended = await server.wait(trial.project, state.id)
        assert (ended.code, ended.reason) == (None, ExitReason.INTERRUPTED)
        await seen((trial.run / state.id / "stdout").is_symlink)
        assert secret.read_text() == (trial.run / state.id / "stdout").read_text()  # it is there
        assert await trial.outputs(server, state.id) == dict.fromkeys(Channel, b"")
        await trial.engine.stop(trial.project, grace=GRACE)  # nothing else writes there any more
        for name in ("exit", "pid", "command"):
            (trial.run / state.id / name).unlink()
            (trial.run / state.id / name).symlink_to(secret)
        assert await server.adopt(trial.project)
        assert (await server.wait(trial.project, state.id)).code is None
        await server.forget(trial.project, state.id)
        assert secret.read_text() == "of the host\n"


async def _kill(
    trial: Trial,
    server: DurableProcesses,
    process: ProcessId,
    *,
    grace: timedelta = GRACE,
    reason: ExitReason = ExitReason.KILLED_BY_USER,
) -> Exit:
    async with asyncio.timeout(PATIENCE):
        return await server.kill(trial.project, process, grace=grace, reason=reason)


def _lines(path: Path, count: int) -> bool:
    return path.exists() and len(path.read_text().splitlines()) >= count


async def _adopted_as_over(trial: Trial, process: str) -> bool:
    states = await trial.opened[0].adopt(trial.project)
    return any(state.id == process and state.exit is not None for state in states)
