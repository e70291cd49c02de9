"""Names from outside, made safe or refused."""

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import AttemptId
from anyon.git import names

# A loaded machine is slow now and then: that is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ATTEMPT = AttemptId("1a2b3c4d-0000-4000-8000-000000000001")


@pytest.mark.parametrize(
    ("title", "branch"),
    [
        ("Add a login page", "an/1a2b-add-a-login-page"),
        ("로그인 페이지 추가", "an/1a2b-rogeuin-peiji-ch"),
        ("로그인", "an/1a2b-rogeuin"),
        ("Überprüfe das Café", "an/1a2b-uberprufe-das-ca"),
        ("😀" * 300, "an/1a2b3c4d"),
        ("", "an/1a2b3c4d"),
        ("../../etc/passwd.lock", "an/1a2b-etc-passwd-lock"),
        ("ﬁx ½ ㎏", "an/1a2b-fix-12-kg"),
    ],
)
def test_branches_are_spelt_in_ascii(title: str, branch: str) -> None:
    """Hangul is romanised, accents dropped, and what leaves nothing gives the id."""
    assert names.branch_for("an", ATTEMPT, title) == branch


@UNHURRIED
@given(title=st.text(max_size=400), prefix=st.sampled_from(["", "an", "vk"]))
def test_every_title_gives_a_safe_branch(title: str, prefix: str) -> None:
    """Whatever the title, the branch is short, safe and begins with the attempt's id."""
    branch = names.branch_for(prefix, ATTEMPT, title)
    assert re.fullmatch(r"([a-z]+/)?1a2b[a-z0-9-]*[a-z0-9]", branch)
    assert len(branch) <= 30


def test_a_taken_branch_can_be_made_longer() -> None:
    """More of the id tells two attempts apart that begin alike."""
    assert names.branch_for("an", ATTEMPT, "x", width=12) == "an/1a2b3c4d0000-x"


HOSTILE = [
    "",
    "-x",
    "--output=/etc/passwd",
    ";id",
    "$(id)",
    "`id`",
    "a|b",
    "a&b",
    "a'b",
    'a"b',
    "a b",
    "a\tb",
    "a\nb",
    "a\0b",
    "a\x1bb",
    "a..b",
    "../a",
    "a/../b",
    "a@{1}",
    "@{-1}",
    "@",
    "a//b",
    "/a",
    "a/",
    "a/.b",
    ".a",
    "a.",
    "a./b",
    "a.lock",
    "a.lock/b",
    "a/-b",
    "a:b",
    "a~1",
    "a^",
    "a?b",
    "a*b",
    "a[b",
    "a\\b",
    "HEAD",
    "x" * 300,
    "a\u202eb",
    "a\u200bb",
    "\udcff",
    "refs/heads/\u0000",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(name: str) -> None:
    """Options, shell words, revisions, paths and control characters are no branch."""
    for check in (names.check_branch, names.check_ref):
        with pytest.raises(InvalidInputError) as raised:
            check(name)
        assert raised.value.code == "bad_ref_name"
        raised.value.message.encode()


@UNHURRIED
@given(st.text(max_size=40))
def test_what_passes_cannot_be_an_option_or_a_revision(name: str) -> None:
    """No accepted name holds a character that git, a shell or a path gives another meaning."""
    try:
        names.check_ref(name)
    except InvalidInputError:
        return
    assert not set(name) & set(" \t\r\n\0~^:?*[]\\;&|<>(){}$`'\"!%")
    assert name[0] not in "-./"
    assert ".." not in name


@pytest.mark.parametrize(
    "name", ["로그인/버튼", "fix#12", "dependabot/npm/@types+node-1.0", "v1.2"]
)
def test_others_branches_are_accepted(name: str) -> None:
    """A branch that is there already may have a name that Anyon would not give."""
    assert names.check_ref(name) == name


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a/b.git",
        "https://user:secret@example.org:8443/a",
        "https://[2001:db8::1]/a",
        "ssh://git@example.org:22/a/b",
        "git@example.org:a/b.git",
        "https://example.org/한글",
    ],
)
def test_remote_addresses_are_accepted(url: str) -> None:
    """The three forms of a remote repository can be cloned."""
    assert names.check_clone_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ext::sh -c id",
        "ext::sh%20-c%20id",
        "file:///etc",
        "/etc",
        "../x",
        "http://example.org/a",
        "git://example.org/a",
        "--upload-pack=touch /x",
        "-oProxyCommand=id",
        "ssh://-oProxyCommand=id/x",
        "ssh://u@-oProxyCommand=id/x",
        "ssh://-l@host/x",
        "git@-oProxyCommand=id:x",
        "-git@host:x",
        "git@host:-x",
        "git@host::x",
        "https://example.org/a\n",
        "https://example.org/a\r[core]",
        "https://example.org/a b",
        "https://exa$(id)mple.org/a",
        "https://example.org",
        "https:///a",
        "https://a:99999999/b",
        "HTTPS://example.org/a",
        "https://example.org\\@evil/a",
        "fd::3",
        "https://" + "a" * 3000,
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """Other transports, local paths, options and control characters are refused by code."""
    with pytest.raises(InvalidInputError) as raised:
        names.check_clone_url(url)
    assert raised.value.code == "bad_clone_url"


def test_credentials_are_not_repeated() -> None:
    """A message about an address shows who asks for what, never the password."""
    with pytest.raises(InvalidInputError) as raised:
        names.check_clone_url("ftp://kim:hunter2@example.org/a")
    assert "hunter2" not in raised.value.message
    text = "fatal: unable to access 'https://kim:hunter2@example.org/a/': no"
    assert names.redacted(text) == "fatal: unable to access 'https://***@example.org/a/': no"


def test_copy_patterns_stay_inside() -> None:
    """A project's list is split and checked; what leads out of the workspace is refused."""
    assert names.copy_patterns(" .env, config/*.json\n\na b.txt") == (
        ".env",
        "config/*.json",
        "a b.txt",
    )
    assert names.copy_patterns(None) == ()
    for bad in ("../x", "/etc/passwd", "a/../../b", "~/x", "-rf", ".git/config", "a//b", "a\x1bb"):
        with pytest.raises(InvalidInputError) as raised:
            names.copy_patterns(bad)
        assert raised.value.code == "bad_copy_pattern"


def test_worktrees_are_below_their_directory() -> None:
    """Only the workspace and a direct child of .worktrees, of the right attempt, will do."""
    good = PurePosixPath(f"/workspace/.worktrees/{ATTEMPT}-an-x")
    assert names.check_worktree(good, ATTEMPT) == good
    names.check_worktree(PurePosixPath("/workspace"))
    for bad in (
        "/workspace",
        "/workspace/.worktrees",
        f"/workspace/.worktrees/{ATTEMPT}-x/..",
        f"/workspace/.worktrees/../{ATTEMPT}-x",
        f"/etc/{ATTEMPT}-x",
        "/workspace/.worktrees/other",
        f"/workspace/.worktrees/{ATTEMPT}-x y",
    ):
        with pytest.raises(InvalidInputError):
            names.check_worktree(PurePosixPath(bad), ATTEMPT)
