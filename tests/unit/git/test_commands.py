"""How git is called: the environment it gets, and what becomes of how it ends."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

import pytest

from anyon.domain.errors import AnyonError, DeadlineExceededError, UnavailableError
from anyon.domain.ids import AttemptId, ProjectId, new_id
from anyon.domain.layout import WORKSPACE, WORKTREES
from anyon.domain.states import ExitReason
from anyon.git.repositories import GitRepositories
from anyon.processes.processes import Completed, Exit

PROJECT = ProjectId(new_id())


class Recorded:
    """Runs nothing: keeps what was asked and answers what was set."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[str], Mapping[str, str], bytes | None]] = []
        self.answers: list[Completed] = []

    async def run(
        self,
        project: ProjectId,
        argv: Sequence[str],
        *,
        cwd: PurePosixPath = WORKSPACE,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: timedelta = timedelta(seconds=60),
    ) -> Completed:
        """Keep and answer."""
        assert project == PROJECT
        self.calls.append((argv, env or {}, stdin))
        return self.answers.pop(0) if self.answers else ended(0)


def ended(
    code: int | None, reason: ExitReason = ExitReason.EXITED, stderr: bytes = b""
) -> Completed:
    """Return a command that ended so."""
    return Completed(
        exit=Exit(code=code, reason=reason, at=datetime.now(UTC)), stdout=b"", stderr=stderr
    )


def _config(env: Mapping[str, str]) -> list[tuple[str, str]]:
    count = int(env["GIT_CONFIG_COUNT"])
    return [(env[f"GIT_CONFIG_KEY_{n}"], env[f"GIT_CONFIG_VALUE_{n}"]) for n in range(count)]


async def test_ownership_is_trusted_for_the_paths_of_the_call_only() -> None:
    """safe.directory names the workspace and the worktree, never all."""
    runs = Recorded()
    repository = GitRepositories(runs).of(PROJECT)
    await repository.current_branch()
    await repository.head(WORKTREES / "x")
    safe = [
        [value for key, value in _config(env) if key == "safe.directory"]
        for _, env, _ in runs.calls
    ]
    assert safe == [["/workspace"], ["/workspace", "/workspace/.worktrees/x"]]


async def test_git_asks_nobody_and_shows_no_pager() -> None:
    """No prompt, pager, editor, hook, monitor or translation; reads take no locks."""
    runs = Recorded()
    repository = GitRepositories(runs).of(PROJECT)
    await repository.current_branch()
    await repository.prepare_imported()
    (_, read, _), (_, write, _) = runs.calls
    for env in (read, write):
        assert env["GIT_TERMINAL_PROMPT"] == "0"
        assert env["LC_ALL"] == "C"
        assert env["GIT_PAGER"] == "cat"
        assert env["GIT_EDITOR"] == ":"
        assert env["GIT_ALLOW_PROTOCOL"] == "https:ssh"
        config = dict(_config(env))
        assert config["core.hooksPath"] == "/dev/null"
        assert config["core.fsmonitor"] == "false"
        assert config["gc.auto"] == "0"
    assert read["GIT_OPTIONAL_LOCKS"] == "0"
    assert "GIT_OPTIONAL_LOCKS" not in write


async def test_an_address_with_a_password_stands_in_no_argument() -> None:
    """A clone's URL travels on stdin."""
    runs = Recorded()
    await GitRepositories(runs).of(PROJECT).clone("https://kim:hunter2@example.org/x")
    (argv, env, stdin) = runs.calls[0]
    assert stdin == b"https://kim:hunter2@example.org/x\n"
    assert not any("hunter2" in word for word in [*argv, *env.values()])


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (ended(None, ExitReason.TIMEOUT), DeadlineExceededError, "deadline_exceeded"),
        (ended(137, ExitReason.SIGNALLED), UnavailableError, "git_interrupted"),
        (ended(137, ExitReason.OOM), UnavailableError, "git_interrupted"),
        (ended(128, stderr=b"fatal: odd"), AnyonError, "git_failed"),
        (ended(128, stderr=b"error: No space left on device"), AnyonError, "disk_full"),
    ],
)
async def test_ends_become_errors(answer: Completed, kind: type[AnyonError], code: str) -> None:
    """However a command ends, the caller learns it by a code."""
    runs = Recorded()
    runs.answers = [answer]
    with pytest.raises(kind) as raised:
        await GitRepositories(runs).of(PROJECT).branches()
    assert raised.value.code == code


async def test_a_stale_lock_is_removed_only_inside_the_repository() -> None:
    """A path that leads out of .git is not even tried; one inside is, and the command repeated."""
    runs = Recorded()
    locked = b"fatal: Unable to create '/workspace/.git/index.lock': File exists."
    runs.answers = [ended(128, stderr=locked), ended(0), ended(0)]
    repository = GitRepositories(runs).of(PROJECT)
    await repository.prepare_imported()
    assert len(runs.calls) == 3
    assert runs.calls[1][0][-1] == "/workspace/.git/index.lock"
    outside = b"fatal: Unable to create '/workspace/.git/../../etc/x.lock': File exists."
    runs.answers = [ended(128, stderr=outside), ended(0)]
    runs.calls.clear()
    await repository.prepare_imported()
    assert len(runs.calls) == 2
    assert not any("etc" in word for argv, _, _ in runs.calls for word in argv)


async def test_holders_of_a_repository_share_it() -> None:
    """Two callers get one object, hence one lock; nothing is kept when nobody holds it."""
    repositories = GitRepositories(Recorded())
    first = repositories.of(PROJECT)
    assert repositories.of(PROJECT) is first
    assert repositories.of(ProjectId(new_id())) is not first


async def test_bad_names_run_nothing() -> None:
    """What is refused is refused before the container is asked."""
    runs = Recorded()
    repository = GitRepositories(runs).of(PROJECT)
    attempt = AttemptId("../../x")
    with pytest.raises(AnyonError):
        await repository.add_worktree(attempt, branch="x", base="main")
    with pytest.raises(AnyonError):
        await repository.remove_worktree(
            AttemptId(new_id()), PurePosixPath("/workspace"), branch="x", target="main"
        )
    with pytest.raises(AnyonError):
        await repository.restore_saved("refs/heads/main", "x")
    with pytest.raises(AnyonError):
        await repository.diff_of_commit("HEAD~1")
    assert runs.calls == []
