"""Key files and what they keep secret."""

import io
import stat
import threading
from pathlib import Path

import pytest
import zstandard

from anyon.clock import SystemClock
from anyon.config import Settings
from anyon.domain.errors import AnyonError
from anyon.storage import keyfiles
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.keys import FileKeys, Keys, PlainKeys
from anyon.wiring import stores
from anyon.wiring.keys import keys as keys_of
from anyon.wiring.keys import opening_keys
from anyon.wiring.recover import Wish, recover

CANARY = b"a canary that nobody else may read 0c4d"


def over(store: MemoryStore, place: Path, keys: Keys) -> Checkpoints:
    """Return checkpoints over *store*."""
    return Checkpoints(store, cache=place / "cache", clock=SystemClock(), keys=keys)


def tree(place: Path) -> Path:
    """Return a tree with the canary in a name, a file and a link."""
    root = place / "tree"
    root.mkdir(exist_ok=True)
    (root / "file").write_bytes(CANARY)
    (root / CANARY.decode()).write_bytes(b"")
    (root / "link").unlink(missing_ok=True)
    (root / "link").symlink_to(CANARY.decode())
    return root


def bucket(tmp_path: Path, **more: object) -> Settings:
    """Return the settings of a server whose store is a bucket."""
    return Settings(home=tmp_path / "home", store="gs://bucket", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_encrypted", [True, False])
async def test_a_canary_in_the_store(tmp_path: Path, is_encrypted: bool) -> None:
    """Sealed, no object holds it in any name, file or record; unsealed (the control) it is found."""
    store = MemoryStore()
    keyfiles.make(tmp_path / "keys.json")
    keys: Keys = FileKeys(tmp_path / "keys.json") if is_encrypted else PlainKeys()
    made = over(store, tmp_path, keys)
    await made.save("u/p", {"workspace": tree(tmp_path)}, records=b'{"prompt": "%s"}' % CANARY)
    assert found(store, keys, CANARY) is not is_encrypted
    await made.close()


def found(store: MemoryStore, keys: Keys, canary: bytes) -> bool:
    """Say whether whoever has the store alone can find the canary, compressed or not."""
    for info in store.list(""):
        data = store.get(info.key).data
        if canary in data or canary in info.key.encode():
            return True
        at = data.find(b"\x28\xb5\x2f\xfd")
        while at >= 0:
            try:
                reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data[at:]))
                if canary in reader.read(1 << 22):
                    return True
            except zstandard.ZstdError:
                pass  # these four bytes were no frame
            at = data.find(b"\x28\xb5\x2f\xfd", at + 1)
    return False


async def test_rotation(tmp_path: Path) -> None:
    """After it the old state is read with the old key, and the new one is sealed with the new."""
    file, store = tmp_path / "keys.json", MemoryStore()
    keyfiles.make(file)
    before = file.read_text()
    made = over(store, tmp_path, FileKeys(file))
    root = tree(tmp_path)
    old = await made.save("u/p", {"workspace": root})
    await made.close()
    ids = keyfiles.rotate(file)
    assert len(ids) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    made = over(store, tmp_path, FileKeys(file))
    (root / "more").write_text("written after it")
    new = await made.save("u/p", {"workspace": root})
    assert not set(new.checkpoint.packs) & set(old.checkpoint.packs)
    for saved in (old, new):
        assert await made.read("u/p", saved.checkpoint.id, "workspace/file", limit_bytes=99)
    await made.close()
    file.write_text(before)  # whoever has only the old key reads only the old state
    made = over(store, tmp_path, FileKeys(file))
    assert (await made.get("u/p", old.checkpoint.id)).id == old.checkpoint.id
    with pytest.raises(AnyonError) as caught:
        await made.latest("u/p")
    assert (caught.value.code, bool(caught.value.hint)) == ("key_missing", True)
    await made.close()


def test_the_first_start(tmp_path: Path) -> None:
    """For a bucket a key file is made, for the owner alone, once; for a directory none."""
    settings, store = bucket(tmp_path), MemoryStore()
    first = keys_of(settings, store)
    assert isinstance(first, FileKeys)
    assert stat.S_IMODE(settings.keys_path.stat().st_mode) == 0o600
    again = keys_of(settings, store)
    assert isinstance(again, FileKeys)
    assert again.ids == first.ids
    plain = Settings(home=tmp_path / "other", store=str(tmp_path / "store"))
    assert isinstance(keys_of(plain, MemoryStore()), PlainKeys)
    assert not plain.keys_path.exists()


