"""Health, reflection, management, roles of addresses."""

from __future__ import annotations

import asyncio
import stat

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from leptond.backend.fake import FakeOptions
from leptond.models import LoadPolicy
from leptond.v1 import common_pb2, management_pb2, model_pb2, tokenization_pb2
from leptond_client.health_messages import HealthListRequest, HealthListResponse
from tests.integration.server.test_generation import collect, raw

pytestmark = pytest.mark.asyncio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def health(served):
    return health_pb2_grpc.HealthStub(served.channel())


async def check(served, name):
    answer = await health(served).Check(health_pb2.HealthCheckRequest(service=name))
    return answer.status


@pytest.mark.parametrize(
    "name", ["", "leptond.v1.TextGenerationService", "leptond.v1.ManagementService", "toy",
             "toy:fake"],
)  # fmt: skip
async def test_every_name_is_healthy_once_the_daemon_is_ready(start, name):
    async with start(ready=False) as served:
        assert await check(served, name) == NOT_SERVING
        served.front.set_ready()
        assert await check(served, name) == SERVING
        served.front.drain()
        assert await check(served, name) == NOT_SERVING


async def test_a_name_that_nothing_has_is_not_found(served):
    for name in ("nothing", "toy:int4", "../x"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(served, name)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_failed_model_is_not_serving_and_the_daemon_is(start):
    async with start({"toy": FakeOptions(load_fails=1), "good": FakeOptions()}) as served:
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(served.text().GenerateStream(raw()))
        assert await check(served, "toy") == NOT_SERVING
        assert await check(served, "good") == SERVING
        assert await check(served, "") == SERVING


async def test_a_model_loaded_by_hand_serves_once_it_is(start):
    async with start(policy=LoadPolicy.MANUAL) as served:
        assert await check(served, "toy") == NOT_SERVING
        await collect(served.management().LoadModel(management_pb2.LoadModelRequest(model="toy")))
        assert await check(served, "toy") == SERVING


async def test_a_watcher_hears_of_every_change(start):
    async with start(policy=LoadPolicy.MANUAL) as served:
        watch = health(served).Watch(health_pb2.HealthCheckRequest(service="toy"))
        unknown = health(served).Watch(health_pb2.HealthCheckRequest(service="nothing"))
        assert (await anext(aiter(watch))).status == NOT_SERVING
        assert (await anext(aiter(unknown))).status == SERVICE_UNKNOWN
        served.models.load("toy")
        assert (await anext(aiter(watch))).status == SERVING
        served.front.drain()
        assert (await anext(aiter(watch))).status == NOT_SERVING
        watch.cancel()
        unknown.cancel()


async def test_the_list_has_every_name(served):
    method = served.channel().unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=HealthListRequest.SerializeToString,
        response_deserializer=HealthListResponse.FromString,
    )
    statuses = (await method(HealthListRequest())).statuses
    assert {"", "toy", "toy:fake", "leptond.v1.TextGenerationService"} <= set(statuses)


async def ask(served, version, **question):
    method = served.channel().stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = await collect(method(iter([reflection_pb2.ServerReflectionRequest(**question)])))
    return answer


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes_every_service(served, version):
    listed = await ask(served, version, list_services="")
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        "leptond.v1.TextGenerationService",
        "leptond.v1.ClassificationService",
        "leptond.v1.EmbeddingService",
        "leptond.v1.TranslationService",
        "tei.v1.Embed",
        "tei.v1.Info",
        "tei.v1.Predict",
        "tei.v1.Rerank",
        "tei.v1.Tokenize",
        "leptond.v1.ManagementService",
        "grpc.channelz.v1.Channelz",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for name in names:
        answer = await ask(served, version, file_containing_symbol=name)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(data)
            for data in answer.file_descriptor_response.file_descriptor_proto
        ]
        described = {f"{file.package}.{one.name}" for file in files for one in file.service}
        assert name in described
        known = {file.name for file in files}
        assert all(needed in known for file in files for needed in file.dependency)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_says_what_it_does_not_know(served, version):
    for question in (
        {"file_by_filename": "none.proto"},
        {"file_containing_symbol": "no.Thing"},
        {"all_extension_numbers_of_type": "no.Thing"},
        {"file_containing_extension": {"containing_type": "no.Thing", "extension_number": 1}},
    ):
        answer = await ask(served, version, **question)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_reflection_answers_by_file_and_by_extension(served):
    answer = await ask(served, "v1", file_by_filename="leptond/v1/common.proto")
    assert answer.file_descriptor_response.file_descriptor_proto
    answer = await ask(served, "v1", all_extension_numbers_of_type="leptond.v1.GenerateRequest")
    assert list(answer.all_extension_numbers_response.extension_number) == []


