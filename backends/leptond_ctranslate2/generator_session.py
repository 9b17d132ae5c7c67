"""Decoders: prompts to answers, token by token or by beams, and scores of given tokens.

task = "generate"    streamed: one chunk per token, `scores` its log-probability; else one chunk
                     of `leptond_ctranslate2.generation.hypothesis_tensors`
task = "score"       tensors {"token_logprobs": float32 [len - 1]} of the second token and after

The engine runs the prompts of a call side by side up to the length of the shortest, in one go; the
rest of the longer ones token by token, beside the answers of the shorter. That is right, but slow:
prompts of a run should be of nearly equal length. Two of its ways are avoided here:

- With a one-token prompt among longer ones it takes the others' prompts for their answers. Such
  prompts get a call of their own.
- Its repetition penalty sees the answer and as much of the prompt as company makes it run token by
  token, so it is not honoured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from leptond.backend import BatchRow
from leptond.backend.answers import Answers
from leptond.backend.batch_checks import (
    check_ids,
    check_known_options,
    check_outputs,
    check_task,
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

__all__ = ["GeneratorSession"]


class GeneratorSession(WholeCallSession):
    """A `BatchSession` over a `ctranslate2.Generator`."""

    tasks = frozenset({Task.GENERATE, Task.SCORE})
    sampling_options = frozenset({"logprobs", "min_tokens", "temperature", "top_k", "top_p"})

    def __init__(
        self,
        generator: Any,
        vocabulary: Vocabulary,
        description: EngineDescription,
        *,
        max_rows: int,
        max_tokens: int,
    ) -> None:
        super().__init__(max_rows)
        self._generator = generator
        self._vocabulary = vocabulary
        self._description = description
        self._max_tokens = max_tokens
        self._relay = TokenRelay()

    def shutdown(self) -> None:
        """Let go of the engine; idempotent."""
        super().shutdown()
        self._relay.shutdown()
        self._generator = None

    def _prepare(self, batch: Sequence[BatchRow]) -> Callable[[Answers], None]:
        task = check_task(batch[0].options.get("task", Task.GENERATE), self.tasks)
        if task == Task.SCORE:
            shared_options(batch)
            check_known_options(batch[0])
            for row in batch:
                check_ids(row.token_ids, len(self._vocabulary), self._max_tokens, "token_ids")
                check_outputs(row, {"token_logprobs": (len(row.token_ids) - 1,)})
            return lambda answers: self._score(batch, answers)
        options = DecodeOptions.from_row(batch[0])
        options.check_sampling(self.sampling_options)
        shared_options(batch, apart={"max_tokens"} if options.is_streamed else ())
        rows = [self._row(index, row) for index, row in enumerate(batch)]
        return lambda answers: self._generate(rows, answers)

    def _row(self, index: int, row: BatchRow) -> AnswerRow:
        check_ids(row.token_ids, len(self._vocabulary), self._max_tokens - 1, "token_ids")
        check_outputs(row, {})
        options = DecodeOptions.from_row(row)
        room = self._max_tokens - len(row.token_ids)
        stop = options.stop_token_ids
        return AnswerRow(
            index,
            self._vocabulary.strings(row.token_ids),
            prefix=[],
            max_tokens=room if options.max_tokens is None else min(room, options.max_tokens),
            options=options,
            stop_token_ids=self._description.stop_token_ids if stop is None else stop,
        )

    def _generate(self, rows: Sequence[AnswerRow], answers: Answers) -> None:
        for row in rows:
            if row.max_tokens == 0:
                answers.finish_empty(row.index)
        asked = [row for row in rows if row.max_tokens > 0]
        short = [row for row in asked if len(row.prompt) == 1]
        long = [row for row in asked if len(row.prompt) > 1]
        for call in (long, short):
            if call and not answers.is_interrupted:
                self._call(call, answers)

    def _call(self, rows: Sequence[AnswerRow], answers: Answers) -> None:
        options = rows[0].options
        longest = max(row.max_tokens for row in rows)
        arguments = {
            **options.engine_arguments(len(self._vocabulary)),
            "max_length": longest,
            "min_length": min(options.min_tokens, longest),
            "end_token": list(rows[0].stop_token_ids),
            "include_prompt_in_result": False,
        }
        prompts = [row.prompt for row in rows]
        if options.is_streamed:
            streamed = StreamedRows(rows, answers)
            self._relay.run(
                lambda callback: self._engine_call(prompts, callback=callback, **arguments),
                streamed.handle,
            )
            streamed.finish()
            return
        for row, result in zip(rows, self._engine_call(prompts, **arguments), strict=True):
            tensors = hypothesis_tensors(result.sequences_ids, result.scores, row)
            answers.finish(row.index, tensors)

    def _engine_call(self, prompts: list[list[str]], **arguments: Any) -> Any:
        with engine_errors():
            return self._generator.generate_batch(prompts, **arguments)

    def _score(self, batch: Sequence[BatchRow], answers: Answers) -> None:
        texts = [self._vocabulary.strings(row.token_ids) for row in batch]
        with engine_errors():
            results = self._generator.score_batch(texts, max_input_length=0)
        for index, result in enumerate(results):
            logprobs = np.array(result.log_probs, np.float32)
            answers.finish(index, {"token_logprobs": logprobs})