def test_many_first_starts(tmp_path: Path) -> None:
    """Of several that make a key file at once one does, and nobody has another's."""
    file = tmp_path / "keys.json"
    barrier, made = threading.Barrier(8), list[bool]()

    def one() -> None:
        barrier.wait(30)
        made.append(keyfiles.make(file))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_store_of_another_key(tmp_path: Path) -> None:
    """A server without the store's key does not start, makes no key file, and says what to do."""
    store = MemoryStore()
    keys_of(bucket(tmp_path / "one"), store)
    other = bucket(tmp_path / "two")
    for look in (keys_of, opening_keys):
        with pytest.raises(AnyonError) as caught:
            look(other, store)
        assert caught.value.code == "key_missing"
        assert "--key-file" in caught.value.hint
    assert not other.keys_path.exists()
    keyfiles.make(other.keys_path)  # a wrong one is as none
    for look in (keys_of, opening_keys):
        with pytest.raises(AnyonError) as caught:
            look(other, store)
        assert caught.value.code == "key_missing"


def test_a_rotation_is_known_to_the_store(tmp_path: Path) -> None:
    """After one server has rotated, another that was not given the new file does not start."""
    store, one, two = MemoryStore(), bucket(tmp_path / "one"), bucket(tmp_path / "two")
    keys_of(one, store)
    two.keys_path.parent.mkdir(parents=True)
    two.keys_path.write_bytes(one.keys_path.read_bytes())
    keys_of(two, store)
    keyfiles.rotate(one.keys_path)
    keys_of(one, store)
    with pytest.raises(AnyonError) as caught:
        keys_of(two, store)
    assert caught.value.code == "key_missing"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys": []}', '{"keys": ["00"]}', '{"keys": 7}', "\udcff"]
)
def test_what_is_no_key_file(tmp_path: Path, text: str) -> None:
    """Anything but keys is refused with a hint, and rotating it changes nothing."""
    file = tmp_path / "keys.json"
    file.write_text(text, errors="surrogateescape")
    for call in (FileKeys, keyfiles.rotate):
        with pytest.raises(AnyonError) as caught:
            call(file)
        assert (caught.value.code, bool(caught.value.hint)) == ("key_file_malformed", True)
    assert file.read_text(errors="surrogateescape") == text


def test_a_key_file_that_was_named_and_is_not_there(tmp_path: Path) -> None:
    """A path that was given is never filled with new keys."""
    settings = bucket(tmp_path, key_file=str(tmp_path / "mounted.json"))
    for look in (keys_of, opening_keys):
        with pytest.raises(AnyonError) as caught:
            look(settings, MemoryStore())
        assert caught.value.code == "key_missing"
    assert not settings.keys_path.exists()


async def test_encryption_that_was_switched_off(tmp_path: Path) -> None:
    """What was sealed stays readable, and what is written now is plain."""
    store, on = MemoryStore(), bucket(tmp_path)
    made = over(store, tmp_path, keys_of(on, store))
    old = await made.save("u/p", {"workspace": tree(tmp_path)})
    await made.close()
    made = over(store, tmp_path, keys_of(bucket(tmp_path, encryption="off"), store))
    new = await made.save("u/p", {"workspace": tree(tmp_path)})
    assert new.is_new
    assert await made.read("u/p", old.checkpoint.id, "workspace/file", limit_bytes=99) == CANARY
    assert found(store, PlainKeys(), CANARY)
    await made.close()


async def test_recovering_needs_the_key_file(tmp_path: Path) -> None:
    """Without it nothing is taken up or made; with it the projects are."""
    kept = Settings(home=tmp_path / "lost", store=str(tmp_path / "store"), encryption="on")
    store = stores.store(kept)
    assert store is not None
    made = Checkpoints(
        store, cache=tmp_path / "c", clock=SystemClock(), keys=keys_of(kept, store), server="one"
    )
    await made.save("user/empty", {"workspace": tree(tmp_path)})
    await made.close()
    new = Settings(home=tmp_path / "new", store=kept.store, encryption="on")
    with pytest.raises(AnyonError) as caught:
        await recover(new, Wish(is_forced=True))
    assert caught.value.code == "key_missing"
    assert not (new.home / "anyon.db").exists()
    wish = Wish(key_file=str(kept.keys_path), is_dry=True, is_forced=True)
    done = (await recover(new, wish)).projects
    assert [one.code for one in done] == ["records_unreadable"]  # it was opened: it has no rows
