"""Negative log-likelihood of windows of tokens, in any shape of step or in whole calls."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leptond.backend import BatchRow, BatchSession, EmittedChunk, StepResult, StepRow, StepSession

__all__ = ["WindowScore", "perplexity", "score", "score_in_whole_calls"]


@dataclass(frozen=True, slots=True)
class WindowScore:
    """Sum of negative log-likelihoods, in nats, over all tokens of a window but the first."""

    nats: float
    num_tokens: int


@dataclass(slots=True)
class _Reader:
    """One window on its way through a slot."""

    index: int
    slot: int
    window: Sequence[int]
    position: int = 0
    nats: float = 0.0

    def next_chunk(self, length: int) -> Sequence[int]:
        return self.window[self.position : self.position + length]

    def take(self, logits: np.ndarray, log_normalizer: np.ndarray) -> None:
        """Score the tokens that the answered positions should have predicted."""
        begin = self.position + 1
        self.position += len(logits)
        targets = np.asarray(self.window[begin : self.position + 1], np.int64)
        predicted = logits[np.arange(len(targets)), targets].astype(np.float64)
        self.nats += float(np.sum(log_normalizer[: len(targets)] - predicted))


def score(
    session: StepSession, windows: Sequence[Sequence[int]], *, num_rows: int, chunk_tokens: int
) -> list[WindowScore]:
    """Read `windows`, `num_rows` side by side, `chunk_tokens` of each in a step.

    Each way of reading runs through kernels of its own: one long row is a prompt, one token of
    one row is decoding alone, one token of many rows is decoding in a batch.
    """
    waiting = deque(enumerate(windows))
    readers: list[_Reader] = []
    scores: dict[int, WindowScore] = {}
    while waiting or readers:
        while waiting and len(readers) < num_rows:
            index, window = waiting.popleft()
            readers.append(_Reader(index, session.open(), window))
        _step(session, readers, chunk_tokens)
        for reader in [reader for reader in readers if reader.position == len(reader.window)]:
            session.close(reader.slot)
            readers.remove(reader)
            scores[reader.index] = WindowScore(reader.nats, len(reader.window) - 1)
    return [scores[index] for index in range(len(windows))]


def score_in_whole_calls(
    session: BatchSession, windows: Sequence[Sequence[int]]
) -> list[WindowScore]:
    """Read each of `windows` in a call of its own, by the task `score`."""
    scores = []

    def take(_row: int, chunk: EmittedChunk) -> bool:
        logprobs = chunk.tensors["token_logprobs"].astype(np.float64)
        scores.append(WindowScore(-float(logprobs.sum()), len(logprobs)))
        return True

    for window in windows:
        session.run([BatchRow(window, options={"task": "score"})], take)
    return scores


def perplexity(scores: Sequence[WindowScore]) -> float:
    """Return the exponential of the mean negative log-likelihood per token."""
    return math.exp(sum(s.nats for s in scores) / sum(s.num_tokens for s in scores))


def _step(session: StepSession, readers: Sequence[_Reader], chunk_tokens: int) -> None:
    chunks = [reader.next_chunk(chunk_tokens) for reader in readers]
    result: StepResult = session.step(
        [
            StepRow(reader.slot, chunk, num_logits=len(chunk))
            for reader, chunk in zip(readers, chunks, strict=True)
        ]
    )
    line = 0
    for reader, chunk in zip(readers, chunks, strict=True):
        answered = slice(line, line + len(chunk))
        reader.take(result.logits[answered], result.raw_log_normalizer[answered])
        line = answered.stop
