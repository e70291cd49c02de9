"""A server over a bucket: nothing in it can be read without the key, and with it all comes back."""

import io
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from anyon.storage.drivers.gcs import GcsStore
from anyon.storage.drivers.s3 import S3Store
from anyon.storage.objects import ObjectStore
from anyon.testing.gcs_emulator import emulator, make_bucket, program
from anyon.testing.s3_emulator import credentials, is_installed, make_s3_bucket, s3_emulator
from anyon.testing.servers import ANYON, ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
CANARY = "canary-3f1c9a0e77"
PATIENCE = 90.0
_ZSTD = b"\x28\xb5\x2f\xfd"


@pytest.fixture
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of an empty bucket of the kind that is asked for."""
    kind, name = request.param, f"b-{uuid.uuid4().hex[:12]}"
    if not (program() if kind == "gs" else is_installed()):
        if os.environ.get("CI"):
            pytest.fail(f"the emulator of {kind} is not installed")
        pytest.skip(f"the emulator of {kind} is not installed")
    with emulator() if kind == "gs" else s3_emulator() as url:
        (make_bucket if kind == "gs" else make_s3_bucket)(url, name)
        environment = {"STORAGE_EMULATOR_HOST": url} if kind == "gs" else credentials(url)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        yield f"{kind}://{name}/some/prefix"


def opened(address: str) -> ObjectStore:
    """Return the bucket as whoever got hold of it sees it."""
    kind, _, rest = address.partition("://")
    name, _, prefix = rest.partition("/")
    return GcsStore(name, prefix) if kind == "gs" else S3Store(name, prefix)


def shows_canary(store: ObjectStore) -> set[str]:
    """Return the kinds of objects in which the canary can be read, compressed or not."""
    return {
        info.key.split("/")[2]
        for info in store.list("")
        if info.key.count("/") > 1 and CANARY.encode() in unpacked(store.get(info.key).data)
    }


def unpacked(data: bytes) -> bytes:
    """Return *data* and what its zstd frames hold."""
    found, at = [data], data.find(_ZSTD)
    while at >= 0:
        try:
            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data[at:]))
            found.append(reader.read(1 << 24))
        except zstandard.ZstdError:
            pass  # these four bytes were no frame
        at = data.find(_ZSTD, at + 1)
    return b"\n".join(found)


def wait_for(store: ObjectStore, part: str, server: ServerProcess) -> None:
    """Wait until an object is there whose key holds *part*."""
    deadline = time.monotonic() + PATIENCE
    while not any(part in info.key for info in store.list("")):
        assert time.monotonic() < deadline, server.log.read_text()[-3000:]
        time.sleep(0.3)


def worked(home: Path, address: str, encryption: str) -> ObjectStore:
    """Let a server say the canary everywhere, end it, and return its bucket."""
    server = ServerProcess(home, "memory", {"ANYON_STORE": address, "ANYON_ENCRYPTION": encryption})
    server.start()
    store = opened(address)
    try:
        project = server.call("POST", "/api/projects", {"name": "demo"})["id"]
        task = {"project_id": project, "title": "a task", "description": CANARY}
        server.call("POST", "/api/tasks", task)
        argv = ["sh", "-c", f"echo {CANARY}; echo {CANARY} > {CANARY}"]
        server.call("POST", f"/api/projects/{project}/exec", {"argv": argv})
        wait_for(store, "/logs/", server)
        wait_for(store, "/end", server)
        server.call("POST", f"/api/projects/{project}/checkpoints")
    finally:
        server.stop()
    return store


@pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)
def test_a_bucket_tells_nothing(bucket: str, tmp_path: Path) -> None:
    """By default neither files nor names, prompts, outputs or the database can be read in it.

    Without the key file nothing is recovered, and it is said why; with it tasks come back.
    """
    home, new = tmp_path / "home", tmp_path / "new"
    store = worked(home, bucket, "auto")
    assert shows_canary(store) == set()
    assert "keys.made" in home.with_suffix(".log").read_text()
    keys = shutil.copy(home / "keys.json", tmp_path / "kept-elsewhere.json")
    shutil.rmtree(home)
    done = recovered(new, bucket)
    assert done.returncode == 7
    assert json.loads(done.stderr)["error"]["code"] == "key_missing"
    assert not (new / "anyon.db").exists()
    done = recovered(new, bucket, "--key-file", str(keys))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["state"]["source"] == "replica"
    assert [(one["name"], one["tasks"]) for one in said["projects"]] == [("demo", 1)]


def recovered(home: Path, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Recover a bucket into a home."""
    return subprocess.run(
        [ANYON, "recover", "--from", address, "--take-over", "--json", *options],
        env=os.environ | {"ANYON_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_the_control(bucket: str, tmp_path: Path) -> None:
    """With encryption off the canary is found: in packs, in outputs, and in the database's copies."""
    store = worked(tmp_path / "home", bucket, "off")
    assert {"packs", "logs", "replica"} <= shows_canary(store)
