"""The main job on real input: Flask's source and create-vite's React template, four tasks in each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.real_projects import (
    RealProject,
    container_count,
    docker_containers,
    fetch,
    repository,
)

from anyon.testing.servers import ServerProcess, serving

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(600)]

# So short that a project sleeps between its tasks; work that runs or is asked for holds it awake.
SLEEPY = {
    "ANYON_IMAGE": "anyon/workspace:full",
    "ANYON_FREEZE_AFTER": "2s",
    "ANYON_STOP_AFTER": "4s",
    "ANYON_RECONCILE_INTERVAL": "500ms",
}


@pytest.fixture(scope="module", autouse=True)
def sources() -> None:
    """The real projects' sources, fetched once."""
    fetch()


@pytest.fixture
def sleepy(tmp_path: Path, engine: str) -> Iterator[ServerProcess]:
    """A server whose idle projects are stopped after seconds."""
    with serving(tmp_path / "home", engine, **SLEEPY) as server:
        yield server


def only_container(server: ServerProcess, engine: str, project: RealProject) -> str:
    """Return which container the project's one is; it must be the only one."""
    assert container_count(server) == 1
    if engine != "docker":
        return "the sandbox"  # a new one after each stop: what is kept is its files
    (found,) = docker_containers(project.id)
    return found


FLASK_SETUP = """set -eu
echo "set up in $PWD" >>"$HOME/setups"
python3 -m venv "$HOME/env"
"$HOME/env/bin/pip" install --disable-pip-version-check -q \\
    flask==3.1.2 werkzeug==3.1.3 click==8.1.8 pytest==8.4.2
"""
# The worktree's own source, not the one installed; and nothing of Python's is left in the worktree.
PYTEST = (
    'PYTHONPATH=src PYTHONDONTWRITEBYTECODE=1 "$HOME/env/bin/python" '
    "-m pytest -q -p no:cacheprovider"
)
GREETING = f"""
mkdir -p src/flask
cat >src/flask/greetings.py <<'END'
def greet(name: str) -> str:
    return f"Hello, {{name}}!"
END
cat >tests/test_greetings.py <<'END'
from flask.greetings import greet


def test_greets(app, client):
    app.add_url_rule("/<name>", view_func=greet)
    assert client.get("/flask").text == "Hello, flask!"
END
meet greeting keys
{PYTEST} tests/test_greetings.py tests/test_basic.py
"""
KEYS = f"""
meet keys greeting
sed -i 's/def from_mapping(/def from_mappings(/' src/flask/config.py
if {PYTEST} tests/test_config.py >broken.log; then echo 'broken code passes'; exit 8; fi
rm broken.log
git checkout -q src/flask/config.py
cat >>src/flask/config.py <<'END'

    def names(self) -> list[str]:
        return sorted(self)
END
cat >>tests/test_config.py <<'END'


def test_config_names(app):
    assert "SECRET_KEY" in app.config.names()
END
{PYTEST} tests/test_config.py
"""
SMALLER = f"""
sed -i 's/"MAX_COOKIE_SIZE": 4093/"MAX_COOKIE_SIZE": 4000/' src/flask/app.py
meet smaller larger
{PYTEST} tests/test_session_interface.py tests/test_json.py
"""
LARGER = f"""
sed -i 's/"MAX_COOKIE_SIZE": 4093/"MAX_COOKIE_SIZE": 4096/' src/flask/app.py
meet larger smaller
{PYTEST} tests/test_views.py tests/test_signals.py
"""
SOLVE = f"""set -eu
git merge -q -X ours -m 'Take main in' main
{PYTEST} tests/test_views.py
"""
STATE = 'git status --porcelain; git rev-parse HEAD; cat src/flask/app.py; ls -d "$PWD"/.git/*HEAD'


