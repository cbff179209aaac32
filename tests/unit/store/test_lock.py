import os
import subprocess
import sys

import pytest

from innerloop_server.errors import PreconditionFailed, Unavailable
from innerloop_server.store.lock import DirectoryLock
from innerloop_server.store.store import Store

HOLD = """
import pathlib, sys
from innerloop_server.store.lock import DirectoryLock
lock = DirectoryLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_store_is_refused_and_told_who_is_there(tmp_path) -> None:
    with Store.open(tmp_path):
        with pytest.raises(PreconditionFailed, match="in use") as caught:
            Store.open(tmp_path)
        assert caught.value.reason == "DATA_DIR_IN_USE"
        assert caught.value.facts["pid"] == str(os.getpid())
    Store.open(tmp_path).close()


def test_a_store_that_does_not_open_leaves_no_lock(tmp_path) -> None:
    (tmp_path / "catalog.sqlite3").mkdir()
    with pytest.raises(Unavailable, match="does not answer"):
        Store.open(tmp_path)
    DirectoryLock(tmp_path).release()


def test_the_lock_of_another_process_ends_with_it(tmp_path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(PreconditionFailed) as caught:
            DirectoryLock(tmp_path)
        assert caught.value.facts["pid"] == str(holder.pid)
        holder.kill()
        holder.wait()
        DirectoryLock(tmp_path).release()
