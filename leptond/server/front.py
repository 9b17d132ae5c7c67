"""The front of the daemon: every service on every address, and how it opens and closes.

On the event loop. Made and driven by `leptond.daemon`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pool
from grpc_channelz.v1 import channelz_pb2

from leptond.errors import InvalidRequest, ModelNotFound, ShuttingDown, SlowReader
from leptond.models import LoadPolicy, ModelRegistry
from leptond.server import health_messages
from leptond.server.batching import BatchCalls
from leptond.server.calls import CallRunner
from leptond.server.classification import ClassificationMethods
from leptond.server.convert.requests import RequestLimits
from leptond.server.embedding import EmbeddingMethods
from leptond.server.generation import GenerationMethods
from leptond.server.health import HealthService
from leptond.server.management import ManagementService
from leptond.server.reflection import SERVICES as REFLECTION_SERVICES
from leptond.server.reflection import ReflectionService
from leptond.server.reranking import RerankingMethods
from leptond.server.scoring import ScoringMethods
from leptond.server.services import Behaviour, Role, Service, generic_handlers
from leptond.server.tei import tei_services
from leptond.server.tokenization import TokenizationMethods
from leptond.server.translation import TranslationMethods
from leptond.server.transport import GrpcServer, TransportOptions
from leptond.streaming import BlockingPool, LoopBridge
from leptond.telemetry import Telemetry
from leptond.types import ModelState
from leptond.v1 import (
    classification_pb2,
    embedding_pb2,
    management_pb2,
    text_generation_service_pb2,
    translation_pb2,
)

__all__ = ["Front", "FrontOptions"]

_LOG = logging.getLogger(__name__)
_WATCH_INTERVAL_S = 1.0
_LAST_WORDS_S = 0.5  # for statuses to leave; health watches never end by themselves


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """Where and how the daemon listens.

    Attributes:
        public: addresses for everybody.
        admin: addresses that also answer administrative methods; may be the public ones.
        slow_reader_s: how long one message may wait to be read before its call is ended.
        limits: bounds of requests.
        transport: settings of connections.
    """

    public: tuple[str, ...]
    admin: tuple[str, ...] = ()
    slow_reader_s: float = 60.0
    limits: RequestLimits = field(default_factory=RequestLimits)
    transport: TransportOptions = field(default_factory=TransportOptions)


class Front:
    """Every service on every address."""

    def __init__(
        self,
        options: FrontOptions,
        *,
        models: ModelRegistry,
        policy: LoadPolicy,
        bridge: LoopBridge,
        pool: BlockingPool,
        telemetry: Telemetry,
    ) -> None:
        self._options = options
        self._models = models
        self._policy = policy
        self._runner = CallRunner(telemetry, options.transport.max_message_bytes)
        self._is_draining = False
        self._watchdog: asyncio.Task[None] | None = None
        management = ManagementService(
            models,
            bridge,
            pool,
            num_calls=lambda: len(self._runner.active),
            is_draining=lambda: self._is_draining,
        )
        self._services = _leptond_services(models, bridge, pool, options.limits, management)
        self.health = HealthService(
            [*(service.name for service in self._services), *STANDARD_SERVICES],
            self._model_health,
            models.names,
        )
        self._unwatch = models.watch(lambda name, state: bridge.post(self._on_state, name, state))
        self._servers = [
            self._server(Role.PUBLIC, [one for one in options.public if one not in options.admin]),
            self._server(Role.ADMIN, options.admin),
        ]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every bound address, public ones first, with real ports; once started."""
        return tuple(address for server in self._servers for address in server.addresses)

    @property
    def num_calls(self) -> int:
        """Calls that are open."""
        return len(self._runner.active)

    async def start(self) -> None:
        """Bind and serve. Health stays NOT_SERVING until `set_ready`."""
        for server in self._servers:
            await server.start()
        self._watchdog = asyncio.create_task(self._watch_readers(), name="slow-readers")

    def set_ready(self) -> None:
        """Everything that was to be loaded is: health says SERVING."""
        self.health.set_serving(is_serving=True)

    def drain(self) -> None:
        """Health says NOT_SERVING, new work is refused; what runs goes on."""
        self._is_draining = True
        self.health.set_serving(is_serving=False)
        self._models.drain()

    async def wait_idle(self) -> None:
        """Wait until no inference is running."""
        await self._runner.wait_idle()

    async def stop(self) -> None:
        """End what still runs with UNAVAILABLE and close every address."""
        self._unwatch()
        for call in self._runner.active:
            if call.is_work:
                call.fail(ShuttingDown("the daemon stopped before the answer had ended"))
        await asyncio.gather(*(server.stop(_LAST_WORDS_S) for server in self._servers))
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.gather(self._watchdog, return_exceptions=True)

    def _server(self, role: Role, addresses: Sequence[str]) -> GrpcServer:
        transport = self._options.transport
        services = self._services + _standard_services(self.health, self._services, role)
        return GrpcServer(
            generic_handlers(services, self._runner, role),
            addresses,
            transport,
            unix_mode=transport.admin_unix_mode if role is Role.ADMIN else transport.unix_mode,
            has_channelz=role is Role.ADMIN,
        )

    def _on_state(self, name: str, state: ModelState) -> None:
        _LOG.debug("model=%s state=%s", name, state)
        self.health.notify()

    def _model_health(self, name: str) -> bool | None:
        try:
            state = self._models.state(name)
        except (ModelNotFound, InvalidRequest):  # unknown, or not even a name
            return None
        if state is ModelState.FAILED:
            return False
        return state is ModelState.READY or self._policy is LoadPolicy.ON_DEMAND

    async def _watch_readers(self) -> None:
        """End calls whose reader has left a message unread for too long."""
        limit_s = self._options.slow_reader_s
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            now = time.monotonic()
            for call in self._runner.active:
                since = call.stream.with_writer_since if call.stream is not None else None
                if since is not None and now - since > limit_s:
                    msg = f"a message waited {limit_s:g} s to be read; its call was ended"
                    call.fail(SlowReader(msg))


