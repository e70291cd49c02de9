"""What every database does for Anyon; a driver's test gives the address of an empty one."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text, update

from anyon.db import attempts, events, leases, looks, processes, projects, tasks, tokens, users
from anyon.db.databases import Database
from anyon.db.schema import metadata
from anyon.db.schema import projects as project_table
from anyon.db.schema import users as user_table
from anyon.domain.entities import Attempt, Lease, Process, Project, Task, Token
from anyon.domain.errors import UnavailableError
from anyon.domain.ids import (
    AttemptId,
    LeaseId,
    ProcessId,
    ProjectId,
    TaskId,
    TokenId,
    UserId,
    new_id,
)
from anyon.domain.states import ExitReason, ProcessStatus, RunReason, TaskStatus

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def project_of(user: UserId, name: str = "demo") -> Project:
    """Return a project as it is recorded first."""
    return Project(
        id=ProjectId(new_id()),
        user_id=user,
        name=name,
        path="/nowhere",
        phase_since=NOW,
        last_active_at=NOW,
        created_at=NOW,
        updated_at=NOW,
    )


def _task(project: Project) -> Task:
    return Task(
        id=TaskId(new_id()),
        project_id=project.id,
        title="제목 👩‍👩‍👧‍👦",
        description="x\ny",
        status=TaskStatus.TODO,
        created_at=NOW,
        updated_at=NOW,
    )


def _attempt(task: Task) -> Attempt:
    return Attempt(
        id=AttemptId(new_id()),
        task_id=task.id,
        project_id=task.project_id,
        branch="anyon/x",
        target_branch="main",
        agent="SHELL",
        created_at=NOW,
        updated_at=NOW,
    )


def _process(attempt: Attempt) -> Process:
    return Process(
        id=ProcessId(new_id()),
        project_id=attempt.project_id,
        attempt_id=attempt.id,
        run_reason=RunReason.CODINGAGENT,
        action="{}",
        status=ProcessStatus.RUNNING,
        started_at=NOW,
        created_at=NOW,
        updated_at=NOW,
    )


def add_user(connection: Connection, name: str = "a") -> UserId:
    """Record a new user."""
    return users.ensure(connection, UserId(new_id()), name, NOW).id


def add_all(connection: Connection) -> tuple[UserId, Project, Task, Attempt, Process]:
    """Record a new user with one of each of what a project has."""
    user = add_user(connection)
    project = project_of(user)
    assert projects.add(connection, project)
    task = _task(project)
    tasks.add(connection, task)
    attempt = _attempt(task)
    attempts.add(connection, attempt)
    process = _process(attempt)
    processes.add(connection, process)
    return user, project, task, attempt, process


def _count(connection: Connection) -> int:
    return len(connection.execute(select(user_table.c.id)).all())


class DatabaseContract:
    """The suite. The fixture ``url`` is the address of an empty database."""

    @pytest.fixture
    async def db(self, url: str) -> AsyncIterator[Database]:
        """Return the database, open."""
        db = Database(url)
        await db.open()
        yield db
        await db.close()

    async def test_records_come_back_as_they_were(self, db: Database) -> None:
        """Every field of every record is read as it was written, times to the microsecond."""
        user, project, task, attempt, process = await db.write(add_all)
        assert await db.read(projects.get, user, project.id) == project
        assert await db.read(tasks.get, user, task.id) == task
        assert await db.read(attempts.get, user, attempt.id) == attempt
        assert await db.read(processes.get, user, process.id) == process
        token = Token(
            id=TokenId(new_id()),
            user_id=user,
            name="t",
            prefix="anyon_abc",
            sha256="00",
            created_at=NOW.astimezone(timezone(timedelta(hours=9))),
            expires_at=None,
            scopes=frozenset({"b", "a"}),
        )
        await db.write(tokens.add, token)
        assert await db.read(tokens.by_sha256, "00") == token

    async def test_naive_times_are_refused(self, db: Database) -> None:
        """A time without a zone is a mistake that must not reach a record."""
        with pytest.raises(Exception, match="aware"):
            await db.write(users.ensure, UserId("x"), "x", NOW.replace(tzinfo=None))
        assert await db.read(_count) == 0

    async def test_upgrade_is_idempotent(self, db: Database, url: str) -> None:
        """Opening again changes nothing, and nothing that was recorded is lost."""
        await db.write(add_user)
        again = Database(url)
        await again.open()
        assert await again.read(_count) == 1
        await again.close()

    async def test_migrations_make_the_schema(self, db: Database) -> None:
        """The migrations lead to exactly the tables that the program knows."""

        def differences(connection: Connection) -> list[object]:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))

        assert await db.write(differences) == []

    async def test_a_newer_schema_is_refused(self, db: Database, url: str) -> None:
        """A database of a newer program is refused with a clear code, and is not touched."""
        await db.write(
            lambda connection: connection.execute(
                text("UPDATE alembic_version SET version_num = '9999'")
            )
        )
        with pytest.raises(UnavailableError) as caught:
            await Database(url).open()
        assert caught.value.code == "schema_too_new"

    async def test_a_write_that_fails_did_nothing(self, db: Database) -> None:
        """All of a write is done, or nothing."""

        def half(connection: Connection) -> None:
            add_user(connection)
            raise ValueError("enough")

        with pytest.raises(ValueError, match="enough"):
            await db.write(half)
        assert await db.read(_count) == 0

    async def test_reads_cannot_write(self, db: Database) -> None:
        """A read that tries to write fails; nothing is changed."""
        with pytest.raises(UnavailableError):
            await db.read(add_user)
        assert await db.read(_count) == 0

    async def test_writes_are_serial(self, db: Database, url: str) -> None:
        """What a write has read stays true until its end, with another server on the same database."""
        user = await db.write(add_user)
        await db.write(lambda c: c.execute(update(user_table).values(name="0")))
        other = Database(url)
        await other.open()

        def add_one(connection: Connection) -> None:
            name = connection.execute(select(user_table.c.name)).scalar_one()
            connection.execute(
                update(user_table).where(user_table.c.id == user).values(name=str(int(name) + 1))
            )

        await asyncio.gather(*(d.write(add_one) for d in (db, other) for _ in range(20)))
        found = await db.read(users.get, user)
        assert found is not None
        assert found.name == "40"
        await other.close()

    async def test_one_name_for_one_project(self, db: Database) -> None:
        """A user has one project of a name; a deleted one's is free, and another user's no matter."""
        user = await db.write(add_user)
        other = await db.write(add_user, "b")
        first = project_of(user)
        assert await db.write(projects.add, first)
        assert not await db.write(projects.add, project_of(user))
        assert await db.write(projects.add, project_of(other))
        await db.write(projects.bury, user, first.id, NOW)
        assert await db.write(projects.add, project_of(user))

    async def test_the_name_rule_is_the_databases_own(self, db: Database) -> None:
        """Were the check before it forgotten, the database would still refuse a second one."""
        user = await db.write(add_user)
        first, second = project_of(user), project_of(user)
        assert await db.write(projects.add, first)
        row = {column.name: getattr(second, column.name, None) for column in project_table.c}
        with pytest.raises(UnavailableError):
            await db.write(lambda c: c.execute(insert(project_table).values(**row)))

    async def test_others_things_are_not_there(self, db: Database) -> None:
        """No query for a user finds, lists or deletes anything of another's."""
        _user, project, task, attempt, process = await db.write(add_all)
        other = await db.write(add_user, "b")
        assert await db.read(projects.get, other, project.id) is None
        assert await db.read(projects.of_user, other) == []
        assert await db.read(tasks.get, other, task.id) is None
        assert await db.read(tasks.of_project, other, project.id) == []
        assert await db.read(attempts.get, other, attempt.id) is None
        assert await db.read(attempts.of_task, other, task.id) == []
        assert await db.read(processes.get, other, process.id) is None
        assert await db.read(processes.of_project, other, project.id) == []
        assert await db.write(projects.bury, other, project.id, NOW) is None

    async def test_a_tombstone_hides_all_below(self, db: Database) -> None:
        """What belongs to a deleted project is seen by no user's query any more."""
        user, project, task, attempt, process = await db.write(add_all)
        await db.write(projects.bury, user, project.id, NOW)
        assert await db.read(projects.get, user, project.id) is None
        assert await db.read(tasks.get, user, task.id) is None
        assert await db.read(attempts.get, user, attempt.id) is None
        assert await db.read(processes.get, user, process.id) is None

    async def test_removal_takes_all_below(self, db: Database) -> None:
        """Removing a project removes its tasks, attempts, processes: foreign keys are on."""
        _user, project, task, attempt, process = await db.write(add_all)
        await db.write(projects.remove, project.id)
        assert await db.read(tasks.find, task.id) is None
        assert await db.read(attempts.find, attempt.id) is None
        assert await db.read(processes.find, process.id) is None

    async def test_an_exit_is_recorded_once(self, db: Database) -> None:
        """The first exit stays, whatever is said later; a closed process is open no more."""
        user, _project, _task, attempt, process = await db.write(add_all)

        def end(connection: Connection, code: int) -> bool:
            status = ProcessStatus.COMPLETED if code == 0 else ProcessStatus.FAILED
            reason = ExitReason.EXITED
            return processes.ended(
                connection, process.id, status=status, code=code, reason=reason, at=NOW, now=NOW
            )

        assert await db.write(end, 0)
        assert not await db.write(end, 1)
        found = await db.read(processes.get, user, process.id)
        assert found is not None
        assert (found.exit_code, found.status) == (0, ProcessStatus.COMPLETED)
        assert len(await db.read(processes.open_ones, attempt=attempt.id)) == 1
        assert await db.write(processes.close, process.id, NOW)
        assert not await db.write(processes.close, process.id, NOW)
        assert await db.read(processes.open_ones, attempt=attempt.id) == []

    async def test_one_server_takes_a_project(self, db: Database) -> None:
        """A project is one server's until its claim has expired, however often it claims it anew."""
        user = await db.write(add_user)
        project = project_of(user)
        await db.write(projects.add, project)
        later = NOW + timedelta(seconds=60)
        assert await db.write(projects.take, project.id, "one", NOW, later) is None
        assert await db.write(projects.take, project.id, "one", NOW, later) is None
        assert await db.write(projects.take, project.id, "two", NOW, later) == "one"
        after = later + timedelta(microseconds=1)
        assert await db.write(projects.take, project.id, "two", after, after) is None

    async def test_leases_expire(self, db: Database) -> None:
        """A lease counts until its time and not after it."""
        user = await db.write(add_user)
        project = project_of(user)
        await db.write(projects.add, project)
        lease = Lease(
            id=LeaseId(new_id()),
            project_id=project.id,
            holder="h",
            reason="r",
            created_at=NOW,
            expires_at=NOW + timedelta(seconds=9),
        )
        await db.write(leases.add, lease)
        assert await db.read(leases.all_valid, NOW) == [lease]
        assert await db.read(leases.all_valid, lease.expires_at) == []

    async def test_looks_are_kept_until_work_comes(self, db: Database) -> None:
        """One answer to a question, bytes as they were; none over work; a lease's work or the project's end removes it."""
        _, project, *_ = await db.write(add_all)
        later = NOW + timedelta(seconds=1)

        async def keep(key: str, body: bytes, since: datetime | None, **more: bool) -> bool:
            more = {"is_lasting": False} | more
            return await db.write(
                looks.keep, project.id, key, body, later, if_idle_since=since, **more
            )

        assert await keep("a", b"\x00old", NOW)
        assert await keep("a", b"\x00\xffnew", None)
        assert not await keep("b", b"over work", later)
        assert await keep("c", b"for ever", NOW, is_lasting=True)
        assert await db.read(looks.find, project.id, "a") == b"\x00\xffnew"
        assert await db.read(looks.keys, project.id) == {"a", "c"}
        await db.write(looks.forget, project.id)
        assert await db.read(looks.keys, project.id) == {"c"}
        await db.write(projects.remove, project.id)
        assert await db.read(looks.find, project.id, "c") is None
        assert not await keep("a", b"of nobody", None)

    async def test_the_oldest_looks_go_first(
        self, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a project so many are kept and no more."""
        monkeypatch.setattr(looks, "MOST", 3)
        _, project, *_ = await db.write(add_all)
        for number in range(5):
            at = NOW + timedelta(seconds=number)
            await db.write(
                looks.keep, project.id, f"{number}", b"", at, is_lasting=True, if_idle_since=None
            )
        assert await db.read(looks.keys, project.id) == {"2", "3", "4"}

    async def test_old_events_go_the_oldest_first(self, db: Database) -> None:
        """Of what is old, so many go at a time; the newest and the last of each kind stay."""
        user, project, *_ = await db.write(add_all)
        for day, kind in enumerate(["a", "b", "a", "a", "c", "c"]):
            await db.write(events.add, project.id, kind, NOW + timedelta(days=day))

        async def pruned(at_most: int) -> tuple[int, list[int]]:
            before = NOW + timedelta(days=5)
            count = await db.write(events.prune, project.id, before=before, keep=1, at_most=at_most)
            left = await db.read(events.of_project, user, project.id)
            return count, [(event.at - NOW).days for event in left]

        assert await pruned(1) == (1, [1, 2, 3, 4, 5])
        assert await pruned(9) == (2, [1, 3, 5])
        assert await pruned(9) == (0, [1, 3, 5])
