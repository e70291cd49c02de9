"""Learning that a process's directory changed, without looking all the time.

One inotify descriptor tells of all directories; nothing runs while nothing changes. Events are
hints: a slow tick has every waiter look again anyway, and where the kernel gives no watch
(limits, a file system that tells nothing) a quick tick stands in.
"""

import asyncio
import os
import struct
from collections.abc import Hashable
from dataclasses import dataclass, field

from anyon.processes import kernel

_HEAD = struct.Struct("iIII")
_MASK = kernel.IN_MODIFY | kernel.IN_MOVED_TO | kernel.IN_CREATE | kernel.IN_ONLYDIR
_SLOW_SECONDS, _QUICK_SECONDS = 5.0, 0.1
_CHATTY_SECONDS, _PAUSE_SECONDS = 0.01, 0.004


@dataclass(eq=False)
class Watch:
    """One directory that is looked after; ``version`` grows with each change."""

    key: Hashable
    number: int | None
    version: int = 0
    users: int = 0
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

    async def changed(self, seen: int) -> None:
        """Return once ``version`` is no longer *seen*; it may be so without a change."""
        if self.version != seen:
            return
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.add(waiter)
        try:
            await waiter
        finally:
            self.waiters.discard(waiter)

    def touch(self) -> None:
        """Have everybody look again."""
        self.version += 1
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


class Changes:
    """All watches of one server, on one event loop."""

    def __init__(self) -> None:
        self._watches: dict[Hashable, Watch] = {}
        self._numbers: dict[int, Watch] = {}
        self._inotify: int | None = None
        self._broken = False
        self._ticker: asyncio.Task[None] | None = None
        self._chatted_at = float("-inf")
        self._paused: asyncio.TimerHandle | None = None

    def watch(self, key: Hashable, directory: int) -> Watch:
        """Look after an open directory, under *key*; each call is undone by one ``release``."""
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = Watch(key, self._add(directory))
            if watch.number is not None:
                self._numbers[watch.number] = watch
        watch.users += 1
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="changes")
        return watch

    def release(self, watch: Watch) -> None:
        """Undo one ``watch``."""
        watch.users -= 1
        if watch.users:
            return
        self._watches.pop(watch.key, None)
        if watch.number is not None:
            del self._numbers[watch.number]
            assert self._inotify is not None
            kernel.inotify_remove(self._inotify, watch.number)
        if not self._watches and self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def touch(self, key: Hashable) -> None:
        """Have everybody who looks after *key* look again: a removed directory tells nothing itself."""
        watch = self._watches.get(key)
        if watch is not None:
            watch.touch()

    def close(self) -> None:
        """Look after nothing any more, and have everybody look a last time."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._paused is not None:
            self._paused.cancel()
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = None
        self._numbers.clear()
        for watch in self._watches.values():
            watch.number = None
            watch.touch()

    def _add(self, directory: int) -> int | None:
        if self._broken:
            return None
        try:
            if self._inotify is None:
                self._inotify = kernel.inotify_init()
                asyncio.get_running_loop().add_reader(self._inotify, self._read)
        except OSError:
            self._broken = True  # no descriptors left, or no such kernel: ticks do it
            return None
        try:
            return kernel.inotify_add(self._inotify, directory, _MASK)
        except OSError:
            return None  # no watches left: this one is ticked

    def _read(self) -> None:
        assert self._inotify is not None
        try:
            events = os.read(self._inotify, 65536)
        except BlockingIOError:
            return
        only_output = True
        position = 0
        while position < len(events):
            number, mask, _, length = _HEAD.unpack_from(events, position)
            position += _HEAD.size + length
            if mask & kernel.IN_Q_OVERFLOW:
                for watch in list(self._watches.values()):
                    watch.touch()
            elif found := self._numbers.get(number):
                only_output = only_output and bool(mask & kernel.IN_MODIFY)
                found.touch()
                if mask & kernel.IN_IGNORED:
                    del self._numbers[number]
                    found.number = None
        now = asyncio.get_running_loop().time()
        if only_output and now - self._chatted_at < _CHATTY_SECONDS:
            self._pause()
        if only_output:
            self._chatted_at = now

    def _pause(self) -> None:
        """Let a chatty process's next writes come together: they cost one look, not thousands."""
        loop = asyncio.get_running_loop()
        assert self._inotify is not None
        loop.remove_reader(self._inotify)
        self._paused = loop.call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._paused = None
        if self._inotify is not None:
            asyncio.get_running_loop().add_reader(self._inotify, self._read)

    async def _tick(self) -> None:
        passed = 0.0
        while True:
            quick = any(watch.number is None for watch in self._watches.values())
            length = _QUICK_SECONDS if quick else _SLOW_SECONDS
            await asyncio.sleep(length)
            passed += length
            everybody = passed >= _SLOW_SECONDS
            passed = 0.0 if everybody else passed
            for watch in list(self._watches.values()):
                if everybody or watch.number is None:
                    watch.touch()
