"""Labels of texts, the order of documents, and how likely texts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leptond_client.values.call import CallInfo
from leptond_client.values.text import Message, TokenLogprob

__all__ = [
    "Classification",
    "Classifications",
    "LabelScore",
    "RankedDocument",
    "Ranking",
    "Score",
    "ScoreInput",
    "Scores",
]


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and its probability, or its logit where `raw_scores` were asked for."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The labels of one text or pair, best first.

    Attributes:
        labels: best first.
        truncated_tokens: how many tokens were cut off.
    """

    labels: tuple[LabelScore, ...]
    truncated_tokens: int = 0

    @property
    def best(self) -> LabelScore:
        """The best label."""
        return self.labels[0]


@dataclass(frozen=True, slots=True)
class Classifications:
    """The labels of several texts.

    Attributes:
        results: one per text, in their order.
        method: how they were found: "head", "entailment" or "likelihood".
        multi_label: whether labels were taken as independent of each other.
        info: what is known of the call.
    """

    results: tuple[Classification, ...]
    method: str
    multi_label: bool
    info: CallInfo


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document and its relevance.

    Attributes:
        index: which of the documents, from 0.
        score: higher is better.
        document: its text, where `return_documents` asked for it.
        truncated_tokens: how many tokens were cut off.
    """

    index: int
    score: float
    document: str = ""
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents by their relevance to a query.

    Attributes:
        results: best first.
        method: how they were compared: "cross_encoder", "embedding_similarity", …
        info: what is known of the call.
    """

    results: tuple[RankedDocument, ...]
    method: str
    info: CallInfo


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """A text whose likelihood is asked for, and what comes before it.

    Attributes:
        target: text, or token ids.
        prompt: what comes before, as text or token ids.
        messages: a conversation to which the target is the answer; excludes `prompt`.
    """

    target: str | Sequence[int]
    prompt: str | Sequence[int] | None = None
    messages: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """How likely one text is.

    Attributes:
        logprob: the sum of the natural log-probabilities of the scored tokens.
        num_tokens: how many tokens were scored.
        tokens: each scored token; empty where `omit_token_logprobs` asked for that.
    """

    logprob: float
    num_tokens: int
    tokens: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """How likely several texts are.

    Attributes:
        results: one per text, in their order.
        info: what is known of the call.
    """

    results: tuple[Score, ...]
    info: CallInfo
