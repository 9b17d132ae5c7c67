"""`tei.v1`, the API of text-embeddings-inference: another server's wire format on our models."""

from __future__ import annotations

from leptond.server.tei.service import tei_services

__all__ = ["tei_services"]
