"""Translate and TranslateStream over a real channel, on tiny translators with recorded answers."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import pytest_asyncio

from leptond.v1 import common_pb2, management_pb2, translation_pb2, translation_pb2_grpc
from tests.fixtures.calls import details_of
from tests.fixtures.tiny_models.goldens import golden_options, golden_rows
from tests.fixtures.tiny_store import tiny_store

pytestmark = [pytest.mark.asyncio, pytest.mark.needs("import", "ctranslate2")]

PATIENCE = 50

OPTIONS = golden_options()
NUM_TOKENS, NUM_BEAMS = OPTIONS["max_new_tokens"], OPTIONS["num_beams"]
MODELS = ("marian", "nllb", "t5-gated", "embedder")
NEVER = translation_pb2.SENTENCE_SPLITTING_NEVER
ALWAYS = translation_pb2.SENTENCE_SPLITTING_ALWAYS
FIRST = "The man is eating food."
SECOND = "A woman rides the red horse in the city with two dogs, and it was very good!"
THIRD = "The cat sleeps."


@pytest_asyncio.fixture
async def served(start):
    async with start(store=tiny_store(*MODELS)) as running:
        yield running


def stub(served):
    return translation_pb2_grpc.TranslationServiceStub(served.channel())


def asked(model, *texts, kind=translation_pb2.TranslateRequest, prefix="", **fields):
    """A greedy request of as many tokens as were recorded, to the language that was recorded."""
    options = {"beam_size": 1, "max_tokens": NUM_TOKENS} | fields.pop("translation", {})
    if model == "nllb":
        fields = {"source_language": "eng_Latn", "target_language": "deu_Latn"} | fields
    return kind(
        model=model,
        inputs=[
            translation_pb2.TranslationInput(text=text, target_prefix=prefix) for text in texts
        ],
        translation=translation_pb2.TranslationOptions(**options),
        **fields,
    )


async def refusal_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    violations = details_of(caught.value).get("BadRequest")
    fields = [one.field for one in violations.field_violations] if violations else []
    return caught.value.code(), fields, caught.value.details()


def recorded(row, search):
    """Token ids of what was recorded, without the language that begins an NLLB answer."""
    num_prefix = len(row["target_prefix"])
    return [found["token_ids"][num_prefix:] for found in row[search]]


def target_of(row, model):
    """The language of a recorded row, by the id of its token."""
    return {"target_language": LANGUAGE_OF[row["target_prefix"][0]]} if model == "nllb" else {}


LANGUAGE_OF = {108: "eng_Latn", 109: "deu_Latn", 110: "fra_Latn"}
CASES = [
    (model, row)
    for model in ("marian", "nllb")
    for row in golden_rows(model)
    if row["text"].strip()
]


@pytest.mark.parametrize(("model", "row"), CASES)
async def test_the_greedy_translation_is_the_recorded_one(served, model, row):
    request = asked(model, row["text"], **target_of(row, model))
    answer = await stub(served).Translate(request)
    (translation,) = answer.translations
    (sentence,) = translation.sentences
    (best,) = sentence.alternatives
    assert list(best.token_ids) == recorded(row, "greedy")[0]
    assert translation.text == best.text
    assert answer.info.usage.completion_tokens == len(best.token_ids)
    assert answer.info.usage.prompt_tokens == len(row["token_ids"])


@pytest.mark.parametrize(("model", "row"), CASES)
async def test_beams_bring_the_recorded_alternatives_best_first(served, model, row):
    options = {"beam_size": NUM_BEAMS, "num_alternatives": OPTIONS["num_hypotheses"]}
    request = asked(model, row["text"], translation=options, **target_of(row, model))
    answer = await stub(served).Translate(request)
    alternatives = answer.translations[0].sentences[0].alternatives
    found = [tuple(one.token_ids) for one in alternatives]
    expected = [tuple(ids) for ids in recorded(row, "beam")]
    assert found[0] == expected[0]
    # The last ones are as good as others that were left out: engines differ.
    assert len(set(found)) == len(expected)
    assert len(set(found) & set(expected)) >= len(expected) - 1
    scores = [one.score for one in alternatives]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] < 0
    assert answer.translations[0].text == alternatives[0].text


async def test_a_prompt_says_the_languages_to_a_t5(served):
    answer = await stub(served).Translate(asked("t5-gated", "the cat sleeps"))
    assert (answer.source_language, answer.target_language) == ("en", "de")
    ids = answer.translations[0].sentences[0].alternatives[0].token_ids
    plain = await stub(served).Translate(
        asked("t5-gated", "the cat sleeps", source_language="en-GB", target_language="deu")
    )
    assert list(plain.translations[0].sentences[0].alternatives[0].token_ids) == list(ids)
    bare = await stub(served).Translate(asked("marian", "the cat sleeps"))
    assert answer.info.usage.prompt_tokens > bare.info.usage.prompt_tokens


@pytest.mark.parametrize(
    ("source", "target", "codes"),
    [
        ("eng_Latn", "deu_Latn", ("eng_Latn", "deu_Latn")),
        ("en", "de-AT", ("eng_Latn", "deu_Latn")),
        ("EN-us", "fr-Latn", ("eng_Latn", "fra_Latn")),
        ("fra", "ger", ("fra_Latn", "deu_Latn")),
    ],
)
async def test_languages_are_tags_or_the_models_own_codes(served, source, target, codes):
    request = asked("nllb", FIRST, source_language=source, target_language=target)
    answer = await stub(served).Translate(request)
    assert (answer.source_language, answer.target_language) == codes


async def test_the_languages_change_the_translation(served):
    requests = [
        asked("nllb", FIRST, source_language=source, target_language=target)
        for source, target in (("en", "de"), ("en", "fr"), ("fr", "de"))
    ]
    answers = [await stub(served).Translate(request) for request in requests]
    ids = {tuple(a.translations[0].sentences[0].alternatives[0].token_ids) for a in answers}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("model", "fields", "field", "said"),
    [
        ("nllb", {"source_language": ""}, "source_language", "is not set"),
        ("nllb", {"target_language": ""}, "target_language", "deu_Latn, eng_Latn, fra_Latn"),
        ("nllb", {"target_language": "ja"}, "target_language", "'ja' is not known"),
        ("nllb", {"source_language": "en-Cyrl"}, "source_language", "eng_Latn"),
        ("marian", {"target_language": "fr"}, "target_language", "has deu"),
        ("t5-gated", {"target_language": "fr"}, "target_language", "has de"),
        ("marian", {"inputs": []}, "inputs", "is empty"),
        ("marian", {"translation": {"beam_size": 0}}, "translation.beam_size", "from 1 to 32"),
        ("marian", {"translation": {"beam_size": 33}}, "translation.beam_size", "from 1 to 32"),
        (
            "marian",
            {"translation": {"beam_size": 2, "num_alternatives": 3}},
            "translation.num_alternatives",
            "from 1 to 2",
        ),
        (
            "marian",
            {"translation": {"length_penalty": float("nan")}},
            "translation.length_penalty",
            "nan",
        ),
        (
            "marian",
            {"translation": {"repetition_penalty": 0}},
            "translation.repetition_penalty",
            "0.01",
        ),
        ("marian", {"translation": {"max_tokens": 0}}, "translation.max_tokens", "from 1"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field(served, model, fields, field, said):
    texts = fields.pop("inputs") if "inputs" in fields else [FIRST]
    code, fields, message = await refusal_of(stub(served).Translate(asked(model, *texts, **fields)))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert said in message


@pytest.mark.parametrize(
    ("options", "field"),
    [({"alignments": True}, "translation.alignments"), ({"glossary": {"a": "b"}}, "glossary")],
)
async def test_what_is_not_built_is_refused_by_its_name(served, options, field):
    code, _, message = await refusal_of(
        stub(served).Translate(asked("marian", FIRST, translation=options))
    )
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert field in message


async def test_determinism_is_not_promised(served):
    options = common_pb2.RequestOptions(deterministic=True)
    code, _, message = await refusal_of(
        stub(served).Translate(asked("marian", FIRST, options=options))
    )
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert message.startswith("options.deterministic")


async def test_an_encoder_does_not_translate(served):
    code, _, message = await refusal_of(stub(served).Translate(asked("embedder", FIRST)))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "does embed" in message


async def test_a_text_without_content_fails_the_call_by_its_index(served):
    code, fields, _ = await refusal_of(stub(served).Translate(asked("marian", FIRST, " \n")))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs[1].text"])


async def test_a_text_that_is_too_long_is_refused_where_it_must_not_be_split(served):
    request = asked("marian", FIRST, f"{SECOND} " * 9, translation={"sentence_splitting": NEVER})
    code, fields, message = await refusal_of(stub(served).Translate(request))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs[1].text"])
    assert message.startswith("inputs[1].text has")
    assert "at most 64" in message


async def test_sentences_are_translated_each_by_itself_and_joined_as_they_stood(served):
    text = f"  {FIRST}\n\n{SECOND} {THIRD} "
    request = asked("marian", text, translation={"sentence_splitting": ALWAYS})
    (translation,) = (await stub(served).Translate(request)).translations
    alone = [await stub(served).Translate(asked("marian", one)) for one in (FIRST, SECOND, THIRD)]
    a, b, c = (answer.translations[0].text for answer in alone)
    assert translation.text == f"  {a}\n\n{b} {c} "
    data = text.encode()
    spans = [data[one.start_byte : one.end_byte].decode() for one in translation.sentences]
    assert spans == [FIRST, SECOND, THIRD]


async def test_spans_are_counted_in_bytes(served):
    text = "ä ö. Über é! Ende."
    request = asked("marian", text, translation={"sentence_splitting": ALWAYS})
    (translation,) = (await stub(served).Translate(request)).translations
    data = text.encode()
    spans = [data[one.start_byte : one.end_byte].decode() for one in translation.sentences]
    assert spans == ["ä ö.", "Über é!", "Ende."]


async def test_a_short_text_of_two_sentences_is_one_unless_it_must_be_split(served):
    (whole,) = (await stub(served).Translate(asked("marian", f"{FIRST} {THIRD}"))).translations
    assert len(whole.sentences) == 1
    (split,) = (await stub(served).Translate(asked("marian", f"{FIRST} {THIRD} " * 8))).translations
    assert len(split.sentences) == 16


async def test_nothing_of_an_endless_sentence_is_lost(served):
    text = ", ".join(["the cat sleeps in the red house with two dogs"] * 30)
    (translation,) = (await stub(served).Translate(asked("marian", text))).translations
    data = text.encode()
    spans = [(one.start_byte, one.end_byte) for one in translation.sentences]
    assert len(spans) > 2
    parts = [data[start:end].decode() for start, end in spans]
    assert " ".join(parts) == text
    assert all(part.endswith(",") for part in parts[:-1])


async def test_a_translation_begins_as_it_was_asked_to(served):
    free = (await stub(served).Translate(asked("marian", FIRST))).translations[0]
    request = asked("marian", FIRST, prefix="the cat")
    answer = (await stub(served).Translate(request)).translations[0]
    assert answer.text.startswith("the cat")
    assert answer.text != free.text
    beams = asked("marian", FIRST, prefix="the cat", translation={"beam_size": 4})
    assert (await stub(served).Translate(beams)).translations[0].text.startswith("the cat")


async def test_a_prefix_of_a_split_text_begins_its_first_sentence_only(served):
    options = {"sentence_splitting": ALWAYS}
    request = asked("marian", f"{FIRST} {SECOND}", prefix="the cat", translation=options)
    sentences = (await stub(served).Translate(request)).translations[0].sentences
    assert sentences[0].alternatives[0].text.startswith("the cat")
    alone = await stub(served).Translate(asked("marian", SECOND))
    assert sentences[1].alternatives[0].text == alone.translations[0].text


async def test_no_run_of_tokens_occurs_twice_where_that_is_asked(served):
    row = golden_rows("marian")[1]
    assert len(set(row["greedy"][0]["token_ids"])) < len(row["greedy"][0]["token_ids"])
    request = asked("marian", row["text"], translation={"no_repeat_ngram_size": 1})
    answer = await stub(served).Translate(request)
    ids = answer.translations[0].sentences[0].alternatives[0].token_ids
    assert len(set(ids)) == len(ids)


async def test_repetition_costs_what_was_asked(served):
    row = golden_rows("marian")[1]
    request = asked("marian", row["text"], translation={"repetition_penalty": 50.0})
    answer = await stub(served).Translate(request)
    ids = list(answer.translations[0].sentences[0].alternatives[0].token_ids)
    assert ids != recorded(row, "greedy")[0]
    assert len(set(ids)) > len(set(recorded(row, "greedy")[0]))


async def test_why_a_translation_ended(served):
    by_end, by_length = golden_rows("marian")[:2]
    answer = await stub(served).Translate(asked("marian", by_end["text"], by_length["text"]))
    reasons = [one.sentences[0].alternatives[0].finish_reason for one in answer.translations]
    assert reasons == [common_pb2.FINISH_REASON_STOP, common_pb2.FINISH_REASON_LENGTH]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a"] * 10_001, "inputs has 10001 entries; at most 10000"),
        (["a" * (1 << 20)], "more than 1048576 bytes"),
    ],
    ids=["texts", "bytes"],
)
async def test_what_one_call_may_bring_is_bounded(served, texts, said):
    code, fields, message = await refusal_of(stub(served).Translate(asked("marian", *texts)))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs"])
    assert said in message


async def test_the_sentences_of_one_call_are_bounded(served):
    together = asked("marian", *["A b. C d. " * 2_500] * 3)
    code, fields, message = await refusal_of(stub(served).Translate(together))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs"])
    assert "more than 10000 sentences" in message
    alone = asked("marian", FIRST, "A b. " * 10_001)
    code, fields, message = await refusal_of(stub(served).Translate(alone))
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs[1].text"])
    assert "more than 10000 sentences" in message


@pytest.mark.parametrize("beam_size", [1, NUM_BEAMS])
async def test_a_score_is_the_log_probability_by_the_length(served, beam_size):
    row = golden_rows("marian")[0]
    options = {"beam_size": beam_size, "length_penalty": 0.95, "num_alternatives": beam_size}
    answer = await stub(served).Translate(asked("marian", row["text"], translation=options))
    known = {tuple(one["token_ids"]): one["logprob"] for one in row["greedy"] + row["beam"]}
    found = answer.translations[0].sentences[0].alternatives
    scores = {ids: one.score for one in found if (ids := tuple(one.token_ids)) in known}
    assert scores
    expected = {ids: known[ids] / len(ids) ** 0.95 for ids in scores}
    assert scores == pytest.approx(expected, rel=1e-3)


async def test_many_texts_keep_their_order(served):
    texts = [" ".join(["cat"] * (n % 17 + 1)) for n in range(60)]
    answer = await stub(served).Translate(asked("marian", *texts))
    assert len(answer.translations) == 60
    again = await stub(served).Translate(asked("marian", *reversed(texts)))
    assert [one.text for one in reversed(again.translations)] == [
        one.text for one in answer.translations
    ]


async def test_a_loaded_model_says_its_languages(served):
    await stub(served).Translate(asked("nllb", FIRST))
    listed = await served.management().ListModels(management_pb2.ListModelsRequest(model="nllb"))
    capabilities = listed.models[0].variants[0].capabilities
    codes = ["deu_Latn", "eng_Latn", "fra_Latn"]
    assert list(capabilities.source_languages) == codes
    assert list(capabilities.target_languages) == codes


# ------------------------------------------------------------------------------------- streams
async def streamed(served, *arguments, **fields):
    request = asked(*arguments, kind=translation_pb2.TranslateStreamRequest, **fields)
    return [message async for message in stub(served).TranslateStream(request)]


@pytest.mark.parametrize("beam_size", [1, 4])
async def test_a_stream_tells_the_same_as_the_whole_answer(served, beam_size):
    texts = [f" {FIRST} {SECOND}\n\n{THIRD}", SECOND, f"{THIRD} {FIRST}"]
    options = {"beam_size": beam_size, "sentence_splitting": ALWAYS}
    whole = await stub(served).Translate(asked("marian", *texts, translation=options))
    messages = await streamed(served, "marian", *texts, translation=options)
    for index, translation in enumerate(whole.translations):
        mine = [message for message in messages if message.input_index == index]
        assert "".join(message.text for message in mine) == translation.text
        told = [message.sentence for message in mine if message.HasField("sentence")]
        assert told == list(translation.sentences)
        order = [message.sentence_index for message in mine]
        assert order == sorted(order)
        assert [message.is_last for message in mine] == [False] * (len(mine) - 1) + [True]
    assert [message.HasField("info") for message in messages] == [False] * (len(messages) - 1) + [
        True
    ]
    assert messages[-1].info.usage == whole.info.usage
    assert messages[-1].info.model == "marian:float32"


@pytest.mark.parametrize("beam_size", [1, 4])
async def test_a_stream_begins_as_it_was_asked_to(served, beam_size):
    """The second sentence, of another length, may be there before the first."""
    options = {"beam_size": beam_size, "sentence_splitting": ALWAYS}
    text = f"{SECOND} {THIRD}"
    whole = await stub(served).Translate(
        asked("marian", text, prefix="the cat", translation=options)
    )
    messages = await streamed(served, "marian", text, prefix="the cat", translation=options)
    assert "".join(message.text for message in messages) == whole.translations[0].text
    assert whole.translations[0].text.startswith("the cat")


async def test_without_beams_pieces_come_as_they_are_made(served):
    # What is made while the loop is busy leaves together, so one of several calls must do.
    messages: list[Any] = []
    for _ in range(PATIENCE):
        messages = await streamed(served, "marian", SECOND)
        if len(messages) > 2:
            break
    assert len(messages) > 2
    assert [message.HasField("sentence") for message in messages[:-1]] == [False] * (
        len(messages) - 1
    )


async def test_a_stream_that_is_refused_brings_nothing(served):
    request = asked("marian", "", kind=translation_pb2.TranslateStreamRequest)
    code, fields, _ = await refusal_of(stub(served).TranslateStream(request).read())
    assert (code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs[0].text"])


async def test_a_cancelled_stream_frees_the_engine(served):
    texts = [SECOND] * 200
    request = asked("marian", *texts, kind=translation_pb2.TranslateStreamRequest)
    call = stub(served).TranslateStream(request)
    await call.read()
    call.cancel()
    await stub(served).Translate(asked("marian", FIRST))
    (model,) = (one for one in served.models.loaded() if one.name.startswith("marian"))
    load = model.scheduler.load()
    assert (load.num_running, load.num_queued) == (0, 0)
