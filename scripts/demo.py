"""The main job on a sample project, as a person would type it: what ``./run`` does after the set-up.

Starts the server if it is not up, makes a project, runs two tasks side by side in its one
container with their logs live, shows their diffs, merges one, and leaves the server running.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
ANYON = Path(sys.executable).parent / "anyon"
PROJECT = "sample"
TASKS = {
    "Write a greeting": """echo 'Writing the greeting …'
mkdir -p src
printf 'def greet(name):\\n    return f"Hello, {name}!"\\n' > src/greeting.py
for step in 1 2 3; do echo "greeting: step $step"; sleep 1; done
echo 'Done.'
""",
    "인사말 문서 쓰기": """echo '문서를 쓰는 중 …'
mkdir -p docs
printf '# 인사말\\n\\n사람에게 인사하는 방법.\\n' > docs/greeting.md
for step in 1 2 3; do echo "문서: $step 단계"; sleep 1; done
echo '끝.'
""",
}


def fail(message: str, hint: str) -> NoReturn:
    """End with what happened and what to do."""
    print(f"error: {message}\nhint:  {hint}", file=sys.stderr)
    sys.exit(1)


def step(text: str) -> None:
    """Say what comes next."""
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


class Demo:
    """One run of the demonstration against one server."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.home = Path(options.home).expanduser().absolute()
        self.port = options.port
        self.engine = options.engine
        self.address = f"http://127.0.0.1:{self.port}"
        self.env = os.environ | {
            "ANYON_HOME": str(self.home),
            "ANYON_SERVER": self.address,
            "ANYON_PORT": str(self.port),
        }

    def anyon(self, *arguments: str, quiet: bool = False) -> str:
        """Run one command of Anyon's, showing it and its output; return its output."""
        if not quiet:
            print(
                "$ anyon", *(repr(a) if " " in a or "\n" in a else a for a in arguments), flush=True
            )
        done = subprocess.run(
            [ANYON, *arguments], env=self.env, capture_output=True, text=True, check=False
        )
        if not quiet:
            print(done.stdout, end="", flush=True)
        if done.returncode != 0:
            fail(
                f"anyon {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}",
                self.log_hint(),
            )
        return done.stdout

    def data(self, *arguments: str) -> Any:
        """Return what a command says with ``--json``."""
        return json.loads(self.anyon(*arguments, "--json", quiet=True))

    def log_hint(self) -> str:
        """Say where the server's log is."""
        return f"the server's log is {self.home / 'server.log'}; `.venv/bin/anyon doctor` examines the machine"

    def is_up(self) -> bool:
        """Say whether Anyon answers at the port; something else there is an error."""
        try:
            with urllib.request.urlopen(f"{self.address}/api/health", timeout=5) as answer:
                return bool(json.load(answer).get("success"))
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):
                return False
            fail(f"port {self.port} answers, but not as Anyon does ({error})", "./run --port 8090")
        except (ValueError, AttributeError, OSError):
            fail(f"port {self.port} is used by another program", "./run --port 8090")

    def start_server(self) -> None:
        """Start the server in the background unless it is up, and wait until it answers."""
        if self.is_up():
            print(f"The server at {self.address} is up already; using it.")
            return
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [str(ANYON), "serve", "--port", str(self.port), "--engine", self.engine]
        with (self.home / "server.log").open("ab") as log:
            server = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.home,
            )
        deadline = time.monotonic() + 60
        while not self.is_up():
            if server.poll() is not None:
                tail = (self.home / "server.log").read_text(errors="replace")[-2000:]
                fail(f"the server ended with {server.returncode}:\n{tail}", self.log_hint())
            if time.monotonic() > deadline:
                fail("the server did not answer within a minute", self.log_hint())
            time.sleep(0.1)
        print(f"The server is up at {self.address} (engine: {self.engine}, files: {self.home}).")

    def stop_server(self) -> None:
        """End the server of this home; containers and their processes go on."""
        try:
            pid = int(json.loads((self.home / "server.json").read_text())["pid"])
            os.kill(pid, signal.SIGTERM)
        except (OSError, ValueError, KeyError):
            print("No server runs for this home.")
            return
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.1)
        print("The server is stopped; projects are kept.")

    def project(self) -> str:
        """Return the sample project's id, made if it is not there."""
        known = {p["name"]: p["id"] for p in self.data("project", "list")}
        if PROJECT in known:
            print(f"The project {PROJECT!r} is there already; using it.")
            return str(known[PROJECT])
        print(f"$ anyon project create {PROJECT}")
        made = self.data("project", "create", PROJECT, "--agent", "shell")
        print(f"{made['name']}  {made['id']}")
        return str(made["id"])

    def start_task(self, project: str, title: str, script: str) -> str:
        """Make a task whose description is a script, and start it."""
        print(f"$ anyon task create {PROJECT} - --title {title!r} --agent shell --start < script")
        done = subprocess.run(
            [
                ANYON,
                "task",
                "create",
                project,
                "-",
                "--title",
                title,
                "--agent",
                "shell",
                "--start",
                "--json",
            ],
            input=script,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            fail(f"the task was not started: {done.stderr.strip()}", self.log_hint())
        return str(json.loads(done.stdout)["id"])

    def follow(self, task: str, mark: str) -> threading.Thread:
        """Show a task's log live, each line with *mark*, in a thread."""
        command = [str(ANYON), "task", "logs", "-f", task]
        process = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True)

        def copy() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                print(f"{mark} | {line}", end="", flush=True)
            process.wait()

        thread = threading.Thread(target=copy)
        thread.start()
        return thread

    def run(self) -> None:
        """Do the main job."""
        step("The server")
        self.start_server()
        step("A project: one repository, one container")
        project = self.project()
        step("Two tasks side by side, each in a worktree of its own; their logs, live")
        tasks = [self.start_task(project, title, script) for title, script in TASKS.items()]
        for thread in [self.follow(task, f"task {n}") for n, task in enumerate(tasks, 1)]:
            thread.join()
        step("Their diffs")
        for task in tasks:
            self.anyon("task", "diff", task[:8])
        step("Merge the first one: one commit on main, never half a merge")
        self.anyon("task", "merge", tasks[0][:8])
        self.anyon("exec", PROJECT, "--", "git", "log", "--oneline", "--stat")
        self.anyon("task", "list", PROJECT)
        self.farewell()

    def farewell(self) -> None:
        """Say how to go on."""
        shell = shutil.which("anyon") or ".venv/bin/anyon"
        print(f"""
The server goes on at {self.address}. How to go on:

  export ANYON_SERVER={self.address}
  {shell} project create mine --path /path/to/a/repository
  {shell} task create mine 'Fix the failing test' --agent claude-code --start
  {shell} project shell {PROJECT}          a terminal in the container
  {shell} doctor                        what is there, what is missing
  ./run --stop                          end the server; projects are kept
""")


