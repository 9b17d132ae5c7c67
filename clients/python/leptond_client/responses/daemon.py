"""Models, load and health."""

from __future__ import annotations

from typing import Any

from leptond.v1 import management_pb2, model_pb2
from leptond_client import values
from leptond_client.health_messages import STATUSES
from leptond_client.responses.wire import cut_short, enum_name, enum_value, same_fields

__all__ = [
    "LoadFold",
    "StatusFold",
    "daemon_load",
    "health_report",
    "models",
    "serving_status",
    "unloaded",
]


class LoadFold:
    """How far a load is, and what was loaded."""

    def __init__(self) -> None:
        self._variant: model_pb2.ModelVariant | None = None

    def add(self, message: management_pb2.LoadModelResponse) -> values.LoadProgress:
        """The progress in one message."""
        if message.HasField("variant"):
            self._variant = message.variant
        return values.LoadProgress(
            model=message.model,
            state=_model_state(message.state),
            stage=message.stage,
            fraction=message.fraction,
            loaded_bytes=message.loaded_bytes,
            total_bytes=message.total_bytes,
            elapsed_ms=message.elapsed_ms,
        )

    def final(self) -> values.ModelVariant:
        """The variant that is ready."""
        if self._variant is None:
            raise cut_short()
        return _variant(self._variant)


def models(response: management_pb2.ListModelsResponse) -> tuple[values.Model, ...]:
    """The models of the store."""
    return tuple(
        values.Model(
            name=wire.name,
            default_variant=wire.default_variant,
            versions=tuple(wire.versions),
            variants=tuple(map(_variant, wire.variants)),
            description=wire.description,
            license=wire.license,
            source=wire.source,
        )
        for wire in response.models
    )


def unloaded(response: management_pb2.UnloadModelResponse) -> values.UnloadedModels:
    """What was unloaded."""
    return values.UnloadedModels(tuple(response.models), response.freed_bytes)


def daemon_load(response: management_pb2.GetLoadResponse) -> values.DaemonLoad:
    """How busy the daemon is."""
    return values.DaemonLoad(
        models=tuple(same_fields(values.ModelLoad, wire) for wire in response.models),
        num_calls=response.num_calls,
        is_draining=response.is_draining,
        uptime_s=response.uptime_ms / 1000,
    )


def _variant(wire: model_pb2.ModelVariant) -> values.ModelVariant:
    return values.ModelVariant(
        name=wire.name,
        version=wire.version,
        is_default=wire.is_default,
        precision=wire.precision,
        quantization=wire.quantization,
        backend=wire.backend,
        architecture=wire.architecture,
        tasks=tuple(_task(number) for number in wire.capabilities.tasks),
        max_context_tokens=wire.capabilities.max_context_tokens,
        state=_model_state(wire.state),
        state_reason=wire.state_reason,
        device=wire.device,
        disk_bytes=wire.disk_bytes,
        memory_bytes=wire.memory_bytes,
    )


def _model_state(number: int) -> values.ModelState:
    return enum_value(values.ModelState, model_pb2.ModelState, "MODEL_STATE_", number)


def _task(number: int) -> str:
    return enum_name(model_pb2.Task, "TASK_", number) or str(number)


class StatusFold:
    """Health as it changes. A watch has no end of its own."""

    def add(self, message: Any) -> values.ServingStatus:
        """The status in one message."""
        return serving_status(message)

    def final(self) -> None:
        """Nothing."""


def serving_status(response: Any) -> values.ServingStatus:
    """The status that a HealthCheckResponse holds."""
    return STATUSES.get(response.status, values.ServingStatus.UNKNOWN)


def health_report(response: Any) -> dict[str, values.ServingStatus]:
    """The statuses in a HealthListResponse, by name."""
    return {name: serving_status(status) for name, status in response.statuses.items()}
