"""Lists the benchmarks or runs them: ``python -m benchmarks [NAME… | all] [--json] [--write] [--quick]``."""

import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import benchmarks
from benchmarks import _services
from benchmarks.documents import keep
from benchmarks.report import QUICK, show

_OPTIONS = {"--json", "--write", "--quick"}
LIMIT_SECONDS = 2 * 3600.0
"""One that takes longer is ended: the others' turn comes."""


def names() -> dict[str, str]:
    """Return the benchmarks' names and what each measures (the first line of its module)."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name.startswith("_"):
            continue
        imported = importlib.import_module(f"benchmarks.{module.name}")
        if hasattr(imported, "run"):
            found[module.name.replace("_", "-")] = (imported.__doc__ or "").strip().splitlines()[0]
    return found


def module_of(name: str) -> ModuleType:
    """Return a benchmark's module, which has ``run`` and may name the ``SERVICES`` that it needs."""
    return importlib.import_module(f"benchmarks.{name.replace('-', '_')}")


def main(arguments: list[str]) -> int:
    """Run what *arguments* ask for; 2 for what is not there, 1 for a missed target or one that failed."""
    options = {argument for argument in arguments if argument.startswith("--")}
    wanted = [argument for argument in arguments if argument not in options]
    known = names()
    if not wanted and not options:
        for name, doc in known.items():
            print(f"{name:20} {doc}")
        return 0
    chosen = list(known) if wanted == ["all"] else wanted
    unknown = [name for name in chosen if name not in known] + sorted(options - _OPTIONS)
    if unknown or not chosen:
        print(f"error: no benchmark {' '.join(unknown)!r}; ./bench lists them", file=sys.stderr)
        return 2
    if {"--write", "--quick"} <= options:
        print("error: figures of --quick are none to keep; leave out --write", file=sys.stderr)
        return 2
    if "--quick" in options:
        os.environ[QUICK] = "1"
    if len(chosen) == 1 and "--write" not in options and "--quick" not in options:
        return _run_here(chosen[0], as_json="--json" in options)
    commands = {name: [sys.executable, "-m", "benchmarks", name, "--json"] for name in chosen}
    documents = run_each(commands, as_json="--json" in options, write="--write" in options)
    return 0 if all(map(_is_well, documents)) else 1


def _run_here(name: str, *, as_json: bool) -> int:
    module = module_of(name)
    _services.start(getattr(module, "SERVICES", ()))
    began = time.monotonic()
    rows = module.run()
    show(name, rows, as_json=as_json, seconds=time.monotonic() - began)
    return 0 if all(row.met for row in rows) else 1


def run_each(
    commands: Mapping[str, Sequence[str]], *, as_json: bool, write: bool
) -> list[dict[str, Any]]:
    """Run each in a process of its own (what one leaves in memory is no part of another's figures).

    Return a document for each: its rows, or ``error`` where it did not come to its end; what the
    others found is printed, and kept if *write*, all the same.
    """
    documents = []
    for name, command in commands.items():
        document = _run_apart(name, command, as_json=as_json)
        documents.append(document)
        if write and "error" not in document:
            keep(document)
    if as_json:
        print(json.dumps(documents))
    for document in documents:
        if "error" in document:
            print(f"error: {document['bench']}: {document['error']}", file=sys.stderr)
    return documents


def _run_apart(name: str, command: Sequence[str], *, as_json: bool) -> dict[str, Any]:
    print(f"== {name}", file=sys.stderr, flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        told, _ = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"bench": name, "error": f"it took longer than {LIMIT_SECONDS:g} seconds"}
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)  # a Ctrl-C reaches only this session
        process.wait()
        raise
    *shown, last = told.splitlines() or [""]
    try:
        document: dict[str, Any] = json.loads(last)
    except ValueError:
        shown.append(last)
        document = {"bench": name, "error": f"it ended with exit code {process.returncode}"}
    print("\n".join(shown), file=sys.stderr if as_json else sys.stdout, flush=True)
    return document


def _is_well(document: dict[str, Any]) -> bool:
    if QUICK in os.environ:  # a target is nothing for one or two rounds
        return "error" not in document
    return "error" not in document and all(row["met"] for row in document["rows"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
