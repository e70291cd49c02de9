"""What the use cases are built over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from anyon.agents.agent import Agent
from anyon.clock import Clock
from anyon.db.databases import Database
from anyon.domain.life import Tiers
from anyon.engines.engine import Engine, Limits
from anyon.engines.layers import KeepsLayers
from anyon.engines.ports import Ports
from anyon.git.repository import Repositories
from anyon.processes.processes import Processes
from anyon.services.archives import Pause
from anyon.services.leases import TTL
from anyon.services.mounts import Mounts
from anyon.services.pictures import QUOTA
from anyon.services.trees import Owner
from anyon.storage.checkpoints import GRACE, Checkpoints
from anyon.storage.logs import Logs
from anyon.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the use cases work on.

    ``environment`` is where agents' keys are looked up; ``files_owner`` is who a project's files
    belong to where programs do not run inside as the server's own user; ``may_import`` says
    whether local directories may become projects (only where the one user is the machine's own).
    ``wakes_per_hour`` and ``max_running`` and ``max_memory`` (bytes) 0 are no limits. ``mounts`` is the
    mounted bucket, if there is one, and ``is_on_mount`` whether new projects go there.
    ``ports`` None shows no previews. ``checkpoints`` None keeps none, and ``logs`` None no outputs; ``saved_trees`` are what of a project goes into one, and
    ``pause`` holds a container still for that.
    """

    db: Database
    engine: Engine
    processes: Processes
    repositories: Repositories
    find_agent: Callable[[str], Agent]
    clock: Clock
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    default_agent: str = "CLAUDE_CODE"
    image: str | None = None
    limits: Limits = field(default_factory=Limits)
    files_owner: Owner | None = None
    may_import: bool = True
    stop_grace: timedelta = timedelta(seconds=10)
    output_cap_bytes: int = 64 * 1024 * 1024
    lease_ttl: timedelta = TTL
    wakes_per_hour: int = 0
    max_running: int = 0
    max_memory: int = 0
    terminal_awake: timedelta = timedelta(minutes=10)
    ports: Ports | None = None
    preview_awake: timedelta = timedelta(minutes=10)
    tiers: Tiers = field(default_factory=Tiers)
    undo_window: timedelta = timedelta(days=7)
    checkpoints: Checkpoints | None = None
    logs: Logs | None = None
    saved_trees: Sequence[str] = ("workspace", "home", "system")
    pause: Pause | None = None
    layers: KeepsLayers | None = None
    """Of an engine that keeps what is installed in a place of its own."""
    layer_base: Mapping[str, str] = field(default_factory=dict)
    """What the layers of any other engine lie over."""
    mounts: Mounts | None = None
    is_on_mount: bool = False
    metrics: Metrics = field(default_factory=Metrics)
    collect_grace: timedelta = GRACE
    picture_quota: int = QUOTA
    """Bytes of one user's pictures."""
