"""Postgres keeps the same contract."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from anyon.db import events
from anyon.db.databases import Database
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import UnavailableError
from anyon.domain.ids import new_id
from anyon.engines.memory import MemoryEngine
from anyon.testing.database_contract import DatabaseContract
from anyon.testing.database_pictures import PicturesContract
from anyon.testing.worlds import World

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


class TestPostgres(PicturesContract, DatabaseContract):
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

    async def test_the_main_job(self, url: str, tmp_path: Path) -> None:
        """The use cases, whole, run on Postgres as on SQLite: each of their queries is one it takes."""
        home = tmp_path / "home"
        world = World(home, MemoryEngine(hidden=[home]), {}, address=url)
        await world.db.open()
        await world.services.recover()
        project = await world.project(setup_script="true", cleanup_script="true")
        attempt = await world.attempt(project, "echo x > x.txt")
        assert len(await world.over(attempt)) == 3
        await world.services.attempts.merge(LOCAL_ACTOR, attempt.id)
        status = await world.services.attempts.status(LOCAL_ACTOR, attempt.id)
        assert len(status.merges) == 1
        (view,) = await world.services.tasks.list(LOCAL_ACTOR, project.id)
        assert (view.has_merged_attempt, view.has_in_progress_attempt) == (True, False)
        _, secret = await world.services.tokens.create(LOCAL_ACTOR, "t")
        assert (await world.services.tokens.authenticate(secret)).user_id == LOCAL_ACTOR.user_id
        assert len(await world.db.read(events.of_project, LOCAL_ACTOR.user_id, project.id)) >= 2
        process = await world.services.processes.exec(LOCAL_ACTOR, project.id, ["sleep", "600"])
        world = await world.reborn()
        await world.services.recover()
        await world.services.processes.kill(LOCAL_ACTOR, process.id)
        await world.services.tasks.delete(LOCAL_ACTOR, attempt.task_id)
        await world.services.projects.delete(LOCAL_ACTOR, project.id)
        await world.end()
        await world.engine.close()


async def test_no_server() -> None:
    """A server that does not answer is a clear error, not a trace."""
    with pytest.raises(UnavailableError) as caught:
        await Database("postgresql://nobody@127.0.0.1:1/none").open()
    assert caught.value.code == "database_unavailable"
