"""Keyword arguments about many texts become requests, and answers become values."""

from __future__ import annotations

from typing import Any, cast

import pytest
from google.rpc import code_pb2, status_pb2

from leptond.v1 import (
    classification_pb2,
    common_pb2,
    embedding_pb2,
    input_error_pb2,
    scoring_pb2,
    translation_pb2,
)
from leptond_client import (
    InternalError,
    InvalidRequest,
    LabelScore,
    Message,
    RankedDocument,
    ScoreInput,
    batch_calls,
    calls,
    options,
    responses,
)
from leptond_client.bulk import Bulk

INFO = common_pb2.ResponseInfo(model="toy:fake", usage=common_pb2.Usage(prompt_tokens=7))


def requested(call: calls.UnaryCall[Any] | calls.StreamCall[Any, Any]) -> Any:
    """Return the request of a call, of the type that the test knows."""
    return call.request


# -------------------------------------------------------------------------------------- requests
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (options.VectorOptions, embedding_pb2.EmbedOptions),
        (options.TranslationOptions, translation_pb2.TranslationOptions),
    ],
)
def test_every_option_is_a_field_of_the_api(given, message):
    assert set(given.__annotations__) <= set(message.DESCRIPTOR.fields_by_name)


def test_every_option_of_embed_finds_its_place():
    given: options.EmbedOptions = {
        "model_version": 3,
        "request_id": "label",
        "normalize": False,
        "prompt_name": "query",
        "dimensions": 64,
        "element_type": "int8",
        "pooling": "last_token",
        "truncate": "left",
        "truncate_to_tokens": 8,
    }
    expected = embedding_pb2.EmbedRequest(
        model="toy", model_version=3, options=common_pb2.RequestOptions(request_id="label")
    )
    expected.texts.extend(["a", "b"])
    expected.embedding.normalize = False
    expected.embedding.prompt_name = "query"
    expected.embedding.dimensions = 64
    expected.embedding.element_type = embedding_pb2.ELEMENT_TYPE_INT8
    expected.embedding.pooling = embedding_pb2.POOLING_LAST_TOKEN
    expected.embedding.truncation.side = common_pb2.TRUNCATION_SIDE_LEFT
    expected.embedding.truncation.max_tokens = 8
    assert requested(batch_calls.embed("toy", ["a", "b"], given)) == expected


def test_a_text_stands_for_a_list_of_one():
    assert requested(batch_calls.embed("toy", "abc", {})).texts == ["abc"]


def test_texts_can_be_tokens():
    request = requested(batch_calls.embed("toy", [[1, 2], [3]], {}))
    assert [list(one.ids) for one in request.token_ids] == [[1, 2], [3]]


def test_permission_to_cut_needs_no_side():
    request = requested(batch_calls.embed("toy", "a", {"truncate": True}))
    assert request.embedding.HasField("truncation")
    assert not requested(batch_calls.embed("toy", "a", {})).embedding.HasField("truncation")


@pytest.mark.parametrize(
    ("texts", "given", "field"),
    [
        (["a", "\udcff"], {}, "texts[1]"),
        (["a"], {"element_type": "int4"}, "embedding.element_type"),
        (["a"], {"element_type": "unspecified"}, "embedding.element_type"),
        (["a"], {"dimensions": -1}, "embedding.dimensions"),
        (["a"], {"truncate_to_tokens": 3}, "embedding.truncation.max_tokens"),
        ([[-1]], {}, "token_ids[0].ids"),
    ],
)
def test_what_no_message_can_hold_is_named(texts, given, field):
    with pytest.raises(InvalidRequest) as caught:
        batch_calls.embed("toy", texts, given)
    assert caught.value.field == field


def test_an_option_that_does_not_exist_is_a_type_error():
    with pytest.raises(TypeError, match="no such option: top_k"):
        batch_calls.embed("toy", "a", cast(options.EmbedOptions, {"top_k": 1}))


def test_pairs_and_labels_find_their_place():
    given: options.ClassifyOptions = {"labels": ["x", "y"], "top_k": 1, "multi_label": True}
    request = requested(batch_calls.classify("toy", ["a", ("b", "c"), [5]], given))
    expected = classification_pb2.ClassifyRequest(
        model="toy", labels=["x", "y"], top_k=1, multi_label=True
    )
    expected.inputs.add(text="a")
    expected.inputs.add(text="b", text_pair="c")
    expected.inputs.add().token_ids.ids.append(5)
    assert request == expected


