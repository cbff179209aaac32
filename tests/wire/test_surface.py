"""Every name and number of the contract, as committed in surface.txt: a change to it is made on purpose.

After such a change: ``python tests/wire/test_surface.py > tests/wire/surface.txt``, and an entry in the changelog.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from innerloop.v1 import adaptation_pb2, array_pb2, evaluation_pb2, learner_pb2, policy_pb2, task_pb2

FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR for module in (adaptation_pb2, array_pb2, evaluation_pb2, learner_pb2, policy_pb2, task_pb2)
)
SCALARS = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def surface() -> Iterator[str]:
    """One line for every service, rpc, message, field, enum and value."""
    for file in FILES:
        yield f"file {file.name}"
        for service in file.services_by_name.values():
            yield f"service {service.full_name}"
            for method in service.methods:
                asks = "stream " * method.client_streaming + method.input_type.name
                gets = "stream " * method.server_streaming + method.output_type.name
                yield f"  rpc {method.name}({asks}) returns ({gets})"
        for enum in file.enum_types_by_name.values():
            yield f"enum {enum.full_name}"
            yield from (f"  {value.number} {value.name}" for value in enum.values)
        for message in file.message_types_by_name.values():
            yield from _message(message)
        yield ""


def _message(message: Descriptor) -> Iterator[str]:
    yield f"message {message.full_name}"
    for field in sorted(message.fields, key=lambda f: f.number):
        yield f"  {field.number} {_type(field)} {field.name}{_oneof(field)}"
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from _message(nested)


def _type(field: FieldDescriptor) -> str:
    of = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return f"map<{_type(key)}, {_type(value)}>"
    name = of.full_name if of is not None else SCALARS[field.type]
    return f"repeated {name}" if field.is_repeated else name


def _oneof(field: FieldDescriptor) -> str:
    if field.containing_oneof is None:
        return ""
    # `optional` is a oneof of its own underneath
    name = field.containing_oneof.name
    return " (optional)" if name == f"_{field.name}" else f" (oneof {name})"


def test_the_surface_is_the_committed_one() -> None:
    committed = Path(__file__).with_name("surface.txt").read_text(encoding="utf-8").splitlines()
    changes = list(difflib.unified_diff(committed, list(surface()), "committed", "now", lineterm="", n=0))
    assert not changes, "\n".join(["the contract has changed; if on purpose, see this file's docstring", *changes])


def test_every_zero_value_is_unspecified() -> None:
    for file in FILES:
        for enum in file.enum_types_by_name.values():
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED"), enum.full_name


def test_every_rpc_has_a_request_and_response_of_its_own() -> None:
    rpcs = [method for file in FILES for service in file.services_by_name.values() for method in service.methods]
    for method in rpcs:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"
    assert len({method.name for method in rpcs}) == len(rpcs)


if __name__ == "__main__":
    print("\n".join(surface()))  # noqa: T201
