"""Hiding in a layer: what the host keeps from others is never seen, what the project made stays."""

import os
import stat

import pytest

from anyon.engines.sandbox_layers import hidden_names, hide_in_layer, mount_points

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are made by root")


@pytest.fixture
def host(tmp_path):
    """A host with secrets in the usual and in unusual places."""
    root = tmp_path / "host"
    for place in ("etc/ssl/private", "etc/app", "home/alice", "root", "var/lib/dpkg", "var/lib/db"):
        (root / place).mkdir(parents=True)
    (root / "etc/ssl/private").chmod(0o710)
    (root / "etc/hosts").write_text("public")
    (root / "etc/app/token").write_text("secret")
    (root / "etc/app/token").chmod(0o600)
    (root / "etc/shadow").write_text("root:$6$hash:1::::::\nalice:$6$x:1::::::\n")
    (root / "etc/shadow").chmod(0o640)
    (root / "vault").mkdir()
    (root / ".env").write_text("secret")
    (root / "opt/anyon/home").mkdir(parents=True)
    return root


@root_only
def test_links_of_a_layer_lead_nowhere(host, tmp_path):
    """A layer whose links lead to the host, in the place of directories and files, changes nothing there."""
    upper = tmp_path / "upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/ssl").symlink_to(host / "etc/ssl")
    (upper / "etc/app").symlink_to(host / "etc/app")
    (upper / "var").symlink_to(host / "var")
    (upper / "etc/shadow").symlink_to(tmp_path / "made")
    before = {path: path.lstat().st_ctime_ns for path in host.rglob("*")}
    hide_in_layer(upper, [], host)
    assert {path: path.lstat().st_ctime_ns for path in host.rglob("*")} == before
    assert os.listxattr(host / "etc/ssl/private") == []
    assert not (tmp_path / "made").exists()
    assert (upper / "var").is_symlink()


def test_names_that_are_hidden(host):
    """Unknown entries, private files, and what is asked for; never what is fresh anyway."""
    names = hidden_names(host, [host / "opt/anyon/home", host / "tmp/x", host])
    assert names == [
        ".env",
        "etc/app/token",
        "etc/shadow",
        "etc/ssl/private",
        "home",
        "opt/anyon/home",
        "root",
        "var/lib/db",
        "vault",
    ]


@root_only
def test_a_layer_hides(host, tmp_path):
    """Directories become opaque and empty, files whiteouts; account files lose their passwords."""
    upper = tmp_path / "upper"
    upper.mkdir()
    hide_in_layer(upper, [host / "opt/anyon/home"], host)
    for name in ("home", "vault", "var/lib/db", "etc/ssl/private", "opt/anyon/home"):
        assert os.getxattr(upper / name, "user.overlay.opaque") == b"y"
        assert list((upper / name).iterdir()) == []
    assert stat.S_IMODE((upper / "etc/ssl/private").stat().st_mode) == 0o710
    for name in (".env", "etc/app/token"):
        found = (upper / name).lstat()
        assert stat.S_ISCHR(found.st_mode)
        assert found.st_rdev == 0
    assert (upper / "etc/shadow").read_text() == "root:*:1::::::\nalice:*:1::::::\n"
    assert not (upper / "etc/hosts").exists()


@root_only
def test_what_the_project_made_is_kept(host, tmp_path):
    """A second start changes nothing of the project's, and never merges the host's into it."""
    upper = tmp_path / "upper"
    (upper / "var/lib/db").mkdir(parents=True)
    (upper / "var/lib/db/mine").write_text("data")
    (upper / "etc/app").mkdir(parents=True)
    (upper / "etc/app/token").write_text("own")
    hide_in_layer(upper, [], host)
    hide_in_layer(upper, [], host)
    assert (upper / "var/lib/db/mine").read_text() == "data"
    assert os.getxattr(upper / "var/lib/db", "user.overlay.opaque") == b"y"
    assert (upper / "etc/app/token").read_text() == "own"


def test_mount_points_are_unescaped():
    """A blank is written as an octal escape."""
    line = "36 30 0:31 / /mnt/a\\040b rw - ext4 /dev/sda rw\n"
    assert [str(place) for place in mount_points(line)] == ["/mnt/a b"]