async def test_models_are_listed_with_state_and_capabilities(served):
    (model,) = (await served.management().ListModels(management_pb2.ListModelsRequest())).models
    assert (model.name, model.default_variant) == ("toy", "fake")
    (variant,) = model.variants
    assert variant.name == "toy:fake"
    assert variant.state == model_pb2.MODEL_STATE_AVAILABLE
    assert model_pb2.TASK_CHAT in variant.capabilities.tasks
    await collect(served.text().GenerateStream(raw()))
    request = management_pb2.ListModelsRequest(model="toy")
    (model,) = (await served.management().ListModels(request)).models
    assert model.variants[0].state == model_pb2.MODEL_STATE_READY
    assert model.variants[0].capabilities.continuous_batching
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.management().ListModels(management_pb2.ListModelsRequest(model="nothing"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_the_list_says_what_a_loaded_model_takes_and_where(start):
    async with start({"toy": FakeOptions(context=512)}) as served:
        await collect(served.text().GenerateStream(raw()))
        (model,) = (await served.management().ListModels(management_pb2.ListModelsRequest())).models
        assert model.description
        assert list(model.versions) == [1]
        (variant,) = model.variants
        assert variant.device == "cpu"
        assert variant.disk_bytes > 0
        assert variant.memory_bytes == served.budget.reserved_bytes
        assert variant.capabilities.max_context_tokens == 512


def of_model(name, max_tokens=12):
    request = raw()
    request.model = name
    request.sampling.max_tokens = max_tokens
    return request


async def test_memory_that_is_short_for_a_while_does_not_fail_a_model(start):
    big = FakeOptions(weights_bytes=300_000_000)
    slow = FakeOptions(weights_bytes=300_000_000, tokens_per_s=100, mean_sentences=0)
    async with start({"busy": slow, "other": big}, memory_bytes=600_000_000) as served:
        running = served.text().GenerateStream(of_model("busy", 1000))
        await anext(aiter(running))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(served.text().GenerateStream(of_model("other")))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await check(served, "other") == SERVING
        running.cancel()
        async with asyncio.timeout(10):
            while served.front.num_calls:
                await asyncio.sleep(0.01)
        await collect(served.text().GenerateStream(of_model("other")))


async def test_an_unload_of_a_version_that_is_not_there_is_not_found(served):
    await collect(served.text().GenerateStream(raw()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.management().UnloadModel(
            management_pb2.UnloadModelRequest(model="toy", model_version=9)
        )
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert served.models.loaded()


async def test_a_load_reports_its_progress_and_ends_ready(start):
    async with start({"toy": FakeOptions(load_s=0.2)}) as served:
        call = served.management().LoadModel(management_pb2.LoadModelRequest(model="toy"))
        messages = await collect(call)
        *progress, last = messages
        assert progress
        assert all(message.state == model_pb2.MODEL_STATE_LOADING for message in progress)
        fractions = [message.fraction for message in messages]
        assert fractions == sorted(fractions)
        assert (last.state, last.fraction) == (model_pb2.MODEL_STATE_READY, 1.0)
        assert last.variant.name == "toy:fake"
        again = await collect(
            served.management().LoadModel(management_pb2.LoadModelRequest(model="toy"))
        )
        assert again[-1].state == model_pb2.MODEL_STATE_READY


async def test_a_load_goes_on_when_its_caller_leaves(start):
    async with start({"toy": FakeOptions(load_s=0.3)}) as served:
        call = served.management().LoadModel(management_pb2.LoadModelRequest(model="toy"))
        await anext(aiter(call))
        call.cancel()
        async with asyncio.timeout(5):
            while not served.models.loaded():
                await asyncio.sleep(0.01)


async def test_an_unload_waits_for_running_calls_and_gives_memory_back(start):
    async with start({"toy": FakeOptions(tokens_per_s=300, mean_sentences=0)}) as served:
        running = asyncio.ensure_future(collect(served.text().GenerateStream(raw())))
        async with asyncio.timeout(5):
            while not (served.models.loaded() and served.model("toy").scheduler.load().num_running):
                await asyncio.sleep(0.005)
        request = management_pb2.UnloadModelRequest(model="toy")
        answer = await served.management().UnloadModel(request)
        assert running.done() or (await running)
        assert list(answer.models) == ["toy:fake"]
        assert answer.freed_bytes > 0
        assert served.budget.reserved_bytes == 0
        again = await served.management().UnloadModel(request)
        assert list(again.models) == []


async def test_the_load_report_counts(served):
    await collect(served.text().GenerateStream(raw()))
    answer = await served.management().GetLoad(management_pb2.GetLoadRequest())
    (load,) = answer.models
    assert load.model == "toy:fake"
    assert (load.num_running, load.num_queued) == (0, 0)
    assert load.num_slots == 16
    assert load.kv_capacity_tokens > 0
    assert answer.num_calls >= 1
    assert not answer.is_draining


async def test_administration_answers_on_administrative_addresses_only(start):
    async with start(admin_is_public=False) as served:
        request = management_pb2.LoadModelRequest(model="toy")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(served.management().LoadModel(request))
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.management().UnloadModel(management_pb2.UnloadModelRequest(model="toy"))
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        admin = f"unix:{served.directory / 'admin.sock'}"
        await collect(served.management(admin).LoadModel(request))
        await collect(served.text(admin).GenerateStream(raw()))  # it answers everything else too


async def test_connections_are_told_to_administrators_only(start):
    async with start(admin_is_public=False) as served:
        request = channelz_pb2.GetServersRequest()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channelz_pb2_grpc.ChannelzStub(served.channel()).GetServers(request)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        admin = served.channel(f"unix:{served.directory / 'admin.sock'}")
        answer = await channelz_pb2_grpc.ChannelzStub(admin).GetServers(request)
        assert answer.server


async def test_sockets_have_their_modes_and_go_when_the_front_stops(start):
    async with start(admin_is_public=False) as served:
        public, admin = served.directory / "leptond.sock", served.directory / "admin.sock"
        assert stat.S_IMODE(public.stat().st_mode) == 0o660
        assert stat.S_IMODE(admin.stat().st_mode) == 0o600
        assert {path.name for path in served.directory.iterdir() if path.is_socket()} == {
            "leptond.sock",
            "admin.sock",
        }
    assert not public.exists()
    assert not admin.exists()


async def test_a_socket_that_was_taken_over_is_left_alone(start):
    async with start() as served:
        public = served.directory / "leptond.sock"
        public.unlink()
        public.write_text("another's")
    assert public.read_text() == "another's"


async def test_texts_become_tokens_and_texts_again(served):
    stub = served.text()
    request = tokenization_pb2.TokenizeRequest(
        model="toy",
        inputs=[tokenization_pb2.TokenizeInput(text="Hé <|im_end|>")],
        details=True,
    )
    (parsed,) = (await stub.Tokenize(request)).results
    request.parse_special = False
    (plain,) = (await stub.Tokenize(request)).results
    assert len(parsed.token_ids) < len(plain.token_ids)
    assert b"".join(plain.token_bytes) == "Hé <|im_end|>".encode()
    assert plain.end_bytes[-1] == len("Hé <|im_end|>".encode())
    back = tokenization_pb2.DetokenizeRequest(
        model="toy", inputs=[common_pb2.TokenIds(ids=parsed.token_ids)], skip_special_tokens=False
    )
    (text,) = (await stub.Detokenize(back)).results
    assert text.text == "Hé <|im_end|>"
    back.skip_special_tokens = True
    (text,) = (await stub.Detokenize(back)).results
    assert (text.text, text.text_bytes) == ("Hé ", "Hé ".encode())


@pytest.mark.parametrize("method", ["Tokenize", "Detokenize"])
async def test_nothing_to_tokenise_is_refused(served, method):
    request = {
        "Tokenize": tokenization_pb2.TokenizeRequest,
        "Detokenize": tokenization_pb2.DetokenizeRequest,
    }[method](model="toy")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(served.text(), method)(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
