"""What tells the content of one data folder from that of another."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from data_prep.conversion.shards import checksum
from llava_pose.files import write_atomic


def stamp(checksums: dict[str, int]) -> str:
    """The shards of a data folder in a few words. ``checksums``: by shard.

    ``datasets`` keeps what it has opened under a digest of the card's header, and of nothing else: without a stamp it
    would show a folder's earlier content again, or that of another folder of the same name.
    """
    digest = hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()
    return f"{len(checksums)} shards, digest {digest[:16]}"


def renew_stamp(folder: Path) -> None:
    """Set the stamp of a data folder's card anew, after its shards have been changed."""
    card = folder / "README.md"
    if card.is_file():
        checksums = {path.name: checksum(path) for path in folder.glob("*-*-of-*.parquet")}
        text = card.read_text(encoding="utf-8")
        renewed = re.sub(
            r"^  description: .*$", f"  description: {stamp(checksums)}", text, count=1, flags=re.MULTILINE
        )
        write_atomic(card, renewed.encode())
