"""Protocol buffer message classes, built at run time from a table of the fields in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = [
    "FieldSpec",
    "Message",
    "build_message_class",
    "enum_name",
    "one_of",
    "optional",
    "repeated",
]

Message: TypeAlias = Any
"""A message; its class exists only at run time, so its fields have no static types."""

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "caffe"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field of a message.

    Attributes:
        type: Scalar type of protocol buffers, or the name of a message of the table.
        default: Value of an absent field; the zero of the type if empty.
        number: Number in the wire form; 0 to number the fields of a message in order.
        repeated: Whether the field is a list.
        values: Names of the values of an enum, numbered from 0.
    """

    type: str
    default: str = ""
    number: int = 0
    repeated: bool = False
    values: tuple[str, ...] = ()


def optional(type_: str, default: str = "", *, number: int = 0) -> FieldSpec:
    """Declare a field with at most one value."""
    return FieldSpec(type_, default, number)


def repeated(type_: str, *, number: int = 0) -> FieldSpec:
    """Declare a list."""
    return FieldSpec(type_, number=number, repeated=True)


def one_of(*values: str, default: str) -> FieldSpec:
    """Declare an enum."""
    return FieldSpec("enum", default, values=values)


def build_message_class(name: str, messages: Mapping[str, Mapping[str, FieldSpec]]) -> Any:
    """Build the class of a message in a descriptor pool of its own.

    Args:
        name: The message.
        messages: The fields of it and of all messages that it contains, by name.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=_PACKAGE)
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, (field_name, spec) in enumerate(fields.items(), start=1):
            _add_field(message, field_name, spec, spec.number or number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def _add_field(message: Any, name: str, spec: FieldSpec, number: int) -> None:
    field = message.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if spec.repeated else _Field.LABEL_OPTIONAL
    type_name = f"TYPE_{spec.type.upper()}"
    if type_name in _Field.Type.keys():  # noqa: SIM118 - not a mapping
        field.type = _Field.Type.Value(type_name)
    else:
        field.type_name = f".{_PACKAGE}.{spec.type}"
        field.type = _Field.TYPE_MESSAGE
    if spec.values:
        enum = message.enum_type.add(name=f"{name}_enum")
        field.type_name = f".{_PACKAGE}.{message.name}.{enum.name}"
        for value_number, value in enumerate(spec.values):
            enum.value.add(name=value, number=value_number)
    if spec.default:
        field.default_value = spec.default
    if spec.repeated and spec.type in ("float", "double"):
        field.options.packed = True  # decides the written form; both forms are read


def enum_name(message: Message, field: str) -> str:
    """Return the name of the value of an enum field."""
    values = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return str(values[getattr(message, field)].name)
