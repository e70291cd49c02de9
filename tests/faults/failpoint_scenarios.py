"""For each failpoint the story in which a server reaches it; see ``sweep_failpoints``."""

from itertools import zip_longest

from tests.faults import failpoint_lives as lives
from tests.faults import failpoint_pasts as pasts
from tests.faults import failpoint_places as places
from tests.faults import failpoint_states as states
from tests.faults import failpoint_stores as stores
from tests.faults.failpoint_stages import Scenario, named

ONE = frozenset({"bubblewrap"})

_SLEEP = named(
    Scenario(lives.stop),
    "stop.recorded",
    "stop.thawed",
    "stop.processes_ended",
    "stop.foreseen",
    "stop.state_saved",
    "stop.container_stopped",
    "stop.exits_given",
    "stop.unsaved_recorded",
    "stop.checkpoint_confirmed",
    "stop.confirmed",
) | named(
    Scenario(lives.stop, frozenset({"bubblewrap"})),
    "bubblewrap.ended",
    "bubblewrap.group_removed",
    "bubblewrap.end_recorded",
)
_WAKE = named(
    Scenario(lives.start),
    "start.container_started",
    "start.processes_adopted",
    "wake.recorded",
) | named(Scenario(lives.start, frozenset({"bubblewrap"})), "bubblewrap.first_recorded")
_PAIRS = [one for pair in zip_longest(_SLEEP.items(), _WAKE.items()) for one in pair if one]

