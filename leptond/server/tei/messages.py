"""The messages of `tei.v1`, in a pool of their own.

A client in the same process may bring the original descriptors into the default pool, which takes
no second description of one name.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["PACKAGE", "POOL", "message"]

PACKAGE = "tei.v1"


def _load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    packed = (resources.files(__package__) / "tei.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(packed).file:
        pool.Add(file)
    return pool


POOL = _load()


def message(name: str) -> Any:
    """The class of a message, by its bare name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
