"""Files laid into a worktree for its agent: a part of the repository contract."""

import pytest

from anyon.domain.errors import ConflictError, InvalidInputError, NotFoundError
from anyon.testing.git_trials import Trial

FOLDER = ".laid"
ODD = "$(touch pwned)`id`;&|'\"\u202e파일.png"


class AttachmentsContract:
    """missing_attachments, lay_attachment."""

    async def test_what_is_laid_is_there_and_git_does_not_see_it(self, trial: Trial) -> None:
        """Bytes as they are, whatever the name; in no status and no commit, whatever is not ignored."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.write(f"{attempt.path}/.gitignore", b"!*\n!.laid\n!.laid/**\n")
        await trial.repository.commit_all(attempt.path, "rules")
        content = bytes(range(256)) * 4096
        files = {"a.png": len(content), ODD: len(content), "any": None}
        missing = await trial.repository.missing_attachments(attempt.path, FOLDER, files)
        assert list(missing) == list(files)
        for name in files:
            await trial.repository.lay_attachment(attempt.path, FOLDER, name, content)
        assert await trial.repository.missing_attachments(attempt.path, FOLDER, files) == []
        files["a.png"] = 1
        again = await trial.repository.missing_attachments(attempt.path, FOLDER, files)
        assert list(again) == ["a.png"]
        assert await trial.raw(f"cat {attempt.path}/{FOLDER}/a.png") == content
        status = await trial.repository.status(attempt.path, target="main")
        assert (status.untracked, status.uncommitted) == (0, 0)
        assert await trial.repository.commit_all(attempt.path, "all") is None
        assert await trial.inside(f"cd {attempt.path}; ls -A {FOLDER} | wc -l") == "4\n"
        assert await trial.inside("find . -name pwned") == ""

    @pytest.mark.parametrize("planted", ["ln -s ../../out {0}", "echo x >{0}", "mkfifo {0}"])
    async def test_what_is_in_the_folders_place_stays(self, trial: Trial, planted: str) -> None:
        """A link, a file or a pipe that a tenant put there is neither followed nor removed."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.inside(f"mkdir out; cd {attempt.path}; {planted.format(FOLDER)}")
        for work in (
            trial.repository.missing_attachments(attempt.path, FOLDER, {"a": 1}),
            trial.repository.lay_attachment(attempt.path, FOLDER, "a", b"x"),
        ):
            with pytest.raises(ConflictError) as caught:
                await work
            assert caught.value.code == "attachment_not_laid"
        assert await trial.inside("ls -A out") == ""
        assert await trial.inside(f"cd {attempt.path}; ls -A | grep -c {FOLDER}") == "1\n"

    async def test_a_link_in_a_files_place_is_replaced(self, trial: Trial) -> None:
        """A file is written beside and renamed: what a link in its place leads to stays as it was."""
        await trial.started()
        attempt = await trial.attempt()
        await trial.repository.missing_attachments(attempt.path, FOLDER, {})
        place = f"{attempt.path}/{FOLDER}"
        await trial.inside(f"echo kept >out; ln -s /workspace/out {place}/a; mkdir {place}/b")
        missing = await trial.repository.missing_attachments(attempt.path, FOLDER, {"a": 5})
        assert list(missing) == ["a"]
        await trial.repository.lay_attachment(attempt.path, FOLDER, "a", b"new")
        assert await trial.inside(f"cat out {place}/a") == "kept\nnew"
        with pytest.raises(ConflictError):
            await trial.repository.lay_attachment(attempt.path, FOLDER, "b", b"new")
        assert await trial.inside(f"ls -A {place}/b") == ""

    async def test_names_and_worktrees_are_checked(self, trial: Trial) -> None:
        """What is no name of a file, and a worktree that is not there, are errors with a code."""
        await trial.started()
        attempt = await trial.attempt()
        for name in ("", ".", "..", "../x", "a/b", "-x", "a\nb", "a\0b"):
            with pytest.raises(InvalidInputError) as caught:
                await trial.repository.lay_attachment(attempt.path, FOLDER, name, b"x")
            assert caught.value.code == "bad_file_name"
        await trial.inside(f"rm -r {attempt.path}")
        with pytest.raises(NotFoundError):
            await trial.repository.lay_attachment(attempt.path, FOLDER, "a", b"x")
