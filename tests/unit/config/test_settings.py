"""Settings: the environment over the file over the defaults; each mistake is named."""

from datetime import timedelta
from pathlib import Path

import pytest

from anyon.config import Settings, SettingsError, load


def test_defaults_are_the_plans() -> None:
    """With nothing given: loopback, 8080, freeze after 5 minutes, stop after 30, archive after 7 days."""
    settings = load({})
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.freeze_after == timedelta(minutes=5)
    assert settings.stop_after == timedelta(minutes=30)
    assert settings.archive_after == timedelta(days=7)
    assert not settings.tokens_required


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A value from ANYON_* replaces the file's; the rest of the file holds."""
    file = tmp_path / "anyon.toml"
    file.write_text('port = 9000\nstop_after = "1h"\nallowed_hosts = ["a.example", "b.example"]\n')
    settings = load({"ANYON_PORT": "9001"}, file)
    assert settings.port == 9001
    assert settings.stop_after == timedelta(hours=1)
    assert settings.allowed_hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("text", "length"),
    [("90s", 90), ("5m", 300), ("7d", 604800), ("250ms", 0.25), ("0", 0), ("1.5h", 5400)],
)
def test_lengths_are_written_as_people_do(text: str, length: float) -> None:
    """A length is a number and a unit; a bare number is seconds."""
    assert load({"ANYON_FREEZE_AFTER": text}).freeze_after == timedelta(seconds=length)


def test_sizes_have_units() -> None:
    """A size is bytes, or a number and a decimal or binary unit."""
    assert load({"ANYON_OUTPUT_CAP": "2MiB"}).output_cap == 2 * 2**20
    assert load({"ANYON_CONTAINER_MEMORY": "2GB"}).container_memory == 2 * 10**9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "eighty"),
        ("FREEZE_AFTER", "5 fortnights"),
        ("FREEZE_AFTER", "-1s"),
        ("FREEZE_AFTER", "nan"),
        ("ENGINE", "podmann"),
        ("REQUIRE_TOKENS", "maybe"),
        ("OUTPUT_CAP", "many"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    """A value that cannot be is refused with the setting's name."""
    with pytest.raises(SettingsError, match=name.lower()):
        load({f"ANYON_{name}": value})


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    """A misspelt setting in the file is an error, not silence."""
    file = tmp_path / "anyon.toml"
    file.write_text("prot = 1\n")
    with pytest.raises(SettingsError, match="prot"):
        load({}, file)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A file that was named and is missing is an error; the default file may be missing."""
    with pytest.raises(SettingsError, match="not there"):
        load({"ANYON_CONFIG": str(tmp_path / "none.toml")})
    assert load({"HOME": str(tmp_path)}) == load({})


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after it was read."""
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::"])
def test_another_address_requires_tokens(host: str) -> None:
    """Whoever listens beyond loopback asks for tokens."""
    assert load({"ANYON_HOST": host}).tokens_required


def test_a_mount_needs_a_bucket(tmp_path: Path) -> None:
    """Storage on a mount without a bucket, or with a name that is none, is refused by name."""
    for bucket in ("", "anyon-projects", "gs://", "gs://a b", "s3://anyon-projects"):
        with pytest.raises(SettingsError, match="mount_bucket"):
            load({"ANYON_STORAGE": "gcsfuse", "ANYON_MOUNT_BUCKET": bucket, "HOME": str(tmp_path)})
    good = {"ANYON_STORAGE": "rclone", "ANYON_MOUNT_BUCKET": "gs://anyon-projects/main/"}
    assert load({**good, "HOME": str(tmp_path)}).storage == "rclone"


def test_what_a_migration_decided_is_the_homes_own(tmp_path: Path) -> None:
    """The home's ``storage.toml`` is read below everything else, and only for what it is about."""
    (tmp_path / "storage.toml").write_text(
        'storage = "gcsfuse"\nmount_bucket = "gs://anyon-projects"\nport = 1\n'
    )
    home = {"ANYON_HOME": str(tmp_path), "HOME": str(tmp_path / "nobody")}
    found = load(home)
    assert (found.storage, found.mount_bucket, found.port) == (
        "gcsfuse",
        "gs://anyon-projects",
        8080,
    )
    assert load({**home, "ANYON_STORAGE": "checkpoints"}).storage == "checkpoints"
