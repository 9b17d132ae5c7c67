"""Sequence-to-sequence models: sources to answers, token by token or by beams, and scores.

task = "translate", "generate"    as of `leptond_ctranslate2.generator_session`;
                                  `tensors["target_prefix"]`, int64 [n], begins the answer and is
                                  not given back
task = "score"                    `tensors["target"]`, int64 [n]; tensors
                                  {"token_logprobs": float32 [n]}

A row's `token_ids` have the special tokens of the source. The engine takes a source that holds
nothing else for an empty one and skips it, and then counts the rows of its callback wrongly: such
rows are answered here, with nothing, as the engine would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leptond.backend import BatchRow
from leptond.backend.answers import Answers
from leptond.backend.batch_checks import (
    check_ids,
    check_known_options,
    check_outputs,
    check_task,
    read_ids,
    shared_options,
)
from leptond.backend.whole_calls import WholeCallSession
from leptond.types import Task
from leptond_ctranslate2.description import EngineDescription
from leptond_ctranslate2.faults import engine_errors
from leptond_ctranslate2.generation import AnswerRow, StreamedRows, hypothesis_tensors
from leptond_ctranslate2.relay import TokenRelay
from leptond_ctranslate2.rows import DecodeOptions
from leptond_ctranslate2.vocabulary import Vocabulary

__all__ = ["SourceEndings", "TranslatorSession"]


@dataclass(frozen=True, slots=True)
class SourceEndings:
    """The special tokens by which the engine tells whether a source is empty."""

    bos_token: str
    eos_token: str

    def has_content(self, source: Sequence[str]) -> bool:
        """Whether the engine will run it; its own rule, step by step."""
        length = len(source)
        if length == 1:
            return source[0] not in (self.bos_token, self.eos_token)
        if source[0] == self.bos_token:
            length -= 1
        if source[-1] == self.eos_token:
            length -= 1
        elif source[-2] == self.eos_token:  # a language comes last
            length -= 2
        return length != 0  # below 0 the engine's count is unsigned, and large


class TranslatorSession(WholeCallSession):
    """A `BatchSession` over a `ctranslate2.Translator`."""

    tasks = frozenset({Task.GENERATE, Task.SCORE, Task.TRANSLATE})
    sampling_options = frozenset(
        {"logprobs", "repetition_penalty", "temperature", "top_k", "top_p"}
    )

    def __init__(
        self,
        translator: Any,
        vocabulary: Vocabulary,
        description: EngineDescription,
        endings: SourceEndings,
        *,
        max_rows: int,
        max_tokens: int,
    ) -> None:
        super().__init__(max_rows)
        self._translator = translator
        self._vocabulary = vocabulary
        self._description = description
        self._endings = endings
        self._suppressed = [vocabulary.strings([i]) for i in description.suppressed_token_ids]
        self._max_tokens = max_tokens
        self._relay = TokenRelay()

    def shutdown(self) -> None:
        """Let go of the engine; idempotent."""
        super().shutdown()
        self._relay.shutdown()
        self._translator = None

    def _prepare(self, batch: Sequence[BatchRow]) -> Callable[[Answers], None]:
        task = check_task(batch[0].options.get("task", Task.TRANSLATE), self.tasks)
        for row in batch:
            check_ids(row.token_ids, len(self._vocabulary), self._max_tokens, "token_ids")
        if task == Task.SCORE:
            shared_options(batch)
            check_known_options(batch[0])
            targets = [self._target(row, "target") for row in batch]
            for row, target in zip(batch, targets, strict=True):
                check_outputs(row, {"token_logprobs": (len(target),)})
            return lambda answers: self._score(batch, targets, answers)
        options = DecodeOptions.from_row(batch[0])
        options.check_sampling(self.sampling_options)
        shared_options(batch, apart={"max_tokens"} if options.is_streamed else ())
        rows = [self._row(index, row) for index, row in enumerate(batch)]
        return lambda answers: self._translate(rows, answers)

    def _row(self, index: int, row: BatchRow) -> AnswerRow:
        check_outputs(row, {})
        options = DecodeOptions.from_row(row)
        prefix = self._target(row, "target_prefix")
        room = self._description.max_answer_tokens - len(prefix)
        stop = options.stop_token_ids
        return AnswerRow(
            index,
            self._vocabulary.strings(row.token_ids),
            prefix=prefix,
            max_tokens=room if options.max_tokens is None else min(room, options.max_tokens),
            options=options,
            stop_token_ids=self._description.stop_token_ids if stop is None else stop,
        )

    def _target(self, row: BatchRow, name: str) -> list[str]:
        """Return the tokens of the answer's side that a row gives; none when it gives none."""
        ids = read_ids(row, name)
        if ids:
            most = self._description.max_answer_tokens
            check_ids(ids, len(self._vocabulary), most, f"tensors.{name}")
        return self._vocabulary.strings(ids)

    def _translate(self, rows: Sequence[AnswerRow], answers: Answers) -> None:
        asked = []
        for row in rows:
            if row.max_tokens > 0 and self._endings.has_content(row.prompt):
                asked.append(row)
            elif row.options.is_streamed:
                answers.finish_empty(row.index)
            else:
                nothing: list[list[int]] = [[]] * row.options.num_hypotheses
                scores = [0.0] * row.options.num_hypotheses
                answers.finish(row.index, hypothesis_tensors(nothing, scores, row))
        if asked and not answers.is_interrupted:
            self._call(asked, answers)

    def _call(self, rows: Sequence[AnswerRow], answers: Answers) -> None:
        options = rows[0].options
        arguments = {
            **options.engine_arguments(len(self._vocabulary)),
            "target_prefix": [row.prefix for row in rows],
            "max_input_length": 0,
            "max_decoding_length": max(len(row.prefix) + row.max_tokens for row in rows),
            "min_decoding_length": 0,
            "end_token": list(rows[0].stop_token_ids),
            "suppress_sequences": self._suppressed,
        }
        sources = [row.prompt for row in rows]
        if options.is_streamed:
            streamed = StreamedRows(rows, answers)
            self._relay.run(
                lambda callback: self._engine_call(sources, callback=callback, **arguments),
                streamed.handle,
            )
            streamed.finish()
            return
        for row, result in zip(rows, self._engine_call(sources, **arguments), strict=True):
            hypotheses = [self._vocabulary.ids(strings) for strings in result.hypotheses]
            answers.finish(row.index, hypothesis_tensors(hypotheses, result.scores, row))

    def _engine_call(self, sources: list[list[str]], **arguments: Any) -> Any:
        with engine_errors():
            return self._translator.translate_batch(sources, **arguments)

    def _score(self, batch: Sequence[BatchRow], targets: list[list[str]], answers: Answers) -> None:
        sources = [self._vocabulary.strings(row.token_ids) for row in batch]
        with engine_errors():
            results = self._translator.score_batch(sources, targets, max_input_length=0)
        for index, (target, result) in enumerate(zip(targets, results, strict=True)):
            # The engine ends every target with a stop token of its own, and scores that too.
            logprobs = np.array(result.log_probs[: len(target)], np.float32)
            answers.finish(index, {"token_logprobs": logprobs})
