"""Rendered files are written whole, again without change, and never over other people's."""

from pathlib import Path, PurePosixPath

import pytest

from anyon.domain.errors import ConflictError, InvalidInputError
from anyon.monitoring.folders import Outcome, write

A, B = PurePosixPath("a.yml"), PurePosixPath("deep/b.yml")


def tree(directory: Path) -> dict[str, str]:
    """Return all files' texts."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_text() for path in paths}


def test_a_repeat_changes_nothing(tmp_path: Path) -> None:
    """The second call writes no file, not even the same bytes."""
    out = tmp_path / "out"
    assert write(out, {A: "1", B: "2"}) == {A: Outcome.CREATED, B: Outcome.CREATED}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert set(write(out, {A: "1", B: "2"}).values()) == {Outcome.UNCHANGED}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_ours_are_brought_up_to_date(tmp_path: Path) -> None:
    """What an earlier call wrote is replaced, or removed where it is no longer rendered."""
    write(tmp_path, {A: "1", B: "2"})
    assert write(tmp_path, {A: "3"}) == {A: Outcome.UPDATED, B: Outcome.REMOVED}
    assert (tmp_path / A).read_text() == "3"
    assert not (tmp_path / B).exists()


@pytest.mark.parametrize("kind", ["never ours", "changed since", "a link"])
def test_other_peoples_files_stay(tmp_path: Path, kind: str) -> None:
    """With one file in the way nothing at all is written; --force overwrites it."""
    out = tmp_path / "out"
    if kind == "changed since":
        write(out, {A: "1"})
    out.mkdir(exist_ok=True)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    if kind == "a link":
        (out / A).symlink_to(precious)
    else:
        (out / A).write_text("mine")
    before = tree(out)
    with pytest.raises(ConflictError, match=r"a\.yml") as refused:
        write(out, {A: "2", B: "2"})
    assert refused.value.code == "file_not_ours"
    assert tree(out) == before
    write(out, {A: "2", B: "2"}, force=True)
    assert (out / A).read_text() == "2"
    assert precious.read_text() == "mine"


def test_a_changed_file_that_is_no_longer_rendered_stays(tmp_path: Path) -> None:
    """Removing is for what is exactly as it was written."""
    write(tmp_path, {A: "1", B: "2"})
    (tmp_path / B).write_text("mine")
    assert write(tmp_path, {A: "1"}) == {A: Outcome.UNCHANGED}
    assert (tmp_path / B).read_text() == "mine"


def test_a_forged_manifest_leads_nowhere(tmp_path: Path) -> None:
    """Paths of a manifest that lead out of the directory are not followed."""
    out, precious = tmp_path / "out", tmp_path / "precious"
    precious.write_text("1")
    write(out, {PurePosixPath("precious"): "1"})
    manifest = out / ".anyon-monitoring.json"
    manifest.write_text(manifest.read_text().replace('"precious"', '"../precious"'))
    write(out, {A: "1"})
    assert precious.exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file in the directory's place is an error with a hint, not a trace."""
    (tmp_path / "out").write_text("")
    with pytest.raises(InvalidInputError, match="cannot be written"):
        write(tmp_path / "out", {A: "1"})