SCENARIOS: dict[str, Scenario] = {
    # A stop leaves what a start needs.
    **dict(_PAIRS),
    **named(Scenario(lives.freeze), "freeze.foreseen", "freeze.frozen", "freeze.recorded"),
    **named(Scenario(lives.thaw), "wake.thawed"),
    **named(
        Scenario(lives.create),
        "create.recorded",
        "create.directories_made",
        "create.container_up",
        "create.repository_made",
        "create.confirmed",
    ),
    **named(
        Scenario(lives.create, frozenset({"bubblewrap"})),
        "bubblewrap.recorded",
        "bubblewrap.group_made",
        "bubblewrap.launched",
    ),
    **named(
        Scenario(lives.create, frozenset({"docker"})),
        "docker.network_ready",
        "docker.container_created",
    ),
    **named(Scenario(lives.import_one), "create.files_copied"),
    **named(
        Scenario(lives.create_undo),
        "create_undo.container_removed",
        "create_undo.files_discarded",
        "create_undo.record_removed",
    ),
    **named(
        Scenario(stores.save),
        "checkpoint.precopied",
        "checkpoint.still",
        "checkpoint.pack_put",
        "checkpoint.packs_durable",
        "checkpoint.record_written",
        "checkpoint.head_moved",
        "checkpoint.known",
    ),
    **named(Scenario(stores.claim), "claim.owner_written", "claim.head_moved"),
    **named(
        Scenario(stores.go_back),
        "restore.halted",
        "restore.saved",
        "restore.recorded",
        "restore.files_back",
        "restore.confirmed",
        "homes.tree_cleared",
        "homes.tree_replaced",
    ),
    **named(
        Scenario(lives.bring_back),
        "wake.restoring_recorded",
        "wake.files_back",
        "start.directories_made",
        "start.container_made",
        "restore.planned",
        "restore.filled",
        "restore.synced",
        "restore.settled",
        "restore.staged",
    ),
    **named(
        Scenario(lives.archive),
        "archive.state_confirmed",
        "archive.recorded",
        "archive.container_removed",
        "archive.files_released",
        "archive.confirmed",
        "homes.tree_released",
    ),
    **named(
        Scenario(lives.delete),
        "delete.tombstoned",
        "delete.processes_abandoned",
        "delete.container_stopped",
        "delete.state_confirmed",
        "delete.container_removed",
        "delete.files_discarded",
        "delete.confirmed",
        "homes.trash_emptied",
    ),
    **named(
        Scenario(lives.delete, frozenset({"bubblewrap"})),
        "bubblewrap.system_removed",
        "bubblewrap.forgotten",
    ),
    **named(Scenario(lives.delete, frozenset({"docker"})), "docker.container_removed"),
    **named(Scenario(lives.undelete), "undelete.revived"),
    **named(
        Scenario(lives.purge, settings={"ANYON_UNDO_WINDOW": "0s"}),
        "purge.checkpoints_removed",
        "purge.record_removed",
        "forget.head_deleted",
        "forget.object_deleted",
    ),
    **named(Scenario(lives.adopt), "adopt.processes_read", "adopt.project_taken_up"),
    **named(Scenario(lives.repair), "repair.exits_given", "repair.recorded"),
    **named(
        Scenario(stores.collect, frozenset({"bubblewrap"}), is_apart=True),
        "collection.leased",
        "collection.checkpoint_deleted",
        "collection.pack_deleted",
        "collection.swept",
    ),
    **named(Scenario(stores.give_up, frozenset({"bubblewrap"}), is_apart=True), "claim.released"),
    **named(
        Scenario(pasts.put_back),
        "path_restore.saved",
        "path_restore.staged",
        "path_restore.exchanged",
        "path_restore.put_in",
        "path_restore.put_back",
        "path_restore.recorded",
        "path_restore.confirmed",
    ),
    **named(
        Scenario(pasts.bring_worktree_back),
        "worktree_restore.tree_back",
        "worktree_restore.files_back",
        "worktree_restore.recorded",
    ),
    **named(
        Scenario(pasts.fork_off, ONE),
        "fork.recorded",
        "fork.borrows_written",
        "fork.lent",
        "fork.checkpoint_written",
        "fork.head_made",
        "fork.claimed",
        "fork.confirmed",
    ),
    **named(Scenario(pasts.give_back, ONE, is_apart=True), "fork.repaid", "fork.lender_swept"),
    **named(
        Scenario(pasts.refit),
        "system.fetched",
        "system.cleared",
        "system.put",
        "system.noted",
    ),
    **named(
        Scenario(pasts.refit, frozenset({"docker"})),
        "system.container_removed",
        "system.container_made",
        "system.replayed",
        "system.note_removed",
        "system.emptied",
    ),
    **named(Scenario(stores.save, frozenset({"docker"})), "system.looked_at_again"),
    **named(
        Scenario(places.move, ONE, is_apart=True, is_long=True),
        "move.halted",
        "move.noted",
        "move.copied",
        "move.copy_started",
        "move.proven",
        "move.end_noted",
        "move.recorded",
        "move.unsaved_recorded",
        "move.source_put_away",
        "move.readdressed",
    ),
    **named(
        Scenario(places.roll_back, ONE, is_apart=True, is_long=True),
        "rollback.noted",
        "rollback.project_undone",
        "rollback.unmounted",
        "rollback.storage_put_back",
    ),
    **named(Scenario(states.replicate, ONE, is_apart=True, is_long=True), "replica.file_put"),
    **named(
        Scenario(states.compact, ONE, is_apart=True),
        "replica.file_dropped",
        "replica.former_dropped",
    ),
    **named(
        Scenario(states.copy, ONE, is_apart=True, is_long=True),
        "snapshot.copied",
        "snapshot.part_put",
        "snapshot.written",
    ),
    **named(Scenario(states.prune, ONE, is_apart=True), "snapshot.part_dropped"),
    **named(
        Scenario(states.bring_back, ONE, is_apart=True, is_long=True),
        "recover.fetched",
        "recover.staged",
        "recover.taken_up",
        "recover.succeeded",
        "recover.placed",
    ),
    **named(Scenario(stores.take_over, is_apart=True), "takeover.claimed", "takeover.recorded"),
}
"""Each point's story; a test compares them with all points that there are."""
