"""States that a thing can be in, spelt as they are on the wire."""

from enum import StrEnum


class Goal(StrEnum):
    """What is wanted of a project's container."""

    RUNNING = "running"
    STOPPED = "stopped"
    ARCHIVED = "archived"
    DELETED = "deleted"


class Phase(StrEnum):
    """What was last observed of a project's container and files."""

    ABSENT = "absent"
    CREATING = "creating"
    RUNNING = "running"
    FROZEN = "frozen"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STOPPED_UNSAVED = "stopped_unsaved"
    ARCHIVING = "archiving"
    ARCHIVED = "archived"
    RESTORING = "restoring"
    DELETING = "deleting"
    ERROR = "error"


class TaskStatus(StrEnum):
    """Where a task is on the board."""

    TODO = "todo"
    INPROGRESS = "inprogress"
    INREVIEW = "inreview"
    DONE = "done"
    CANCELLED = "cancelled"


class ProcessStatus(StrEnum):
    """How a process stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"


class RunReason(StrEnum):
    """What a process is run for."""

    SETUPSCRIPT = "setupscript"
    CLEANUPSCRIPT = "cleanupscript"
    CODINGAGENT = "codingagent"
    DEVSERVER = "devserver"
    COMMAND = "command"


class ExitReason(StrEnum):
    """Why a process is over."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    OOM = "oom"
    KILLED_BY_USER = "killed_by_user"
    OUTPUT_LIMIT = "output_limit"
    CONTAINER_STOPPED = "container_stopped"
    MACHINE_LOST = "machine_lost"
    INTERRUPTED = "interrupted"