def ensure_docker() -> None:
    """Bring a Docker engine and a workspace image about, where this user can."""
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
        if os.geteuid() != 0:
            fail(
                "no Docker engine answers",
                "install and start one (apt-get install docker.io), or ./run without --engine docker",
            )
        print("No Docker engine answers: installing and starting one …", flush=True)
        subprocess.run([ROOT / "scripts" / "services" / "docker.sh", "start"], check=True)
    image = os.environ.get("ANYON_IMAGE", "anyon/workspace:latest")
    if (
        subprocess.run(
            ["docker", "image", "inspect", image], capture_output=True, check=False
        ).returncode
        == 0
    ):
        return
    print(f"Building the workspace image {image} …", flush=True)
    if os.geteuid() == 0 and shutil.which("mmdebstrap") is None:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "mmdebstrap"], check=True, stdout=subprocess.DEVNULL
        )
    if subprocess.run([ANYON, "image", "build", "--tag", image], check=False).returncode != 0:
        fail(
            "the workspace image could not be built",
            "see the lines above; set ANYON_IMAGE to an image that has sh and git",
        )


def main() -> None:
    """Read the options and run."""
    default_home = os.environ.get("ANYON_HOME", "~/.local/share/anyon")
    parser = argparse.ArgumentParser(prog="./run", description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="bubblewrap", choices=["auto", "bubblewrap", "docker"])
    parser.add_argument("--port", type=int, default=int(os.environ.get("ANYON_PORT", "8080")))
    parser.add_argument("--home", default=default_home, help="where Anyon keeps everything")
    parser.add_argument("--stop", action="store_true", help="end the server")
    options = parser.parse_args()
    demo = Demo(options)
    if options.stop:
        demo.stop_server()
        return
    if options.engine == "docker":
        ensure_docker()
    demo.run()


if __name__ == "__main__":
    main()
