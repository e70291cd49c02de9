"""The loops that look after what is in the store."""

from collections.abc import Iterator
from datetime import timedelta

from anyon.clock import Clock
from anyon.config import Settings
from anyon.lifecycle.caretaker import Caretaker
from anyon.lifecycle.loops import Loop
from anyon.services import Services

_PROOF_INTERVAL = timedelta(minutes=10)
"""How often it is looked whether the night's proofs are due."""


def loops(settings: Settings, services: Services, clock: Clock) -> Iterator[Loop]:
    """Yield the collector and the prover, where checkpoints are kept and they are wanted."""
    if services.archives is None or services.checkpoints is None:
        return
    caretaker = Caretaker(
        db=services.db,
        archives=services.archives,
        upkeep=services.checkpoints.upkeep,
        clock=clock,
        server_id=services.server_id,
        drill_hour=settings.drill_hour,
        drill_projects=settings.drill_projects,
    )
    if settings.collect_interval:
        yield Loop(name="collector", interval=settings.collect_interval, tick=caretaker.collect)
    if settings.drill_hour >= 0:
        yield Loop(name="prover", interval=_PROOF_INTERVAL, tick=caretaker.prove)
