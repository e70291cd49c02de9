"""No input makes a mistake of the server's: schemathesis over the OpenAPI document."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from tests.api.conftest import running

from anyon.config import Settings

EXAMPLES = 30
"""For each operation, of data that fits the document and of data that does not: about 2,000."""
KEYS = {"success", "data", "error_data", "message"}


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a server in a thread of its own for all examples."""
    home = tmp_path_factory.mktemp("fuzz") / "home"
    ready, over = threading.Event(), threading.Event()
    address: list[str] = []

    async def serve() -> None:
        async with running(Settings(home=home, default_agent="SHELL")) as one:
            address.append(one.base_url)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(60)
        yield address[0]
    finally:
        over.set()
        thread.join(60)


def test_no_input_is_a_mistake_of_the_servers(base_url: str) -> None:
    """Whatever is sent to whatever route, the answer is no 5xx, and JSON is in the envelope."""
    document = schemathesis.openapi.from_url(f"{base_url}/api/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 35
    for operation in operations:
        for mode in GenerationMode:
            cases = operation.as_strategy(generation_mode=mode)
            if operation.method == "get" and not list(operation.iter_parameters()):
                continue  # nothing can be varied: the other tests call it

            @seed(1)
            @settings(
                max_examples=EXAMPLES,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases)
            def answers(case: schemathesis.Case) -> None:
                response = case.call()
                assert response.status_code < 500, response.text
                kind = response.headers.get("content-type", [""])[0]
                if kind.startswith("application/json"):
                    assert set(response.json()) == KEYS

            answers()
