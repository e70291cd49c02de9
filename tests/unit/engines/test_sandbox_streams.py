"""Streams over plain host programs: nothing is lost, nothing hangs."""

import asyncio
import os
import signal
import subprocess

import pytest

from anyon.domain.errors import ConflictError
from anyon.engines.engine import Channel
from anyon.engines.sandbox_streams import ProcessStream
from anyon.testing.engine_trials import PATIENCE, drain


def _stream(script: str) -> ProcessStream:
    process = subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    pipes = [os.dup(pipe.fileno()) for pipe in (process.stdin, process.stdout, process.stderr)]
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()

    def end(number: signal.Signals) -> None:
        if process.poll() is None:
            process.send_signal(number)

    outputs = {pipes[1]: Channel.STDOUT, pipes[2]: Channel.STDERR}
    return ProcessStream(process, stdin=pipes[0], outputs=outputs, end=end)


async def test_a_reader_and_a_waiter_at_once():
    """Who waits takes no output from who reads."""
    async with asyncio.timeout(PATIENCE):
        stream = _stream("i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; exit 4")
        code, (out, _) = await asyncio.gather(stream.wait(), drain(stream))
        assert code == 4
        assert out.split() == [b"%d" % n for n in range(2000)]
        await stream.close()


async def test_output_can_be_read_after_the_wait():
    """What a waiter had to take out of the pipes is kept for a while, in order."""
    async with asyncio.timeout(PATIENCE):
        stream = _stream("head -c 200000 /dev/zero; echo end")
        assert await stream.wait() == 0
        out, _ = await drain(stream)
        assert out == bytes(200_000) + b"end\n"
        await stream.close()


async def test_wait_does_not_wait_for_who_inherited_the_pipes():
    """A program that left a child behind is over when it is over."""
    async with asyncio.timeout(PATIENCE):
        stream = _stream("sleep 600 & echo $!; exit 6")
        piece = await stream.read()
        assert await stream.wait() == 6
        os.kill(int(piece[1]), signal.SIGKILL)
        assert await stream.read() is None
        await stream.close()


async def test_a_writer_is_told_that_nobody_reads():
    """A full pipe to a program that ended is a conflict, not a wait for ever."""
    async with asyncio.timeout(PATIENCE):
        stream = _stream("exec 3<&0; sleep 0.3; sleep 600 <&3 >/dev/null 2>&1 & echo $!; exit 0")
        piece = await stream.read()
        with pytest.raises(ConflictError) as refused:
            await stream.write(bytes(1 << 20))
        assert refused.value.code == "stdin_closed"
        os.kill(int(piece[1]), signal.SIGKILL)
        await stream.close()


async def test_close_at_once_and_while_reading():
    """A stream can be closed before anything happened, and wakes who reads."""
    async with asyncio.timeout(PATIENCE):
        stream = _stream("exit 0")
        await stream.close()
        assert await stream.read() is None
        stream = _stream("trap '' TERM HUP; echo on; while :; do sleep 1; done")
        assert await stream.read() == (Channel.STDOUT, b"on\n")
        reader = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        await stream.close()
        assert await reader is None
        assert await stream.wait() == 137


async def test_a_cancelled_reader_loses_nothing():
    """The next reader gets what the cancelled one waited for."""
    async with asyncio.timeout(PATIENCE):
        stream = _stream("read go; echo $go")
        reader = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await stream.write(b"now\n")
        assert await stream.read() == (Channel.STDOUT, b"now\n")
        await stream.close()
