"""Models, load and health."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "DaemonLoad",
    "LoadProgress",
    "Model",
    "ModelLoad",
    "ModelState",
    "ModelVariant",
    "ServingStatus",
    "UnloadedModels",
]


class ModelState(StrEnum):
    """Whether a variant is loaded. AVAILABLE: on disk only. READY: it answers."""

    UNSPECIFIED = "unspecified"
    AVAILABLE = "available"
    WAITING = "waiting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelVariant:
    """A precision of a model on an engine: what can be loaded and asked.

    Attributes:
        name: as "model:variant", the name that requests use.
        version: its version.
        is_default: whether the model's name alone stands for it.
        precision: the format of its weights, such as "int8".
        quantization: how its weights were made smaller; may be empty.
        backend: the engine that runs it.
        architecture: the family of its architecture, such as "llama".
        tasks: what it is for, such as "generate" and "chat".
        max_context_tokens: the most tokens of prompt and answer together; 0 is no bound.
        state: whether it is loaded.
        state_reason: why it is in this state; may be empty.
        device: where it is loaded; may be empty.
        disk_bytes: size of its files; 0 when not known.
        memory_bytes: memory that it holds or is expected to need; 0 when not known.
    """

    name: str
    version: int
    is_default: bool
    precision: str
    quantization: str
    backend: str
    architecture: str
    tasks: tuple[str, ...]
    max_context_tokens: int
    state: ModelState
    state_reason: str
    device: str
    disk_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model in the daemon's store, with all its variants."""

    name: str
    default_variant: str
    versions: tuple[int, ...]
    variants: tuple[ModelVariant, ...]
    description: str
    license: str
    source: str

    @property
    def default(self) -> ModelVariant | None:
        """The variant that the model's name alone stands for, of the newest version."""
        return next((one for one in self.variants if one.is_default), None)


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is.

    Attributes:
        model: as "model:variant".
        state: LOADING, and at the end READY.
        stage: what is being done, in a few words.
        fraction: how much of the whole is done, from 0 to 1.
        loaded_bytes: bytes of weights in memory so far.
        total_bytes: bytes of weights in all; 0 when not known.
        elapsed_ms: milliseconds since the load began.
    """

    model: str
    state: ModelState
    stage: str
    fraction: float
    loaded_bytes: int
    total_bytes: int
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class UnloadedModels:
    """Which variants were unloaded, and how many bytes of memory that gave back."""

    models: tuple[str, ...]
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """How busy one loaded model is.

    Attributes:
        model: as "model:variant".
        num_queued: requests that wait.
        max_queued: the most that may.
        num_running: requests that run.
        num_slots: the most that run at once.
        kv_used_tokens: tokens whose keys and values are held.
        kv_capacity_tokens: tokens that there is room for.
        completion_tokens_per_second: tokens sampled per second of late.
        expected_queue_ms: how long a request arriving now is expected to wait.
    """

    model: str
    num_queued: int
    max_queued: int
    num_running: int
    num_slots: int
    kv_used_tokens: int
    kv_capacity_tokens: int
    completion_tokens_per_second: float
    expected_queue_ms: float


@dataclass(frozen=True, slots=True)
class DaemonLoad:
    """How busy the daemon is.

    Attributes:
        models: loaded models.
        num_calls: calls that are open.
        is_draining: whether it takes no new calls.
        uptime_s: seconds since it started.
    """

    models: tuple[ModelLoad, ...]
    num_calls: int
    is_draining: bool
    uptime_s: float


class ServingStatus(StrEnum):
    """Health of the daemon, a service or a model, as `grpc.health.v1` says it."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"
