"""What strangers put into a process's directory shows and harms nothing of the host."""

import os

import pytest

from anyon.domain.errors import ConflictError, NotFoundError
from anyon.processes.directories import SMALL_BYTES, RunDirectory


@pytest.fixture
def secret(tmp_path):
    """A file of the host's."""
    path = tmp_path / "secret"
    path.write_bytes(b"of the host")
    return path


@pytest.fixture
def runs(tmp_path):
    """A project's run directory."""
    return RunDirectory(tmp_path / "run")


def test_links_pipes_and_directories_are_no_files(runs, secret):
    """Through a link nothing is read, a pipe is not waited for, a large file is not small.

    Control: a plain file of the same name is read.
    """
    with runs.create("p") as directory:
        here = runs.path / "p"
        (here / "link").symlink_to(secret)
        os.mkfifo(here / "pipe")
        (here / "directory").mkdir()
        (here / "large").write_bytes(bytes(SMALL_BYTES + 1))
        for name in ("link", "pipe", "directory", "large"):
            assert directory.small(name).content is None
            assert name == "large" or directory.read(name, 0, 100) == b""
            assert name == "large" or directory.size(name) == 0
        (here / "plain").write_bytes(b"words")
        assert directory.small("plain").content == b"words"
        assert directory.small("absent") is None


def test_a_link_in_the_place_of_the_directory_is_refused(runs, secret):
    """The directory itself may be exchanged for a link: then there is none."""
    runs.path.mkdir()
    (runs.path / "p").symlink_to(secret.parent)
    assert runs.open("p") is None
    with pytest.raises(NotFoundError):
        runs.started("p")
    with pytest.raises(ConflictError):
        runs.create("p")
    assert runs.names() == []


def test_writing_replaces_links_and_follows_none(runs, secret):
    """What is written lands in the directory, whatever lay in wait there."""
    with runs.create("p") as directory:
        (runs.path / "p" / "command").symlink_to(secret)
        directory.write("command", b"mine")
        assert directory.small("command").content == b"mine"
        (runs.path / "p" / "exit").symlink_to(secret)
        assert not directory.write_first("exit", b"mine")
        assert directory.write_first("other", b"first")
        assert not directory.write_first("other", b"second")
        assert directory.small("other").content == b"first"
        assert sorted(path.name for path in (runs.path / "p").iterdir()) == [
            "command",
            "exit",
            "other",
        ]
    assert secret.read_bytes() == b"of the host"


def test_any_depth_can_be_removed(runs, secret):
    """A tree deeper than any stack is removed, and a link in it leads nowhere."""
    runs.create("p").close()
    here = os.open(runs.path / "p", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        os.symlink(secret.parent, "link", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    runs.remove("p")
    runs.remove("p")
    assert runs.names() == []
    assert secret.read_bytes() == b"of the host"
