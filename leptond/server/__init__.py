"""The gRPC side: services, conversion, errors on the wire, addresses."""

from __future__ import annotations

from leptond.server.convert.requests import RequestLimits
from leptond.server.front import Front, FrontOptions
from leptond.server.services import Role
from leptond.server.transport import TransportOptions

__all__ = ["Front", "FrontOptions", "RequestLimits", "Role", "TransportOptions"]
