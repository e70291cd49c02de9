"""The files driver syncs each directory's name once, and again when it is another directory."""

import contextlib
from pathlib import Path

import pytest

from anyon.storage.drivers import files
from anyon.storage.drivers.files import FilesStore


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the directories that were synced, in order."""
    found: list[str] = []
    real = files._sync_directory

    def note(directory: Path) -> None:
        real(directory)
        found.append(directory.name)

    monkeypatch.setattr(files, "_sync_directory", note)
    return found


def test_a_directorys_name_is_synced_once(tmp_path: Path, synced: list[str]) -> None:
    """The first write makes all names on its way durable, a second beside it only its own."""
    store = FilesStore(tmp_path / "store")
    store.put("user/project/packs/aa/one", b"1")
    assert synced == ["aa+", "packs+", "project+", "user+", "objects"]
    synced.clear()
    store.put("user/project/packs/aa/two", b"2")
    assert synced == ["aa+"]
    synced.clear()
    store.put("user/project/packs/bb/three", b"3")
    assert synced == ["bb+", "packs+"]


def test_a_directory_that_was_made_anew_is_synced_again(tmp_path: Path, synced: list[str]) -> None:
    """Directories that were emptied, dropped and made again by whomever are not taken for the old ones."""
    store, other = FilesStore(tmp_path / "store"), FilesStore(tmp_path / "store")
    store.put("user/one", b"1")
    other.delete("user/one")
    other.put("user/two", b"2")
    synced.clear()
    store.put("user/three", b"3")
    assert synced == ["user+", "objects"]
    synced.clear()
    store.put("user/four", b"4")
    assert synced == ["user+"]


def test_another_process_directory_is_not_trusted(tmp_path: Path, synced: list[str]) -> None:
    """Who made a directory may have died before it was on the disk: each store sees to that itself."""
    FilesStore(tmp_path / "store").put("user/project/one", b"1")
    synced.clear()
    FilesStore(tmp_path / "store").put("user/project/two", b"2")
    assert synced == ["project+", "user+", "objects"]


def test_descriptors_are_few_and_not_of_what_is_gone(tmp_path: Path) -> None:
    """However many directories are written to, a fixed number is held open, and none that was removed."""
    store = FilesStore(tmp_path / "store")
    before = _open_below(tmp_path)
    for number in range(3 * files._DURABLE_KEPT):
        store.put(f"user/project-{number}/one", b"1")
    assert len(_open_below(tmp_path)) - len(before) == files._DURABLE_KEPT
    for number in range(3 * files._DURABLE_KEPT):
        store.delete(f"user/project-{number}/one")
    assert [name for name in _open_below(tmp_path) if name.endswith("(deleted)")] == []


def _open_below(top: Path) -> list[str]:
    """Return what this process has open below *top*."""
    names = []
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            names.append(str(number.readlink()))
    return [name for name in names if name.startswith(str(top))]
