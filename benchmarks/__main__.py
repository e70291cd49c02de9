"""Lists the benchmarks or runs one: ``python -m benchmarks [NAME [--json]]``."""

import importlib
import pkgutil
import sys

import benchmarks
from benchmarks.report import show


def names() -> dict[str, str]:
    """Return the benchmarks' names and what each measures (the first line of its module)."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name in {"report", "__main__"} or module.name.startswith("_"):
            continue
        doc = importlib.import_module(f"benchmarks.{module.name}").__doc__ or ""
        found[module.name.replace("_", "-")] = doc.strip().splitlines()[0]
    return found


def main(arguments: list[str]) -> int:
    """Run what *arguments* ask for; 2 for a name that is not there, 1 for a missed target."""
    as_json = "--json" in arguments
    wanted = [argument for argument in arguments if argument != "--json"]
    if not wanted:
        for name, doc in names().items():
            print(f"{name:20} {doc}")
        return 0
    if len(wanted) != 1 or wanted[0] not in names():
        print(f"error: no benchmark {' '.join(wanted)!r}; ./bench lists them", file=sys.stderr)
        return 2
    module = importlib.import_module(f"benchmarks.{wanted[0].replace('-', '_')}")
    rows = module.run()
    show(wanted[0], rows, as_json=as_json)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
