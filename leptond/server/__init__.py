"""The gRPC side: services, conversion, errors on the wire, addresses."""

from __future__ import annotations

from leptond.server.front import Front, FrontOptions
from leptond.server.services import Role

__all__ = ["Front", "FrontOptions", "Role"]
