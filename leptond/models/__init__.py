"""Models on disk and in memory: store, import, life cycle, leases."""

from __future__ import annotations

from leptond.models.lifecycle import ModelLease
from leptond.models.names import ModelName
from leptond.models.registry import LoadPolicy, ModelRegistry
from leptond.models.serving import LoaderOptions, LoadPlan, ModelLoader, ModelSizes, ServedModel
from leptond.models.store import Store, StoredModel, StoredVariant

__all__ = [
    "LoadPlan",
    "LoadPolicy",
    "LoaderOptions",
    "ModelLease",
    "ModelLoader",
    "ModelName",
    "ModelRegistry",
    "ModelSizes",
    "ServedModel",
    "Store",
    "StoredModel",
    "StoredVariant",
]
