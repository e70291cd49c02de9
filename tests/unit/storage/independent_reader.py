# Names are bytes here, which pathlib does not take.
# ruff: noqa: PTH101, PTH102, PTH123, PTH211
"""A reader of the checkpoint format that shares no code with the product.

Written from ``docs/reference/checkpoint-format.md`` alone, for a bucket that lies in a
directory of plain objects and is not encrypted. It proves that the page is enough to get
the files back without Anyon.
"""

import base64
import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3


class Bucket:
    """One project's objects, as a map from key to bytes."""

    def __init__(self, objects: dict[str, bytes], project: str) -> None:
        self.objects = objects
        self.project = project
        self.keep_family(project)
        material = b"anyon\0" + project.encode()
        self.signing = blake3(material, derive_key_context="anyon checkpoint 1 record").digest()

    def keep_family(self, project: str) -> None:
        """Take the key of the project whose chunks these are."""
        material = b"anyon\0" + project.encode()
        self.hashing = blake3(material, derive_key_context="anyon checkpoint 1 chunk").digest()

    def record(self, key: str) -> dict[str, Any]:
        """Return a signed record."""
        envelope, body, end = self.objects[f"{self.project}/{key}"].split(b"\n")
        assert end == b""
        assert json.loads(envelope)["signature"] == blake3(body, key=self.signing).hexdigest()
        found: dict[str, Any] = json.loads(body)
        assert found["format"] in {1, 2}
        return found

    def chunks_of(self, pack: str, place: str) -> dict[str, bytes]:
        """Return all chunks of a pack that lies with the project *place*."""
        data = self.objects[f"{place}/packs/{pack[:2]}/{pack}"]
        assert blake3(data).hexdigest() == pack
        assert data[:8] == b"ANYONPK1"
        length, magic = struct.unpack("<I8s", data[-12:])
        assert magic == b"ANYONPK1"
        index = json.loads(zstandard.decompress(data[-12 - length : -12]))
        found = {}
        for offset, stored, raw_bytes, chunks in index["frames"]:
            raw = zstandard.decompress(data[offset : offset + stored])
            assert len(raw) == raw_bytes
            at = 0
            for chunk, size in chunks:
                found[chunk] = raw[at : at + size]
                at += size
                assert blake3(found[chunk], key=self.hashing).hexdigest() == chunk
        return found


def extract(
    objects: dict[str, bytes], project: str, tree: str, target: Path, checkpoint_id: str = ""
) -> None:
    """Write one tree of a checkpoint (empty: the project's last) to *target*."""
    bucket = Bucket(objects, project)
    chosen = checkpoint_id or bucket.record("head")["checkpoint"]
    checkpoint = bucket.record(f"checkpoints/{chosen}")
    chunks: dict[str, bytes] = {}
    bucket.keep_family(checkpoint.get("family") or project)
    for pack in checkpoint["packs"]:
        chunks |= bucket.chunks_of(pack, checkpoint.get("borrowed", {}).get(pack, project))
    root = checkpoint["roots"][tree]
    _directory(chunks, {"node": root["node"], **root["attributes"]}, os.fsencode(target), {})


def _directory(
    chunks: dict[str, bytes], row: dict[str, Any], path: bytes, inodes: dict[int, bytes]
) -> None:
    os.mkdir(path)
    node = json.loads(chunks[row["node"]])
    assert node["format"] == 1
    for entry in node["files"]:
        _file(chunks, entry, path + b"/" + _bytes(entry, "name"), inodes)
    for entry in node["directories"]:
        if entry["type"] == "directory":
            _directory(chunks, entry, path + b"/" + _bytes(entry, "name"), inodes)
    _dress(path, row)


def _file(
    chunks: dict[str, bytes], row: dict[str, Any], path: bytes, inodes: dict[int, bytes]
) -> None:
    if row["type"] == "skipped":
        return
    if row["type"] == "whiteout":
        os.mknod(path, stat.S_IFCHR | row["mode"], 0)
        os.chown(path, row["uid"], row["gid"])
        os.utime(path, ns=(row["mtime"], row["mtime"]))
        return
    if row["type"] == "symlink":
        os.symlink(_bytes(row, "target"), path)
        os.utime(path, ns=(row["mtime"], row["mtime"]), follow_symlinks=False)
        return
    if "inode" in row and row["inode"] in inodes:
        os.link(inodes[row["inode"]], path)
        return
    inodes[row.get("inode", 0)] = path
    extents = row.get("extents")
    if extents is None:
        block = row.get("block", 0)
        extents = [[number * block, chunk] for number, chunk in enumerate(row["chunks"])]
    with open(path, "wb") as file:
        for offset, chunk in extents:
            file.seek(offset)
            file.write(chunks[chunk])
        file.truncate(row["size"])
    _dress(path, row)


def _dress(path: bytes, row: dict[str, Any]) -> None:
    os.chown(path, row["uid"], row["gid"])
    for name, value in row.get("xattrs", {}).items():
        os.setxattr(path, name, base64.b64decode(value))
    os.chmod(path, row["mode"])
    os.utime(path, ns=(row["mtime"], row["mtime"]))


def _bytes(row: dict[str, Any], member: str) -> bytes:
    if member in row:
        text: str = row[member]
        return text.encode()
    return base64.b64decode(row[member + "_base64"])
