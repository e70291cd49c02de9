"""Change notices inside the server: "this has changed, look again"; they carry no state."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from anyon.domain.errors import UnavailableError
from anyon.domain.ids import AttemptId, ProjectId


class Kind(StrEnum):
    """What a notice is about."""

    PROJECT = "project"
    TASK = "task"
    ATTEMPT = "attempt"
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something was added, changed or removed; whoever wants to know what looks it up by ``id``."""

    kind: Kind
    id: str
    project_id: ProjectId
    attempt_id: AttemptId | None = None


class LagError(UnavailableError):
    """A subscriber did not read for too long and has missed notices: it must look at everything anew."""

    default_code = "lagging"


class Subscription:
    """Notices since this object was made; iterate it, and close it (or leave its ``with`` block).

    Iteration raises LagError once notices were lost, and ends when the feed or it was closed.
    """

    def __init__(self, feed: "Feed", project_id: ProjectId | None, capacity: int) -> None:
        self._feed = feed
        self._project_id = project_id
        self._capacity = capacity
        self._notices: asyncio.Queue[Change | None] = asyncio.Queue()
        self._has_lagged = False
        self._is_closed = False

    def offer(self, change: Change) -> None:
        """Take a notice if it is of interest; never waits."""
        if self._is_closed or self._project_id not in {None, change.project_id}:
            return
        if self._notices.qsize() >= self._capacity:
            self._has_lagged = True
            self._end()
            return
        self._notices.put_nowait(change)

    def close(self) -> None:
        """Stop taking notices; an iteration that waits ends."""
        self._feed.drop(self)
        self._end()

    def _end(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._notices.put_nowait(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if self._has_lagged:
            raise LagError("this reader fell behind and missed changes", hint="Connect again.")
        if self._is_closed and self._notices.empty():
            raise StopAsyncIteration
        change = await self._notices.get()
        if change is not None:
            return change
        if self._has_lagged:
            raise LagError("this reader fell behind and missed changes", hint="Connect again.")
        raise StopAsyncIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Feed:
    """Passes notices to whoever has subscribed. A slow subscriber never slows a writer."""

    def __init__(self, *, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._subscriptions: set[Subscription] = set()

    def subscribe(self, project_id: ProjectId | None = None) -> Subscription:
        """Return the notices of one project (None: of all) from this moment on.

        Subscribe first and read the state after: then nothing is missed.
        """
        subscription = Subscription(self, project_id, self._capacity)
        self._subscriptions.add(subscription)
        return subscription

    def publish(self, change: Change) -> None:
        """Tell all subscribers; returns at once."""
        for subscription in tuple(self._subscriptions):
            subscription.offer(change)

    def drop(self, subscription: Subscription) -> None:
        """Forget a subscription; repeats are harmless."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions; for the shutdown."""
        for subscription in tuple(self._subscriptions):
            subscription.close()
