"""What ``anyon doctor`` says of the store."""

import json
import os
import socket
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


async def test_a_port_is_missing_only_where_another_program_has_it(tmp_path: Path) -> None:
    """This home's own server on it is as it should be; the hourly check runs beside one all the time."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        settings = Settings(home=tmp_path, port=port)
        assert not (await found(settings))["port"].ok
        told = {"pid": os.getpid(), "address": f"127.0.0.1:{port}"}
        (tmp_path / "server.json").write_text(json.dumps(told))
        assert (await found(settings))["port"].ok
        told["address"] = f"127.0.0.1:{port + 1}"
        (tmp_path / "server.json").write_text(json.dumps(told))
        assert not (await found(settings))["port"].ok


async def found(settings: Settings) -> dict[str, Finding]:
    """Return what is found, by name."""
    return {one.name: one for one in await examine(settings)}
