"""The feed: nothing missed, nobody slowed."""

import pytest

from anyon.domain.ids import ProjectId
from anyon.services.feed import Change, Feed, Kind, LagError


def _change(number: int, project: str = "p") -> Change:
    return Change(kind=Kind.TASK, id=str(number), project_id=ProjectId(project))


async def test_each_gets_its_projects_notices_in_order() -> None:
    """A subscriber gets the notices of its project since its subscription, in order; one of all gets all."""
    feed = Feed()
    feed.publish(_change(0))
    with feed.subscribe(ProjectId("p")) as mine, feed.subscribe() as everything:
        for number in (1, 2):
            feed.publish(_change(number))
            feed.publish(_change(number, "other"))
        feed.close()
        assert [change.id async for change in mine] == ["1", "2"]
        assert [change.id async for change in everything] == ["1", "1", "2", "2"]


async def test_lagging_is_told() -> None:
    """Who does not read is told that notices were lost, and slows nobody."""
    feed = Feed(capacity=3)
    slow, quick = feed.subscribe(), feed.subscribe()
    for number in range(10):
        feed.publish(_change(number))
        assert (await anext(quick)).id == str(number)
    with pytest.raises(LagError):
        await anext(slow)
    quick.close()
    with pytest.raises(StopAsyncIteration):
        await anext(quick)
