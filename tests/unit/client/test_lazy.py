"""What importing costs: nothing that was not asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import innerloop

HEAVY = ("grpc", "google.protobuf", "torch", "gymnasium", "sqlalchemy", "rich", "click", "innerloop_server")


def loaded(code: str) -> set[str]:
    probe = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing():
    probe = "import sys, innerloop; print(*[m for m in sys.modules if m.startswith('innerloop.') or m == 'numpy'])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "code",
    [
        "import innerloop.policy",
        "import innerloop; innerloop.load_policy",
        "import innerloop; innerloop.Step, innerloop.Budget, innerloop.Task",
        "import innerloop; innerloop.errors.NotFound",
    ],
)
def test_policies_and_values_need_no_network_stack(code):
    assert loaded(code) == set()


@pytest.mark.parametrize("code", ["import innerloop; innerloop.connect", "import innerloop; innerloop.aio.connect"])
def test_connecting_needs_grpc_and_nothing_heavier(code):
    assert loaded(code) == {"grpc", "google.protobuf"}


def test_embedded_needs_no_server_to_be_named():
    assert loaded("import innerloop; innerloop.embedded") == {"grpc", "google.protobuf"}


def test_all_is_sorted_and_true():
    assert innerloop.__all__ == sorted(innerloop.__all__)
    for name in innerloop.__all__:
        assert getattr(innerloop, name) is not None
    assert set(innerloop.__all__) <= set(dir(innerloop))
    with pytest.raises(AttributeError, match="nobody"):
        innerloop.nobody  # noqa: B018 - asking is the test


def test_every_public_name_is_documented():
    for name in innerloop.__all__:
        value = getattr(innerloop, name)
        if not isinstance(value, str):
            assert (value.__doc__ or "").strip(), name
