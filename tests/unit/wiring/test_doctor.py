"""What ``anyon doctor`` says of the store."""

from pathlib import Path

from anyon.config import Settings
from anyon.wiring.doctor import Finding, examine


async def finding(**settings: object) -> Finding:
    """Return what is said of the store."""
    found = await examine(Settings(**settings))  # type: ignore[arg-type]
    return next(one for one in found if one.name == "store")


async def test_a_store_that_works(tmp_path: Path) -> None:
    """An object is written, read and deleted: nothing is left behind."""
    store = tmp_path / "store"
    store.mkdir()
    found = await finding(home=tmp_path, store=str(store), engine="memory")
    assert found.ok
    assert not list(store.glob("**/doctor/*"))


async def test_a_store_that_is_not_made_yet(tmp_path: Path) -> None:
    """A fresh machine is no failure, and looking makes nothing."""
    assert (await finding(home=tmp_path, engine="memory")).ok
    assert not (tmp_path / "store").exists()


async def test_a_store_that_cannot_be_had(tmp_path: Path) -> None:
    """An address without a driver is told with a hint, and is needed."""
    found = await finding(home=tmp_path, store="ftp://somewhere", engine="memory")
    assert not found.ok
    assert found.needed
    assert "s3://" in found.hint