def test_flask_is_worked_on(sleepy: ServerProcess, engine: str, tmp_path: Path) -> None:
    """Four tasks run Flask's own tests; three are merged, and one that conflicts changes nothing until solved."""
    project = RealProject(sleepy, repository("flask", tmp_path), FLASK_SETUP)
    first = project.side_by_side(("Add a greeting", GREETING), ("Name a config's keys", KEYS))
    container = only_container(sleepy, engine, project)
    for task in first:
        assert " passed" in task.stored()
    assert first[0].diff() == {
        "src/flask/greetings.py": "added",
        "tests/test_greetings.py": "added",
    }
    assert first[1].diff() == {
        "src/flask/config.py": "modified",
        "tests/test_config.py": "modified",
    }
    for task in first:
        task.merge()

    project.until_stopped()
    smaller, larger = project.side_by_side(("Smaller cookies", SMALLER), ("Larger cookies", LARGER))
    assert smaller.diff() == larger.diff() == {"src/flask/app.py": "modified"}
    smaller.merge()
    before = project.run(STATE)
    assert larger.refusal() == (409, "merge_conflict")
    assert project.run(STATE) == before
    assert larger.standing()["status"] == "inreview"
    assert larger.diff() == {"src/flask/app.py": "modified"}

    larger.follow_up(SOLVE)
    larger.merge()
    assert '"MAX_COOKIE_SIZE": 4096' in project.run("cat src/flask/app.py")
    assert " passed" in project.run(f"{PYTEST} tests/test_greetings.py tests/test_config.py")
    assert project.run('cat "$HOME/setups"') == "set up in /workspace\n"
    assert project.run("git rev-list --count main") == "5\n"
    assert project.run("git status --porcelain") == ""
    assert only_container(sleepy, engine, project) == container


REACT_SETUP = """set -eu
echo "set up in $PWD" >>"$HOME/setups"
npm install --no-audit --no-fund --no-progress
"""
BUILD = "npx vite build"
TITLE = f"""
sed -i 's/Vite + React/Anyon + React/' src/App.jsx
meet title greeting
{BUILD}
grep -q 'Anyon + React' dist/assets/*.js
"""
COMPONENT = f"""
cat >src/Greeting.jsx <<'END'
export default function Greeting() {{
  return <p>Greetings from a worktree</p>
}}
END
sed -i -e "s/^import App .*/&\\nimport Greeting from '.\\/Greeting.jsx'/" \\
    -e 's/^    <App \\/>/&\\n    <Greeting \\/>/' src/main.jsx
meet greeting title
{BUILD}
grep -q 'Greetings from a worktree' dist/assets/*.js
"""
STYLE = f"""
sed -i 's/padding: 2em;/padding: 3.25em;/' src/App.css
meet style lint
{BUILD}
grep -q 'padding:3.25em' dist/assets/*.css
"""
LINT = f"""
echo 'User-agent: *' >public/robots.txt
meet lint style
echo 'const never = 1' >src/broken.js
if npx eslint src >broken.log; then echo 'broken code passes'; exit 8; fi
grep -q never broken.log
rm broken.log src/broken.js
npx eslint .
{BUILD}
cmp public/robots.txt dist/robots.txt
"""


def test_a_react_app_is_worked_on(sleepy: ServerProcess, engine: str, tmp_path: Path) -> None:
    """``npm install`` ran once, before the first task, and serves all four, before and after a stop."""
    project = RealProject(sleepy, repository("react", tmp_path), REACT_SETUP)
    first = project.side_by_side(("Change the title", TITLE), ("Greet", COMPONENT))
    container = only_container(sleepy, engine, project)
    assert sum("added " in task.stored() for task in first) == 1
    modules = project.run("stat -c %i node_modules; ls node_modules | wc -l")

    project.until_stopped()
    second = project.side_by_side(("Wider cards", STYLE), ("Let robots in", LINT))
    assert [task.setups() for task in second] == [0, 0]
    assert project.run("stat -c %i node_modules; ls node_modules | wc -l") == modules
    assert project.run('cat "$HOME/setups"') == "set up in /workspace\n"

    diffs = [task.diff() for task in (*first, *second)]
    assert diffs == [
        {"src/App.jsx": "modified"},
        {"src/Greeting.jsx": "added", "src/main.jsx": "modified"},
        {"src/App.css": "modified"},
        {"public/robots.txt": "added"},
    ]
    for task in (*first, *second):
        assert "built in" in task.stored()
        task.merge()
    project.run(
        f"{BUILD}; grep -q 'Anyon + React' dist/assets/*.js; grep -q 'from a worktree' dist/assets/*.js;"
        "grep -q 'padding:3.25em' dist/assets/*.css; test -e dist/robots.txt"
    )
    assert project.run("git rev-list --count main") == "5\n"
    assert only_container(sleepy, engine, project) == container
