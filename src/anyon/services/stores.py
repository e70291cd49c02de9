"""What of the use cases stands over the store: archives, what is installed, programs' output."""

from anyon.services.archives import Archives
from anyon.services.feed import Feed
from anyon.services.homes import Homes
from anyon.services.installations import SYSTEM, Installations
from anyon.services.logs import ProcessLogs
from anyon.services.parts import Parts
from anyon.services.supervisors import Supervisor
from anyon.storage.checkpoints import Checkpoints


def archives(parts: Parts, homes: Homes) -> Archives | None:
    """Return what saves projects and brings them back; None where no checkpoints are kept."""
    if parts.checkpoints is None:
        return None
    return Archives(
        checkpoints=parts.checkpoints,
        trees=parts.saved_trees,
        db=parts.db,
        homes=homes,
        clock=parts.clock,
        metrics=parts.metrics,
        pause=parts.pause,
        installations=_installations(parts, parts.checkpoints, homes),
    )


def _installations(parts: Parts, checkpoints: Checkpoints, homes: Homes) -> Installations | None:
    if SYSTEM not in parts.saved_trees:
        return None
    return Installations(
        checkpoints=checkpoints,
        db=parts.db,
        engine=parts.engine,
        layers=parts.layers,
        base={"engine": parts.engine.name, **parts.layer_base},
        homes=homes,
        clock=parts.clock,
    )


def logs(parts: Parts, homes: Homes, feed: Feed, supervisor: Supervisor) -> ProcessLogs | None:
    """Return what keeps programs' output in the store; None where none is kept."""
    if parts.logs is None:
        return None
    return ProcessLogs(
        logs=parts.logs,
        db=parts.db,
        processes=parts.processes,
        homes=homes,
        feed=feed,
        clock=parts.clock,
        supervisor=supervisor,
        cap_bytes=parts.output_cap_bytes,
    )
