"""Local repositories that are brought in: which may be, checked before anything is made."""

from pathlib import Path

from anyon.domain.errors import InvalidInputError, NotAllowedError


class Imports:
    """Says which local directories may become projects.

    Whoever can import can read what the server can read, so it is for servers whose only user is
    the machine's own (``is_allowed``). Anyon's own *home* is never imported.
    """

    def __init__(self, home: Path, *, is_allowed: bool) -> None:
        self._home = home
        self._is_allowed = is_allowed

    def checked(self, raw: str) -> Path:
        """Return the directory *raw* if it is a git repository's work tree that can be copied.

        InvalidInputError: ``path_not_absolute``, ``path_missing``, ``path_inside_home``,
        ``not_a_repository``, ``has_alternates``; NotAllowedError ``import_not_allowed``.
        """
        if not self._is_allowed:
            raise NotAllowedError(
                "this server does not read directories of its machine",
                code="import_not_allowed",
                hint="Give a clone URL instead.",
            )
        path = Path(raw)
        if "\0" in raw or not path.is_absolute():
            raise InvalidInputError(
                f"{raw!r} is not an absolute path", code="path_not_absolute", hint="Begin with /."
            )
        try:
            path = path.resolve(strict=True)
            is_directory = path.is_dir()
        except (OSError, RuntimeError, ValueError):
            is_directory = False
        if not is_directory:
            raise InvalidInputError(
                f"there is no directory {raw!r}", code="path_missing", hint="Check the path."
            )
        home = self._home.resolve()
        if path.is_relative_to(home) or home.is_relative_to(path):
            raise InvalidInputError(
                f"{raw!r} holds Anyon's own files or lies in them", code="path_inside_home"
            )
        _check_repository(path)
        return path


def _check_repository(path: Path) -> None:
    git = path / ".git"
    is_repository = git.is_dir() and (git / "HEAD").is_file() and (git / "objects").is_dir()
    if not is_repository:
        raise InvalidInputError(
            f"{str(path)!r} is not a git repository",
            code="not_a_repository",
            hint=(
                "A linked worktree and a bare repository cannot be imported: give the main work tree."
                if git.is_file() or (path / "HEAD").is_file()
                else "Run `git init` there first, or give the directory that holds .git."
            ),
        )
    if (git / "objects" / "info" / "alternates").is_file():
        raise InvalidInputError(
            f"{str(path)!r} borrows objects of another repository",
            code="has_alternates",
            hint="Run `git repack -a -d` there, then remove .git/objects/info/alternates.",
        )
