"""Only what is known to be harmless leaves the machine."""

import json

import pytest

from anyon.wiring.redactions import MARK, Redactor, frames, log_line, secrets_of, shown_setting

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
FORMS = [
    "postgresql://anyon:pa55word@host/db",
    "https://user@host/x.git",
    "anyon_0123456789abcdef0123",
    "Authorization: Bearer abc.def",
    "sk-ant-api03-abcdefghijkl",
    "ghp_abcdefghijklmnop",
    "github_pat_11ABCDEFG0123456789",
    "glpat-abcdefghijklmnop",
    "xoxb-1234567890-abc",
    "AIzaSyA-1234567890abcdefghijklm",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig-nature",
    "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\ncut off",
]


@pytest.mark.parametrize("text", FORMS)
def test_what_has_a_secrets_form_goes(text: str) -> None:
    """Also where nobody knows that it is one."""
    shown = Redactor([]).text(f"before {text} after")
    assert MARK in shown
    for part in (
        "pa55word",
        "user@",
        "0123456789abcdef",
        "abc.def",
        "abcdefghijkl",
        "MIIE",
        "cut off",
    ):
        assert part not in shown


def test_harmless_texts_stay() -> None:
    """The check above is not bought by taking everything out."""
    for text in (
        "https://host/x.git",
        f"project {ID}",
        "monkey business",
        "route /api/projects/{id}",
        'anyon_container_exec_duration_seconds_bucket{le="0.5"}',
    ):
        assert Redactor(["secret-value"]).text(text) == text


def test_known_secrets_go_wherever_they_stand() -> None:
    """In keys and values, the longer one first; a word of a few letters is no secret."""
    redactor = Redactor(["hunter2secret", "hunter2secret-and-more", "abc"])
    found = redactor.value({"a": ["x hunter2secret-and-more y", 3, None], "hunter2secret": "abc"})
    assert found == {"a": [f"x {MARK} y", 3, None], MARK: "abc"}
    environment = {
        "OPENAI_API_KEY": "one",
        "DB_PASSWORD": "two",
        "HOME": "three",
        "GH_TOKEN": "four",
    }
    assert sorted(secrets_of(environment)) == ["four", "one", "two"]


def test_settings_are_shown_unless_they_are_secret() -> None:
    """A URL keeps its place and loses what follows it."""
    assert shown_setting("port", 8080) == 8080
    assert shown_setting("some_secret_key", "x") == MARK
    assert shown_setting("some_secret_key", "") == ""
    assert shown_setting("require_tokens", True) is True
    assert shown_setting("store", "s3://bucket/a?key=1") == "s3://bucket/a"


def test_a_log_line_keeps_ids_codes_and_numbers() -> None:
    """Free text goes; the names of what went stay."""
    line = {
        "timestamp": "2026-01-01T00:00:00Z",
        "level": "warning",
        "event": "request.failed",
        "logger": "anyon.api.envelopes",
        "request_id": "r-1",
        "project": ID,
        "code": "engine_failed",
        "status": 502,
        "error": "the prompt says hello",
        "path": "/api/hello",
    }
    kept = log_line(json.dumps(line))
    assert kept == {k: v for k, v in line.items() if k not in {"error", "path"}} | {
        "left_out": ["error", "path"]
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("event", "a library's words: hello"),
        ("event", "hello"),
        ("project", "hello"),
        ("code", "Hello there"),
        ("logger", "hello there"),
        ("route", "/api/hello there"),
        ("status", "hello"),
        ("level", {"hello": 1}),
        ("hello world", "x"),
        ("request_id", "hello there"),
        ("exception", "hello\nValueError: hello"),
        (
            "exception",
            '  File "/home/hello/anyon/x.py", line 3, in f\n    say("hello")\nOSError: hello',
        ),
    ],
)
def test_nothing_gets_through_under_a_harmless_key(key: str, value: object) -> None:
    """A value has the form that its key's values have, or it goes."""
    assert "hello" not in json.dumps(log_line(json.dumps({key: value})))


def test_a_traceback_keeps_its_places_and_kinds() -> None:
    """So that a mistake can be found, without the words and the sources in it."""
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/opt/venv/lib/python3.11/site-packages/anyon/api/apps.py", line 7, in f\n'
        "    secret = 1\n"
        "anyon.domain.errors.ConflictError: the secret is 1\n"
    )
    place, kind = frames(trace)
    assert place.endswith("anyon/api/apps.py line 7 f")
    assert kind == "anyon.domain.errors.ConflictError"


@pytest.mark.parametrize("line", ["", "no json", "[1]", '"text"', "{"])
def test_what_is_no_line_of_the_log_is_dropped(line: str) -> None:
    """Half a line at the end of a full disk, or somebody's own words."""
    assert log_line(line) is None
