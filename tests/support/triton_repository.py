"""Triton's ModelConfig, as far as edgeseg writes it: protobuf/model_config.proto of triton-inference-server/common."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "int32": _FIELD.TYPE_INT32, "int64": _FIELD.TYPE_INT64, "string": _FIELD.TYPE_STRING,
}  # fmt: skip
_ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_FP32": 11},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
    "SecondaryDeviceKind": {"KIND_NVDLA": 0},
}
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "ModelInput": [("name", 1, "string", False), ("data_type", 2, "DataType", False), ("dims", 4, "int64", True)],
    "ModelOutput": [("name", 1, "string", False), ("data_type", 2, "DataType", False), ("dims", 3, "int64", True)],
    "SecondaryDevice": [("kind", 1, "SecondaryDeviceKind", False), ("device_id", 2, "int64", False)],
    "ModelInstanceGroup": [
        ("count", 2, "int32", False), ("kind", 4, "Kind", False), ("secondary_devices", 8, "SecondaryDevice", True),
    ],
    "ModelConfig": [
        ("name", 1, "string", False), ("platform", 2, "string", False), ("max_batch_size", 4, "int32", False),
        ("input", 5, "ModelInput", True), ("output", 6, "ModelOutput", True),
        ("instance_group", 7, "ModelInstanceGroup", True),
    ],
}  # fmt: skip


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="model_config_subset.proto", package="inference", syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for label, number in values.items():
            enum.value.add(name=label, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if kind in _TYPES:
                added.type = _TYPES[kind]
            else:
                added.type = _FIELD.TYPE_ENUM if kind in _ENUMS else _FIELD.TYPE_MESSAGE
                added.type_name = f".inference.{kind}"
    return file


def read_config(text: str) -> Any:
    """Parse a config.pbtxt; a field, a value or a type that the schema does not have is an error."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
    return text_format.Parse(text, config)
