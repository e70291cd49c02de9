"""The package as it is installed: built from what is committed, and used far from the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from anyon.testing.servers import ServerProcess

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a clean copy of the last commit by the tools of this environment."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "HEAD"], capture_output=True, check=True, timeout=60
    )
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True, timeout=60)
    build = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [*build, "--no-deps", "--no-build-isolation", "--wheel-dir", place, source],
        check=True,
        timeout=200,
    )
    (made,) = place.glob("anyon-*.whl")
    return made


def test_what_is_imported_without_being_asked_for_is_required(wheel: Path) -> None:
    """The dashboards' SDK is a dependency of the package itself, not of an extra."""
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (one for one in opened.namelist() if one.endswith(".dist-info/METADATA"))
        required = opened.read(name).decode().splitlines()
    (line,) = (one for one in required if one.startswith("Requires-Dist: grafana-foundation-sdk"))
    assert "extra ==" not in line


def committed(*below: str) -> set[str]:
    """Return the committed files below directories of the sources, as a wheel names them."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-tree", "-r", "--name-only", "HEAD", *below],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.removeprefix("src/") for line in listed.stdout.splitlines()}


def test_the_wheel_holds_what_the_program_needs(wheel: Path) -> None:
    """All that is committed below ``src/anyon`` and not code alone: migrations, launcher, type marker; nothing else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {name for name in names if ".dist-info/" not in name}
    assert files == committed("src/anyon")
    assert {"anyon/py.typed", "anyon/processes/launcher.sh"} <= files
    assert any(name.startswith("anyon/db/migrations/versions/") for name in files)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Path:
    """A fresh environment with the wheel, which finds its dependencies where they are already."""
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=120)
    packages = next(place.glob("lib/python3*/site-packages"))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")),
            *("install", "--disable-pip-version-check", "-q", "--no-deps", "--no-index", wheel),
        ],
        check=True,
        timeout=200,
    )
    # A line of a .pth file is a place to look in; .pth files there, as of the checkout, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def test_the_installed_package_serves(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another directory it tells its version, serves, makes a project and runs a command in it."""
    program = environment / "bin" / "anyon"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def anyon(*arguments: str, **more: str) -> str:
        done = subprocess.run(
            [program, *arguments],
            env=bare | more,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import anyon; print(anyon.__file__)"],
        env=bare,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(environment)
    (told,) = environment.glob("lib/*/site-packages/anyon-*.dist-info")
    assert told.name == f"anyon-{json.loads(anyon('version', '--json'))['version']}.dist-info"

    # Nothing that a plain install has not is needed for the dashboards.
    anyon("monitoring", "render", "--out", "rendered", HOME=str(tmp_path))
    assert (elsewhere / "rendered/grafana/dashboards/anyon-containers.json").is_file()

    server = ServerProcess(tmp_path / "home", "bubblewrap", program=program)
    server.start()
    try:
        anyon("project", "create", "installed", ANYON_SERVER=server.address)
        argv = ("exec", "installed", "--", "git", "rev-parse", "--is-inside-work-tree")
        assert anyon(*argv, ANYON_SERVER=server.address) == "true\n"
        server.remove_projects()
    finally:
        server.stop()
