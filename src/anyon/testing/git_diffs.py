"""What a diff shows: a part of the repository contract."""

import pytest

from anyon.domain.errors import NotFoundError
from anyon.git.repository import ChangeKind, FileDiff
from anyon.testing.git_trials import Trial


def by_path(diffs: object) -> dict[str, FileDiff]:
    """Return file diffs by their new path, or the old one of what is deleted."""
    assert isinstance(diffs, list)
    return {diff.new_path or diff.old_path: diff for diff in diffs}


class DiffsContract:
    """diff, diff_of_commit."""

    async def test_a_diff_shows_committed_changed_and_untracked(self, trial: Trial) -> None:
        """All of it against the merge base; the agent's index and the repository stay as they are."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(
            f"""echo later >later; git add .; git commit -qm later
            cd {attempt.path}; echo four >>a.txt; git commit -qam four; chmod +x src/b.txt
            git mv run.sh go.sh; printf 'ünï\\n' >new; rm -f a.txt; printf 'one\\n' >a.txt"""
        )
        before = await trial.inside(f"cd {attempt.path}; git status --porcelain; cd -; {_OBJECTS}")
        found = by_path(await trial.repository.diff(attempt.path, base="main"))
        assert sorted(found) == ["a.txt", "go.sh", "new", "src/b.txt"]
        assert found["a.txt"].kind is ChangeKind.MODIFIED
        assert found["a.txt"].old_content == "one\ntwo\nthree\n"
        assert found["a.txt"].new_content == "one\n"
        assert (found["a.txt"].additions, found["a.txt"].deletions) == (0, 2)
        assert found["src/b.txt"].kind is ChangeKind.PERMISSION
        assert (found["go.sh"].kind, found["go.sh"].old_path) == (ChangeKind.RENAMED, "run.sh")
        assert found["new"].kind is ChangeKind.ADDED
        assert (found["new"].old_path, found["new"].new_content) == (None, "ünï\n")
        assert not any(diff.content_omitted for diff in found.values())
        after = await trial.inside(f"cd {attempt.path}; git status --porcelain; cd -; {_OBJECTS}")
        assert after == before
        assert await trial.inside("ls -A .git/anyon-tmp") == ""

    async def test_numbers_only(self, trial: Trial) -> None:
        """Without contents there are counts, and nothing is left behind."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.write(f"{attempt.path}/a.txt", b"one\n2\nthree\n")
        (diff,) = await trial.repository.diff(attempt.path, base="main", with_contents=False)
        assert (diff.additions, diff.deletions, diff.content_omitted) == (1, 1, True)
        assert diff.old_content is diff.new_content is None
        assert await trial.inside("ls -A .git/anyon-tmp") == ""

    async def test_odd_files(self, trial: Trial) -> None:
        """Binary, non-UTF-8, huge, linked, nested and strangely named files each have their form."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(
            f"""cd {attempt.path}; printf 'a\\0b' >bin; printf '\\307\\321\\261\\333\\n' >cp949
            head -c 2100000 /dev/zero | tr '\\0' 'x' >huge; ln -s a.txt link
            printf 1 >"$(printf 'tab\\tquote"new\\nline')"; printf 2 >"$(printf 'bad\\377name')"
            head -c 40000000 /dev/zero >giant
            git init -q sub; cd sub; git commit -q --allow-empty -m s"""
        )
        found = by_path(await trial.repository.diff(attempt.path, base="main"))
        assert sorted(found) == sorted(
            ["bin", "cp949", "huge", "giant", "link", 'tab\tquote"new\nline', "bad\\xffname", "sub"]
        )
        assert found["bin"].additions is None
        for name in ("bin", "cp949", "huge", "giant"):
            assert found[name].content_omitted
            assert found[name].new_content is None
        assert found["cp949"].additions == 1
        assert found["huge"].additions == 1
        assert found["link"].new_content == "a.txt"
        assert found["sub"].new_content is not None
        assert found["sub"].new_content.startswith("Subproject commit ")

    async def test_a_commits_own_change(self, trial: Trial) -> None:
        """A commit against its first parent, a first commit against nothing, an unknown one refused."""
        await trial.repository.init()
        first = await trial.repository.head()
        second = await trial.started()
        found = by_path(await trial.repository.diff_of_commit(second))
        assert sorted(found) == ["a.txt", "run.sh", "src/b.txt"]
        assert found["a.txt"].new_content == "one\ntwo\nthree\n"
        (ignore,) = await trial.repository.diff_of_commit(first)
        assert (ignore.kind, ignore.new_path) == (ChangeKind.ADDED, ".gitignore")
        with pytest.raises(NotFoundError) as raised:
            await trial.repository.diff_of_commit("0" * 40)
        assert raised.value.code == "commit_unknown"


_OBJECTS = "find .git/objects -type f | sort"
