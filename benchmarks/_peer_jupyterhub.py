"""JupyterHub's configuration and drive for the peers' benchmark: DockerSpawner's times, as JSON.

Usage: ``_peer_jupyterhub.py IMAGE ROUNDS DIRECTORY``, by the peers' own Python, whose ``bin`` and
configurable-http-proxy's are on the PATH. ``create`` and ``start`` are milliseconds from asking
the hub for a user's server until it says that it is ready; ``start`` finds the container there.
"""

import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TOKEN = "benchmark-of-peers"
PATIENCE_SECONDS = 120.0

CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://{gateway}:{hub_port}"
c.JupyterHub.hub_connect_url = "http://{gateway}:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = "{image}"
c.DockerSpawner.remove = False
c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
c.DockerSpawner.http_timeout = 120
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{
    "name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers"]
}}]
c.JupyterHub.log_level = "WARN"
"""


class Hub:
    """A running hub, and its interface."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/hub/api"

    def call(self, method: str, path: str) -> dict[str, object]:
        """Ask the hub; an answer without a body is an empty one."""
        request = urllib.request.Request(
            self._base + path, method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            body = answer.read()
        found: dict[str, object] = json.loads(body) if body else {}
        return found

    def wait_until_there(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the first answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.call("GET", "/")
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("JupyterHub did not start") from error
                time.sleep(0.1)
            else:
                return

    def is_ready(self, user: str) -> bool:
        """Say whether the user's server is up."""
        servers = self.call("GET", f"/users/{user}").get("servers")
        own = servers.get("") if isinstance(servers, dict) else None
        return bool(own and own["ready"])

    def start(self, user: str) -> float:
        """Ask for the user's server and return the milliseconds until it is ready."""
        began = time.perf_counter()
        self.call("POST", f"/users/{user}/server")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_ready(user):
            if time.monotonic() > deadline:
                raise RuntimeError("a server did not get ready")
            time.sleep(0.02)
        return (time.perf_counter() - began) * 1000

    def stop(self, user: str) -> None:
        """Stop the user's server and wait until it is gone."""
        self.call("DELETE", f"/users/{user}/server")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.call("GET", f"/users/{user}").get("servers"):
            if time.monotonic() > deadline:
                raise RuntimeError("a server did not stop")
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _gateway() -> str:
    """Return the host's address on Docker's own bridge, by which containers reach the hub."""
    form = "{{(index .IPAM.Config 0).Subnet}}"  # the gateway itself is not told by every version
    command = ["docker", "network", "inspect", "bridge", "--format", form]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return str(next(ipaddress.ip_network(found).hosts()))


def _remove(user: str) -> None:
    name = f"jupyter-{user}"
    subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


def main(image: str, rounds: int, directory: Path) -> None:
    """Make *rounds* users' servers, stop and start them again."""
    port, hub_port, proxy_port = _free_ports(3)
    config = directory / "jupyterhub_config.py"
    config.write_text(
        CONFIG.format(
            port=port,
            hub_port=hub_port,
            proxy_port=proxy_port,
            gateway=_gateway(),
            image=image,
            token=TOKEN,
        )
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "--config", str(config)],
            cwd=directory,
            stdout=log,
            stderr=log,
            env=os.environ | {"PWD": str(directory)},
        )
    users = [f"bench{os.getpid()}x{number}" for number in range(rounds)]
    try:
        hub = Hub(port)
        hub.wait_until_there(process)
        creates, starts = [], []
        for user in users:
            hub.call("POST", f"/users/{user}")
            creates.append(hub.start(user))
            hub.stop(user)
            starts.append(hub.start(user))
            hub.stop(user)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        for user in users:
            _remove(user)
    print(json.dumps({"create": creates, "start": starts}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
