"""The order of the migrations' files is alembic's own."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from anyon.db.upgrades import MIGRATIONS, revisions


def test_the_revisions_are_alembics_own_in_its_order() -> None:
    """What is read from the files' names, without alembic, is what alembic would run, in one line."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert list(revisions()) == [one.revision for one in script.walk_revisions()][::-1]
    assert revisions()[-1] == script.get_current_head()