STANDARD_SERVICES = (health_messages.SERVICE, *REFLECTION_SERVICES)


def _leptond_services(
    models: ModelRegistry,
    bridge: LoopBridge,
    pool: BlockingPool,
    limits: RequestLimits,
    management: ManagementService,
) -> list[Service]:
    generation = GenerationMethods(models, bridge, pool, limits)
    tokenization = TokenizationMethods(models, pool, limits)
    batches = BatchCalls(models, bridge, pool)
    embedding = EmbeddingMethods(batches)
    translation = TranslationMethods(batches)
    return [
        _service(
            text_generation_service_pb2,
            "TextGenerationService",
            {
                "Generate": generation.generate,
                "GenerateStream": generation.generate_stream,
                "Chat": generation.chat,
                "ChatStream": generation.chat_stream,
                "Tokenize": tokenization.tokenize,
                "Detokenize": tokenization.detokenize,
                "Score": ScoringMethods(models, batches, limits).score,
            },
        ),
        _service(
            classification_pb2,
            "ClassificationService",
            {
                "Classify": ClassificationMethods(batches).classify,
                "Rerank": RerankingMethods(batches).rerank,
            },
        ),
        _service(
            embedding_pb2,
            "EmbeddingService",
            {"Embed": embedding.embed, "EmbedStream": embedding.embed_stream},
        ),
        _service(
            translation_pb2,
            "TranslationService",
            {"Translate": translation.translate, "TranslateStream": translation.translate_stream},
        ),
        _service(
            management_pb2,
            "ManagementService",
            {
                "ListModels": management.list_models,
                "LoadModel": management.load_model,
                "UnloadModel": management.unload_model,
                "GetLoad": management.get_load,
            },
            admin_methods=frozenset({"LoadModel", "UnloadModel"}),
        ),
        *tei_services(batches),
    ]


def _service(
    file: Any,
    name: str,
    methods: Mapping[str, Behaviour],
    admin_methods: frozenset[str] = frozenset(),
) -> Service:
    """A service that a module of stubs describes."""
    return Service(file.DESCRIPTOR.services_by_name[name].full_name, methods, admin_methods)


def _standard_services(
    health: HealthService, others: Sequence[Service], role: Role
) -> list[Service]:
    """Health, and reflection on all that addresses of this role answer."""
    described = {
        service.name: descriptor_pool.Default() if service.pool is None else service.pool
        for service in others
    }
    described[health_messages.SERVICE] = health_messages.POOL
    if role is Role.ADMIN:
        channelz_name = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name
        described[channelz_name] = descriptor_pool.Default()
    reflection = ReflectionService(described)
    return [
        Service(
            health_messages.SERVICE,
            {"Check": health.check, "List": health.list, "Watch": health.watch},
            pool=health_messages.POOL,
        ),
        *(
            Service(name, {"ServerReflectionInfo": reflection.info}, pool=reflection.pool_of(name))
            for name in REFLECTION_SERVICES
        ),
    ]