def test_a_query_and_documents_find_their_place():
    given: options.RerankOptions = {"top_n": 2, "method": "embedding_similarity"}
    request = requested(batch_calls.rerank("toy", "q", ["a", "b"], given))
    assert (request.query, list(request.documents), request.top_n) == ("q", ["a", "b"], 2)
    assert request.method == classification_pb2.RERANK_METHOD_EMBEDDING_SIMILARITY


def test_prefixes_are_one_for_all_or_one_each():
    same = requested(batch_calls.translate("toy", ["a", "b"], {"target_prefix": "p"}))
    own = requested(batch_calls.translate("toy", ["a", "b"], {"target_prefix": ["p", "q"]}))
    assert [one.target_prefix for one in same.inputs] == ["p", "p"]
    assert [one.target_prefix for one in own.inputs] == ["p", "q"]
    with pytest.raises(InvalidRequest, match="1 entries for 2 texts"):
        batch_calls.translate("toy", ["a", "b"], {"target_prefix": ["p"]})


def test_translations_are_asked_for_alike_whole_and_streamed():
    given: options.TranslateOptions = {
        "source_language": "de",
        "target_language": "en",
        "beam_size": 4,
        "sentence_splitting": "always",
    }
    whole = requested(batch_calls.translate("toy", ["a"], given))
    streamed = requested(batch_calls.translate_stream("toy", ["a"], given))
    assert whole.translation.sentence_splitting == translation_pb2.SENTENCE_SPLITTING_ALWAYS
    assert whole.translation.beam_size == 4
    assert streamed.SerializeToString() == whole.SerializeToString()


def test_scores_follow_a_prompt_or_a_conversation():
    inputs: list[str | ScoreInput] = [
        "alone",
        ScoreInput("after", "before"),
        ScoreInput([4], [1, 2]),
        ScoreInput("yes", messages=(Message("user", "Is it?"),)),
    ]
    request = requested(batch_calls.score("toy", inputs, {"top_logprobs": 2}))
    alone, text, tokens, chat = request.inputs
    assert (alone.text, alone.WhichOneof("context")) == ("alone", None)
    assert (text.prompt.text, text.text) == ("before", "after")
    assert (list(tokens.prompt.token_ids.ids), list(tokens.token_ids.ids)) == ([1, 2], [4])
    assert chat.chat.messages[0].content[0].text == "Is it?"
    both = ScoreInput("a", prompt="b", messages=(Message("user", "c"),))
    with pytest.raises(InvalidRequest, match="exclude each other"):
        batch_calls.score("toy", [both], {})


# --------------------------------------------------------------------------------------- answers
def test_labels_become_values():
    wire = classification_pb2.ClassifyResponse(
        method=classification_pb2.CLASSIFICATION_METHOD_HEAD, info=INFO
    )
    wire.results.add(truncated_tokens=3).labels.add(label="good", score=0.75)
    found = responses.classifications(wire)
    assert found.results[0].best == LabelScore("good", 0.75)
    assert (found.results[0].truncated_tokens, found.method) == (3, "head")
    assert (found.info.model, found.info.usage.prompt_tokens) == ("toy:fake", 7)


def test_ranks_and_scores_become_values():
    ranks = classification_pb2.RerankResponse(method=classification_pb2.RERANK_METHOD_CROSS_ENCODER)
    ranks.results.add(index=1, score=0.5, document="b")
    found = responses.ranking(ranks)
    assert (found.method, found.results) == ("cross_encoder", (RankedDocument(1, 0.5, "b"),))
    scores = scoring_pb2.ScoreResponse()
    result = scores.results.add(logprob=-3.0, num_tokens=1)
    result.tokens.token_ids.append(9)
    result.tokens.token_bytes.append(b"x")
    result.tokens.logprobs.append(-3.0)
    (score,) = responses.scores(scores).results
    assert (score.logprob, score.num_tokens, score.tokens[0].token) == (-3.0, 1, b"x")


