import hashlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from innerloop_server.errors import DataLoss
from innerloop_server.store.blobs import Blobs, is_safetensors


@pytest.fixture
def blobs(tmp_path, clock) -> Blobs:
    return Blobs(tmp_path / "blobs", clock)


def test_a_blob_comes_back_under_its_hash(blobs, made) -> None:
    digest = blobs.put(made.weights(1))
    assert digest == hashlib.sha256(made.weights(1)).hexdigest()
    assert blobs.get(digest) == made.weights(1)
    assert blobs.path(digest).parts[-2:] == (digest[:2], f"{digest}.safetensors")


def test_the_same_bytes_are_kept_once(blobs, made) -> None:
    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(blobs.put, [made.weights(1)] * 16))
    assert len(digests) == blobs.count() == 1


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: d[:-1] + b"x", lambda d: b""])
def test_damage_is_told_and_healed_by_putting_again(blobs, made, damage) -> None:
    digest = blobs.put(made.weights(1))
    blobs.path(digest).write_bytes(damage(made.weights(1)))
    with pytest.raises(DataLoss) as caught:
        blobs.get(digest)
    assert caught.value.facts == {"blob": digest}
    assert blobs.put(made.weights(1)) == digest
    assert blobs.get(digest) == made.weights(1)


def test_a_missing_blob_is_a_loss(blobs) -> None:
    with pytest.raises(DataLoss, match="missing"):
        blobs.get("0" * 64)


@pytest.mark.parametrize(
    "data", [b"", b"\x02", pickle.dumps({"w": [1.0]}), b"\x02\0\0\0\0\0\0\0[]", b"\x05\0\0\0\0\0\0\0{}", b"\xff" * 40]
)
def test_only_safetensors_get_in(blobs, data) -> None:
    assert not is_safetensors(data)
    with pytest.raises(ValueError, match="safetensors"):
        blobs.put(data)
    assert blobs.count() == 0


def test_file_and_directories_are_flushed_before_it_is_said(blobs, made, monkeypatch) -> None:
    order = []
    real_sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.readlink(f"/proc/self/fd/{fd}")), real_sync(fd)))
    digest = blobs.put(made.weights(1))
    root = blobs.path(digest).parent.parent
    assert order[0].startswith(str(root / "tmp" / digest))
    assert order[1:] == [str(root / digest[:2]), str(root)]


def test_unreferenced_old_blobs_go_and_others_stay(blobs, made, clock) -> None:
    old, kept = blobs.put(made.weights(1)), blobs.put(made.weights(2))
    leftover = blobs.path(old).parent.parent / "tmp" / "crashed"
    leftover.write_bytes(b"half")
    os.utime(leftover, (clock.now, clock.now))
    clock.now += 10
    young = blobs.put(made.weights(3))
    assert blobs.remove_unreferenced({kept}, before=clock.now) == [len(made.weights(1))]
    assert not blobs.path(old).exists()
    assert not leftover.exists()
    assert blobs.get(kept)
    assert blobs.get(young)


def test_putting_an_old_blob_again_makes_it_young(blobs, made, clock) -> None:
    digest = blobs.put(made.weights(1))
    clock.now += 10
    blobs.put(made.weights(1))
    assert blobs.remove_unreferenced(set(), before=clock.now) == []
    assert blobs.get(digest)
