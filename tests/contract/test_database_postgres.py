"""Postgres keeps the same contract."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from anyon.db.databases import Database
from anyon.domain.errors import UnavailableError
from anyon.domain.ids import new_id
from anyon.testing.database_contract import DatabaseContract

_SCRIPT = Path(__file__).parents[2] / "scripts" / "services" / "postgres.sh"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Return the address of a running server: ``ANYON_TEST_POSTGRES``, or the private one."""
    given = os.environ.get("ANYON_TEST_POSTGRES")
    if given:
        yield given
        return
    status = subprocess.run([_SCRIPT, "status"], check=False, capture_output=True, text=True)
    started = subprocess.run([_SCRIPT, "start"], check=False, capture_output=True, text=True)
    if started.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"Postgres must be there in CI: {started.stderr}")
        pytest.skip(f"no Postgres here: {started.stderr.strip()}")
    yield started.stdout.strip().splitlines()[-1]
    if status.returncode != 0:  # it was not running before
        subprocess.run([_SCRIPT, "stop"], check=True, capture_output=True)


class TestPostgres(DatabaseContract):
    @pytest.fixture
    def url(self, server: str) -> Iterator[str]:
        """Return the address of an empty database."""
        name = "t" + new_id().replace("-", "")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        base, _, _ = server.rpartition("/")
        yield f"{base}/{name}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


async def test_no_server() -> None:
    """A server that does not answer is a clear error, not a trace."""
    with pytest.raises(UnavailableError) as caught:
        await Database("postgresql://nobody@127.0.0.1:1/none").open()
    assert caught.value.code == "database_unavailable"
