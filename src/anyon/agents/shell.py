"""``SHELL``: the task's description is a script. For automation, and for trying Anyon with no key."""

from anyon.agents.programs import ProgramAgent
from anyon.agents.readers import TextReader

# Read whole before it runs, so that a command of the script that reads stdin does not eat the
# rest of it; evaluated in place, so that its length is not an argument's.
_RUN = 'eval "$(cat)\n"'

SHELL = ProgramAgent(
    name="SHELL",
    program=None,
    takes_title=False,
    variants={"DEFAULT": {}},
    kinds={},
    command=lambda _options: ("sh", "-c", _RUN, "sh"),
    arguments=lambda _options, _session: (),
    new_reader=TextReader,
)
"""Runs the prompt by ``sh``; it keeps no session: a follow-up is another script."""
