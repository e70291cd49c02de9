"""How ``./bench`` runs the benchmarks: all of them, and one's failure is not the others'."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import __main__ as runner
from benchmarks.documents import page
from benchmarks.report import QUICK, Row, rounds, show

PLACE = Path(runner.__file__).parent


def command(words: str) -> list[str]:
    """Return a benchmark that runs a line of Python."""
    return [sys.executable, "-c", words]


def told(name: str) -> str:
    """Return what a benchmark prints with --json, as Python."""
    document = {"bench": name, "rows": [{"met": True}]}
    return f"print('a table'); print({json.dumps(json.dumps(document))})"


def test_all_is_every_benchmark() -> None:
    """Each module that can be run is named; each explains itself to a reader in more than a line."""
    files = {path.stem.replace("_", "-") for path in PLACE.glob("*.py") if path.stem[0] != "_"}
    assert set(runner.names()) == files - {"report", "documents"}
    for name in runner.names():
        assert len((runner.module_of(name).__doc__ or "").strip().splitlines()) >= 3, name


def test_what_a_benchmark_needs_can_be_started() -> None:
    """Each service that is named has its script."""
    for name in runner.names():
        for service in getattr(runner.module_of(name), "SERVICES", ()):
            assert (PLACE.parent / "scripts/services" / f"{service}.sh").is_file(), name


@pytest.mark.parametrize(
    "bad", ["raise SystemExit(3)", "print('half a table'); import os; os.abort()", "print('{')"]
)
def test_a_failure_costs_its_own_results_only(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The others run, before it and after it; all are in what is printed, and the failure is named."""
    commands = {"one": command(told("one")), "bad": command(bad), "two": command(told("two"))}
    documents = runner.run_each(commands, as_json=True, write=False)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == documents
    assert [one["bench"] for one in documents] == ["one", "bad", "two"]
    assert ["error" in one for one in documents] == [False, True, False]
    assert "error: bad: it ended with exit code" in printed.err


def test_one_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one's turn comes."""
    monkeypatch.setattr(runner, "LIMIT_SECONDS", 0.5)
    endless = runner.run_each(
        {"endless": command("import time; time.sleep(600)")}, as_json=True, write=False
    )
    assert endless == [{"bench": "endless", "error": "it took longer than 0.5 seconds"}]


def test_only_whole_results_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed leaves the page as it was."""
    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(runner, "keep", kept.append)
    commands = {"one": command(told("one")), "bad": command("raise SystemExit(1)")}
    runner.run_each(commands, as_json=False, write=True)
    assert [one["bench"] for one in kept] == ["one"]


def test_a_quick_run_is_short_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of everything; its figures are refused for the page."""
    assert rounds(25) == 25
    monkeypatch.setenv(QUICK, "1")
    assert (rounds(25), rounds(1)) == (2, 1)
    assert runner.main(["idle", "--quick", "--write"]) == 2


@pytest.mark.parametrize("arguments", [["no-such"], ["idle", "--no-such"], ["--json"]])
def test_what_is_not_there_is_refused(arguments: list[str]) -> None:
    """A name or an option that is unknown, or no name at all, runs nothing."""
    assert runner.main(arguments) == 2


def test_a_row_is_shown_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is the last line; the page has the explanation, the machine, the length of the run and the ratio."""
    row = Row(
        what="a thing", value=1, unit="s", reference="it", reference_value=2, target_ratio=0.4
    )
    show("idle", [row], as_json=True, seconds=7.2)
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["seconds"] == 7
    written = page({"idle": {**document, "at": "2026-01-01 00:00 UTC"}})
    assert "`./bench idle`, 2026-01-01 00:00 UTC, 7 s; " in written
    assert "| a thing | 1 s | 2 s (it) | 0.50x | ≤ 0.4x | NO |" in written
    assert "What it costs to have many projects" in written
