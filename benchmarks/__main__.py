"""Lists the benchmarks or runs them: ``python -m benchmarks [NAME… | all] [--json] [--write]``."""

import importlib
import json
import pkgutil
import subprocess
import sys
from typing import Any

import benchmarks
from benchmarks.documents import keep
from benchmarks.report import show

_NOT_BENCHMARKS = {"report", "documents", "trees", "__main__"}


def names() -> dict[str, str]:
    """Return the benchmarks' names and what each measures (the first line of its module)."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name in _NOT_BENCHMARKS or module.name.startswith("_"):
            continue
        imported = importlib.import_module(f"benchmarks.{module.name}")
        if hasattr(imported, "run"):
            doc = imported.__doc__ or ""
            found[module.name.replace("_", "-")] = doc.strip().splitlines()[0]
    return found


def main(arguments: list[str]) -> int:
    """Run what *arguments* ask for; 2 for a name that is not there, 1 for a missed target."""
    options = {argument for argument in arguments if argument.startswith("--")}
    wanted = [argument for argument in arguments if argument not in options]
    known = names()
    if not wanted and not options:
        for name, doc in known.items():
            print(f"{name:20} {doc}")
        return 0
    chosen = list(known) if wanted == ["all"] else wanted
    unknown = [name for name in chosen if name not in known] + sorted(
        options - {"--json", "--write"}
    )
    if unknown or not chosen:
        print(f"error: no benchmark {' '.join(unknown)!r}; ./bench lists them", file=sys.stderr)
        return 2
    if len(chosen) == 1 and "--write" not in options:
        return _run_here(chosen[0], as_json="--json" in options)
    return _run_each(chosen, as_json="--json" in options, write="--write" in options)


def _run_here(name: str, *, as_json: bool) -> int:
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    rows = module.run()
    show(name, rows, as_json=as_json)
    return 0 if all(row.met for row in rows) else 1


def _run_each(chosen: list[str], *, as_json: bool, write: bool) -> int:
    """Run each in a process of its own: what one leaves in memory is no part of another's figures."""
    documents: list[dict[str, Any]] = []
    failed = []
    for name in chosen:
        command = [sys.executable, "-m", "benchmarks", name, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        *shown, last = done.stdout.splitlines() or [""]
        print("\n".join(shown), file=sys.stderr if as_json else sys.stdout, flush=True)
        try:
            documents.append(json.loads(last))
        except ValueError:
            failed.append(name)
            print(f"error: {name} did not come to its end", file=sys.stderr)
            continue
        if write:
            keep(documents[-1])
    if as_json:
        print(json.dumps(documents))
    is_met = all(row["met"] for document in documents for row in document["rows"])
    return 0 if is_met and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
