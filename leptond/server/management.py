"""`leptond.v1.ManagementService`: models coming and going, and how busy they are.

On the event loop. `LoadModel` and `UnloadModel` answer on administrative addresses only; which
method is which is said in `leptond.server.services`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from leptond.checkpoint import EncoderDefaults, Seq2SeqDefaults
from leptond.errors import ModelNotFound
from leptond.models import ModelRegistry, ServedModel
from leptond.server.calls import Call
from leptond.server.convert.supported import refuse_unsupported
from leptond.streaming import BlockingPool, LoopBridge, wait_future
from leptond.text.translator_input import known_languages
from leptond.types import ModelDescription, ModelState, Task
from leptond.v1 import management_pb2, model_pb2

__all__ = ["ManagementService"]

_STATES = {
    ModelState.AVAILABLE: model_pb2.MODEL_STATE_AVAILABLE,
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.READY: model_pb2.MODEL_STATE_READY,
    ModelState.UNLOADING: model_pb2.MODEL_STATE_UNLOADING,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}
_TASKS = {
    Task.GENERATE: model_pb2.TASK_GENERATE,
    Task.CHAT: model_pb2.TASK_CHAT,
    Task.EMBED: model_pb2.TASK_EMBED,
    Task.CLASSIFY: model_pb2.TASK_CLASSIFY,
    Task.RERANK: model_pb2.TASK_RERANK,
    Task.TRANSLATE: model_pb2.TASK_TRANSLATE,
    Task.SCORE: model_pb2.TASK_SCORE,
    Task.INFER: model_pb2.TASK_TENSOR,
}


class ManagementService:
    """The methods, by their names in snake case.

    Args:
        models: the models.
        bridge: brings a load's progress from its thread to the loop.
        pool: threads for reading the store.
        num_calls: how many calls are open.
        is_draining: whether the daemon takes no new calls.
    """

    def __init__(
        self,
        models: ModelRegistry,
        bridge: LoopBridge,
        pool: BlockingPool,
        *,
        num_calls: Callable[[], int],
        is_draining: Callable[[], bool],
    ) -> None:
        self._models = models
        self._bridge = bridge
        self._pool = pool
        self._num_calls = num_calls
        self._is_draining = is_draining
        self._started = time.monotonic()

    async def list_models(
        self, request: management_pb2.ListModelsRequest, call: Call
    ) -> management_pb2.ListModelsResponse:
        """The models of the store, looked at again."""
        refuse_unsupported(request)
        found = await self._pool.run(self._models.describe_all)
        chosen = [one for one in found if request.model in ("", one.model, one.name)]
        if request.model and not chosen:
            raise ModelNotFound(f"no model {request.model!r} in the store", field="model")
        await call.commit()
        loaded = {model.name: model for model in self._models.loaded()}
        return management_pb2.ListModelsResponse(models=_by_model(chosen, loaded))

    async def load_model(self, request: management_pb2.LoadModelRequest, call: Call) -> None:
        """Load a model; a message per stage, and one when it is ready."""
        refuse_unsupported(request)
        described = await self._pool.run(self._models.describe, request.model)
        if request.model_version not in (0, described.version):
            msg = f"model {described.name} has version {described.version} only"
            raise ModelNotFound(msg, field="model_version")
        progress: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        load = self._models.load(
            described.name,
            lambda stage, fraction: self._bridge.post(progress.put_nowait, (stage, fraction)),
        )
        await call.commit()
        loaded = asyncio.ensure_future(wait_future(load))
        try:
            await self._report(described, progress, loaded, call)
            model = await loaded
        finally:
            loaded.cancel()
        ready = self._message(described, call, "ready", 1.0)
        ready.state = model_pb2.MODEL_STATE_READY
        described = await self._pool.run(self._models.describe, model.name)
        ready.variant.CopyFrom(_variant(described, model))
        await call.write(ready)

    async def unload_model(
        self, request: management_pb2.UnloadModelRequest, call: Call
    ) -> management_pb2.UnloadModelResponse:
        """Unload one variant, or all of a model, once their calls are done."""
        refuse_unsupported(request)
        described = await self._pool.run(self._models.describe, request.model)
        meant = [
            model
            for model in self._models.loaded()
            if request.model in (model.name, model.variant.model)
        ]
        versions = {described.version, *(model.variant.version for model in meant)}
        if request.model_version not in (0, *versions):
            msg = f"model {request.model} has no version {request.model_version}"
            raise ModelNotFound(msg, field="model_version")
        going = [one for one in meant if request.model_version in (0, one.variant.version)]
        freed = sum(model.reserved_bytes for model in going)
        await call.commit()
        for model in going:
            await wait_future(self._models.unload(model.name))
        names = [model.name for model in going]
        return management_pb2.UnloadModelResponse(models=names, freed_bytes=freed)

    async def get_load(
        self, request: management_pb2.GetLoadRequest, call: Call
    ) -> management_pb2.GetLoadResponse:
        """How busy each loaded model is."""
        refuse_unsupported(request)
        names = {self._models.full_name(request.model)} if request.model else set()
        await call.commit()
        return management_pb2.GetLoadResponse(
            models=[
                _load(model)
                for model in self._models.loaded()
                if not request.model or model.name in names
            ],
            num_calls=self._num_calls(),
            is_draining=self._is_draining(),
            uptime_ms=int((time.monotonic() - self._started) * 1000),
        )

    async def _report(
        self,
        described: ModelDescription,
        progress: asyncio.Queue[tuple[str, float]],
        loaded: asyncio.Future[ServedModel],
        call: Call,
    ) -> None:
        """Send what the load tells, until it has ended."""
        while not loaded.done():
            news = asyncio.ensure_future(progress.get())
            try:
                either: set[asyncio.Future[Any]] = {news, loaded}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not news.done():
                    news.cancel()
            if news.done() and not news.cancelled():
                stage, fraction = news.result()
                await call.write(self._message(described, call, stage, fraction))

    @staticmethod
    def _message(
        described: ModelDescription, call: Call, stage: str, fraction: float
    ) -> management_pb2.LoadModelResponse:
        return management_pb2.LoadModelResponse(
            model=described.name,
            model_version=described.version,
            state=model_pb2.MODEL_STATE_LOADING,
            stage=stage,
            fraction=fraction,
            elapsed_ms=(time.monotonic() - call.started) * 1000,
        )


def _by_model(
    found: Iterable[ModelDescription], loaded: Mapping[str, ServedModel]
) -> list[model_pb2.Model]:
    models: dict[str, model_pb2.Model] = {}
    for one in sorted(found, key=lambda one: (one.model, not one.is_default, one.name)):
        model = models.get(one.model)
        if model is None:
            model = models[one.model] = model_pb2.Model(
                name=one.model,
                description=str(one.metadata.get("title", "")),
                license=str(one.metadata.get("licence", "")),
                source=str(one.metadata.get("source", "")),
            )
        if one.version not in model.versions:
            model.versions[:] = sorted({*model.versions, one.version}, reverse=True)
        if one.is_default:
            model.default_variant = one.variant
        model.variants.append(_variant(one, loaded.get(one.name)))
    return list(models.values())


def _variant(one: ModelDescription, loaded: ServedModel | None) -> model_pb2.ModelVariant:
    is_generative = Task.GENERATE in one.tasks
    capabilities = model_pb2.ModelCapabilities(
        tasks=[_TASKS[task] for task in sorted(one.tasks)],
        max_context_tokens=one.max_context_tokens,
        stream=is_generative,
        logprobs=is_generative,
        content_kinds=["text"] if is_generative else [],
    )
    if is_generative:
        capabilities.tasks.append(model_pb2.TASK_TOKENIZE)
    if loaded is not None:
        capabilities.continuous_batching = loaded.capabilities.max_slots > 0
        capabilities.deterministic = loaded.capabilities.is_deterministic
        capabilities.max_batch_size = loaded.scheduler.load().max_running
        capabilities.vocabulary_size = loaded.capabilities.vocab_size
        capabilities.devices.extend(loaded.capabilities.devices)
        _add_encoder_facts(capabilities, loaded)
    return model_pb2.ModelVariant(
        name=one.name,
        version=one.version,
        is_default=one.is_default,
        precision=one.precision,
        quantization=str(one.metadata.get("quantization", "")),
        backend=one.backend,
        architecture=str(one.metadata.get("architecture", "")),
        capabilities=capabilities,
        state=_STATES[one.state],
        state_reason=one.state_reason,
        device=loaded.device if loaded is not None else "",
        disk_bytes=int(one.metadata.get("disk_bytes", 0)),
        memory_bytes=one.estimated_bytes,
    )


def _add_encoder_facts(capabilities: model_pb2.ModelCapabilities, loaded: ServedModel) -> None:
    if loaded.text.encoder is None:
        return
    defaults = loaded.text.encoder.defaults
    capabilities.max_input_tokens = min(defaults.max_tokens, loaded.max_context_tokens)
    capabilities.prompt_names.extend(sorted(defaults.prompts))
    if isinstance(defaults, EncoderDefaults):
        capabilities.labels.extend(defaults.labels)
        if Task.EMBED in loaded.capabilities.tasks:
            capabilities.embedding_dimensions = defaults.dimensions
    if isinstance(defaults, Seq2SeqDefaults):
        sources, targets = known_languages(defaults)
        capabilities.source_languages.extend(sources)
        capabilities.target_languages.extend(targets)


def _load(model: ServedModel) -> management_pb2.ModelLoad:
    load = model.scheduler.load()
    return management_pb2.ModelLoad(
        model=model.name,
        model_version=model.variant.version,
        num_queued=load.num_queued,
        max_queued=load.max_queued,
        queued_tokens=load.num_queued_tokens,
        num_running=load.num_running,
        num_slots_used=load.num_running,
        num_slots=load.max_running,
        kv_used_tokens=load.kv_tokens,
        kv_capacity_tokens=load.max_kv_tokens,
        completion_tokens_per_second=load.tokens_per_s,
    )