def test_pieces_of_translations_become_whole_ones():
    fold = responses.TranslationFold()
    sentence = translation_pb2.TranslatedSentence(start_byte=0, end_byte=3)
    sentence.alternatives.add(text="Hi", score=-1.0)
    make = translation_pb2.TranslateStreamResponse
    pieces = [
        fold.add(make(input_index=1, text="B", is_last=True)),
        fold.add(make(input_index=0, text="Hi", sentence=sentence)),
        fold.add(make(input_index=0, sentence_index=1, text=" there", is_last=True)),
        fold.add(make(info=INFO)),
    ]
    assert [piece.text for piece in pieces if piece] == ["B", "Hi", " there"]
    whole = fold.final()
    assert [one.text for one in whole.results] == ["Hi there", "B"]
    assert whole.results[0].sentences[0].alternatives[0].text == "Hi"


def test_pieces_without_an_end_are_cut_short():
    with pytest.raises(InternalError, match="without its final message"):
        responses.TranslationFold().final()


# ------------------------------------------------------------------------------------------ bulk
def sent(bulk: Bulk) -> list[list[str]]:
    found = []
    while (request := bulk.next_request()) is not None:
        found.append(list(request.texts))
    return found


def answer(batch_id: int, num_vectors: int, **fields) -> embedding_pb2.EmbedStreamResponse:
    batch = embedding_pb2.EmbeddingBatch(num_vectors=num_vectors)
    return embedding_pb2.EmbedStreamResponse(batch_id=batch_id, embeddings=batch, **fields)


def test_batches_are_sent_only_as_far_as_answers_come():
    taken: list[str] = []

    def read():
        for text in map(str, range(9)):
            taken.append(text)
            yield text

    texts = read()
    bulk = Bulk("toy", texts, {"batch_size": 2, "max_batches_in_flight": 2})
    assert sent(bulk) == [["0", "1"], ["2", "3"]]
    assert len(taken) == 5  # one further, to know that a batch is whole
    assert bulk.add(answer(0, 2)).first_index == 0
    assert sent(bulk) == [["4", "5"]]
    assert not bulk.is_exhausted


def test_the_first_batch_holds_the_setup_and_only_it():
    bulk = Bulk("toy", ["a", "b"], {"batch_size": 1, "normalize": True})
    first, second = bulk.next_request(), bulk.next_request()
    assert (first.setup.model, first.setup.embedding.normalize) == ("toy", True)
    assert not second.HasField("setup")
    assert bulk.unanswered() == (first, second)


def test_long_texts_make_small_batches():
    bulk = Bulk("toy", ["x" * 200_000] * 3, {})
    assert [len(texts) for texts in sent(bulk)] == [1, 1, 1]


def test_texts_and_tokens_do_not_share_a_batch():
    bulk = Bulk("toy", ["a", [1], [2], "b"], {})
    assert sent(bulk) == [["a"], [], ["b"]]


def test_errors_are_of_their_place_in_the_whole_stream():
    bulk = Bulk("toy", ["a", "b", "c"], {"batch_size": 2})
    assert len(sent(bulk)) == 2
    bulk.add(answer(0, 2))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="too long")
    error = input_error_pb2.InputError(index=0, status=status)
    batch = bulk.add(answer(1, 1, errors=[error]))
    assert isinstance(batch.errors[2], InvalidRequest)
    assert str(batch.errors[2]) == "too long"
    assert bulk.add(embedding_pb2.EmbedStreamResponse(info=INFO)) is None
    summary = bulk.final()
    assert (summary.num_texts, summary.num_errors, summary.info.model) == (3, 1, "toy:fake")


def test_an_answer_of_another_batch_is_a_fault():
    bulk = Bulk("toy", ["a"], {})
    sent(bulk)
    with pytest.raises(InternalError, match="of batch 4"):
        bulk.add(answer(4, 1))


def test_an_end_before_the_last_answer_is_cut_short():
    bulk = Bulk("toy", ["a"], {})
    sent(bulk)
    bulk.add(embedding_pb2.EmbedStreamResponse(info=INFO))
    with pytest.raises(InternalError, match="without its final message"):
        bulk.final()


def test_no_texts_are_a_stream_all_the_same():
    assert sent(Bulk("toy", [], {})) == [[]]


@pytest.mark.parametrize("name", ["batch_size", "max_batches_in_flight"])
def test_bulk_needs_at_least_one(name):
    with pytest.raises(InvalidRequest, match=f"{name} is at least 1"):
        Bulk("toy", [], cast(options.EmbedStreamOptions, {name: 0}))
