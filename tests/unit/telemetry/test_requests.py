"""A request's id is well-formed always, and goes where its work goes."""

import asyncio

import pytest
import structlog

from anyon.telemetry.requests import current_request_id, is_request_id, request_id_of, requested


@pytest.mark.parametrize(
    "text", ["a", "0af7651916cd43dd8448eb211c80319c", "job-7.retry_2", "x" * 64]
)
def test_a_well_formed_id_is_taken(text: str) -> None:
    """What a caller names is found again under that name."""
    assert request_id_of(text) == text


@pytest.mark.parametrize(
    "text", ["", "x" * 65, "a b", "a\nb", "-a", "a-", 'a"b', "é", "a=b", "${x}", "../a", None]
)
def test_an_ill_formed_id_is_replaced(text: str | None) -> None:
    """Nothing that a caller sends gets into logs, labels or variables unless it is plain."""
    made = request_id_of(text)
    assert made != text
    assert is_request_id(made)
    assert request_id_of(text) != made


async def test_the_id_goes_along_with_tasks_and_threads() -> None:
    """What a request starts knows it, also after the request is over; others do not."""
    release = asyncio.Event()

    async def later() -> str | None:
        await release.wait()
        return await asyncio.to_thread(current_request_id)

    with requested("one"):
        background = asyncio.create_task(later())
        with requested("two"):
            assert current_request_id() == "two"
        assert structlog.contextvars.get_contextvars() == {"request_id": "one"}
    release.set()
    assert await background == "one"
    assert current_request_id() is None
