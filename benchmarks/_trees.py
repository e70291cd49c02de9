"""Trees to measure with: sources beside a node_modules, as a project of that many files has them."""

import random
from itertools import accumulate
from pathlib import Path

SIZES = (28_000, 100_000)
"""205 MB and 730 MB."""
CHANGED = 20
_PER_PACKAGE = 29
_MEAN_BYTES = 7300
_SOURCES = 0.07
"""The part of the files that are the project's own."""


class Texts:
    """Bytes that compress about as sources do, the same for every run."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        letters = b"abcdefghijklmnopqrstuvwxyz_$0123456789"
        self._words = [
            bytes(self.random.choices(letters, k=self.random.randint(2, 12))) for _ in range(6000)
        ]
        self._weights = list(accumulate(1 / (n + 3) for n in range(len(self._words))))
        self._lines = [self._line() for _ in range(20_000)]

    def _line(self) -> bytes:
        indent = b"  " * self.random.randrange(5)
        words = self.random.choices(
            self._words, cum_weights=self._weights, k=self.random.randint(2, 9)
        )
        return indent + b" ".join(words) + self.random.choice((b";\n", b" {\n", b"),\n", b"\n"))

    def file(self, mean_bytes: int = _MEAN_BYTES) -> bytes:
        """Return a file's text: many are small, a few are large."""
        size = min(int(self.random.lognormvariate(0, 1.4) * mean_bytes * 0.375), 2 << 20)
        lines = self.random.choices(self._lines, k=size // 30 + 1)
        return b"".join(lines)[:size]


def make_tree(root: Path, files: int) -> list[Path]:
    """Write about *files* files under *root*; return those that somebody would edit."""
    texts = Texts()
    own = []
    for number in range(int(files * _SOURCES)):
        path = root / "src" / f"part{number // 120}" / f"module{number // 12 % 10}" / f"{number}.ts"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(texts.file())
        own.append(path)
    shared = Texts(seed=2)
    left = files - len(own)
    number = 0
    while left > 0:
        scope = f"@scope{number % 40}/" if number % 5 == 0 else ""
        package = root / "node_modules" / f"{scope}package-{number}"
        if number % 12 == 11:  # one that a package has for itself, as others do
            shared.random.seed(number % 7)
            package = root / "node_modules" / f"package-{number - 2}" / "node_modules" / "debug"
            made = _package(package, shared, min(left, _PER_PACKAGE))
        else:
            made = _package(package, texts, min(left, _PER_PACKAGE))
        left -= made
        number += 1
    return own


def _package(package: Path, texts: Texts, most: int) -> int:
    count = min(most, 1 + int(texts.random.expovariate(1 / _PER_PACKAGE)))
    for number in range(count):
        folder = package / ("", "lib", "dist", "dist/cjs", "types")[number % 5]
        folder.mkdir(parents=True, exist_ok=True)
        suffix = ("js", "d.ts", "js.map", "json", "md")[number % 5]
        (folder / f"file{number}.{suffix}").write_bytes(texts.file())
    return count


def change(own: list[Path], turn: int) -> None:
    """Edit ``CHANGED`` of the sources, others at each turn."""
    for number in range(CHANGED):
        path = own[(turn * 97 + number * 131) % len(own)]
        path.write_bytes(path.read_bytes() + b"// edited %d\n" % turn)


def size_of(root: Path) -> int:
    """Return the bytes of all files below *root*."""
    return sum(p.lstat().st_size for p in root.rglob("*") if not p.is_dir())
