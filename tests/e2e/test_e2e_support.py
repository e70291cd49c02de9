"""``anyon support bundle`` after real work: nothing private is inside, and it would have been seen."""

import json
import os
import stat
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from anyon.cli.sessions import ExitCode
from anyon.testing.servers import ANYON, ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PLACES = (
    "name",
    "prompt",
    "setup",
    "file",
    "output",
    "variable",
    "hold",
    "clone",
    "path",
    "agentkey",
    "mine",
)
CANARIES = {place: f"canary{place}0451" for place in PLACES}


class Guarded:
    """A server that asks for tokens, and the command line beside it."""

    def __init__(self, home: Path) -> None:
        key = {"ANTHROPIC_API_KEY": CANARIES["agentkey"]}
        self.server = ServerProcess(
            home, "memory", {"ANYON_REQUIRE_TOKENS": "true", "ANYON_LOG_LEVEL": "debug", **key}
        )
        self.home = home
        self.env = {
            **os.environ,
            **key,
            "ANYON_HOME": str(home),
            "ANYON_PORT": str(self.server.port),
            "ANYON_REQUIRE_TOKENS": "true",
            "MY_SECRET": CANARIES["mine"],
        }

    @property
    def token(self) -> str:
        """The key that the server keeps for this machine."""
        return (self.home / "token").read_text().strip()

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """Return an answer's ``data``, None for a refusal."""
        request = urllib.request.Request(
            self.server.address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            refusal.read()
            return None

    def bundle(self, out: Path) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return subprocess.run(
            [str(ANYON), "support", "bundle", "--json", "--out", str(out)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )


def work(guarded: Guarded) -> None:
    """Leave a canary in every place where users leave private things."""
    new = {
        "name": CANARIES["name"],
        "default_agent": "SHELL",
        "setup_script": f"echo {CANARIES['setup']}",
    }
    project = guarded.call("POST", "/api/projects", new)["id"]
    text = f"echo {CANARIES['prompt']}; echo {CANARIES['file']} > f; echo {CANARIES['output']}"
    task = guarded.call("POST", "/api/tasks", {"project_id": project, "description": text})["id"]
    command = {"argv": ["printenv", "X"], "env": {"X": CANARIES["variable"]}}
    guarded.call("POST", f"/api/projects/{project}/exec", command)
    hold = {"reason": CANARIES["hold"], "minutes": 5}
    guarded.call("POST", f"/api/projects/{project}/holds", hold)
    url = f"http://user:{CANARIES['clone']}@127.0.0.1:9/x.git"
    guarded.call("POST", "/api/projects", {"name": "cloned", "clone_url": url})
    guarded.call("POST", f"/api/projects/{project}/checkpoints/{CANARIES['path']}/verify")
    deadline = time.monotonic() + 90
    while guarded.call("GET", f"/api/tasks/{task}")["status"] != "inreview":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def contents(archive: Path) -> dict[str, str]:
    """Return a bundle's files by name."""
    with tarfile.open(archive) as opened:
        return {
            Path(member.name).name: file.read().decode()
            for member in opened.getmembers()
            if (file := opened.extractfile(member)) is not None
        }


def everything_below(home: Path) -> bytes:
    """Return all that lies in a home, as far as it is files."""
    return b"\n".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_nothing_private_is_inside(tmp_path: Path) -> None:
    """Canaries in prompts, files, outputs, variables, keys, URLs and paths stay out; the facts are in."""
    guarded = Guarded(tmp_path / "home")
    guarded.server.start()
    try:
        work(guarded)
        out = tmp_path / "bundle.tar.gz"
        done = guarded.bundle(out)
        assert done.returncode == 0, done.stderr
        files = contents(out)
        whole = "\n".join(files.values())
        found = {place for place, canary in CANARIES.items() if canary in whole}
        assert found == set()
        assert guarded.token not in whole
        assert CANARIES["name"] not in done.stdout

        # The control: they were there to be found, in what the bundle is made from.
        log = (guarded.home / "logs" / "server.log").read_text()
        assert CANARIES["path"] in log
        database = b"".join(path.read_bytes() for path in guarded.home.glob("anyon.db*"))
        for place in ("name", "prompt", "setup", "hold"):
            assert CANARIES[place].encode() in database, place
        home = everything_below(guarded.home)
        for place in ("file", "output"):
            assert CANARIES[place].encode() in home, place
        assert guarded.token.encode() in home

        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        rows = json.loads(files["database.json"])["rows"]
        assert rows["tasks"] == 1
        assert rows["processes"] >= 3
        assert json.loads(files["projects.json"])[0]["phase"] == "running"
        events = [json.loads(line) for line in files["events.jsonl"].splitlines()]
        assert "hold.taken" in {event["kind"] for event in events}
        lines = [json.loads(line) for line in files["log.jsonl"].splitlines()]
        served = [one for one in lines if one["event"] == "request.served"]
        made = next(one for one in served if one.get("route") == "/api/projects")
        assert made["request_id"]
        assert made["left_out"] == ["path"]
        assert "anyon_containers_total" in files["metrics.txt"]
        assert {one["name"] for one in json.loads(files["doctor.json"])} >= {"database", "disk"}
        settings = json.loads(files["settings.json"])
        assert settings["values"]["require_tokens"] is True
        assert "ANYON_HOME" in settings["given_by_environment"]
        again = guarded.bundle(out)
        assert again.returncode == ExitCode.CONFLICT
        assert json.loads(again.stderr)["error"]["code"] == "file_exists"
    finally:
        guarded.server.stop()


def test_it_helps_where_the_server_does_not_start(tmp_path: Path) -> None:
    """Without a server, with a database that is damaged, it says what it can; no place is an error."""
    guarded = Guarded(tmp_path / "home")
    guarded.home.mkdir()
    (guarded.home / "anyon.db").write_bytes(b"no database " * 1000)
    out = tmp_path / "bundle.tar.gz"
    done = guarded.bundle(out)
    assert done.returncode == 0, done.stderr
    files = contents(out)
    assert json.loads(files["database.json"]) == {"error": "database_unavailable"}
    assert files["metrics.txt"] == "the server did not answer\n"
    refused = guarded.bundle(tmp_path / "no" / "such" / "place.tar.gz")
    assert refused.returncode == ExitCode.ERROR
    assert json.loads(refused.stderr)["error"]["code"] == "not_writable"
