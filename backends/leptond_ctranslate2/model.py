"""One variant in memory; its sessions share the engine's object, which has one worker."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import ctranslate2

from leptond.backend import Capabilities, ModelSource, Progress, SessionKind, SessionOptions
from leptond.backend.heads import Head
from leptond.backend.processor import instruction_sets
from leptond.backend.whole_calls import WholeCallSession
from leptond.errors import (
    InvalidRequest,
    InvariantViolation,
    ModelFailed,
    UnsupportedCapability,
)
from leptond.types import Task
from leptond_ctranslate2.description import EngineDescription, ModelKind
from leptond_ctranslate2.device import Device, find_device
from leptond_ctranslate2.encoder_session import EncoderSession
from leptond_ctranslate2.generator_session import GeneratorSession
from leptond_ctranslate2.options import EngineOptions
from leptond_ctranslate2.processor import safe_int8_limit
from leptond_ctranslate2.translator_session import SourceEndings, TranslatorSession
from leptond_ctranslate2.vocabulary import Vocabulary, find_vocabulary, read_vocabulary

__all__ = ["MAX_ROWS", "CTranslate2Model"]

_LOG = logging.getLogger(__name__)

MAX_ROWS = 256
"""A limit of ours: rows of a call beyond it would no longer gain from each other."""

_UNLIMITED = -1
_CLASSES = {
    ModelKind.ENCODER: "Encoder",
    ModelKind.TRANSLATOR: "Translator",
    ModelKind.GENERATOR: "Generator",
}


class CTranslate2Model:
    """A loaded variant, and what it can do."""

    def __init__(
        self,
        engine: Any,
        description: EngineDescription,
        device: Device,
        directory: Path,
    ) -> None:
        self._engine = engine
        self._description = description
        self._sessions: list[WholeCallSession] = []
        self._head: Head | None = None
        self._vocabulary = Vocabulary(())
        self._endings = SourceEndings("", "")
        if description.kind is ModelKind.ENCODER:
            self._head = Head.load(directory)
            self._head.num_outputs(description.sizes.hidden_size)
        else:
            self._vocabulary = Vocabulary(_read_vocabulary(directory, description))
            self._endings = _read_endings(directory)
        self._capabilities = self._declare(device)

    @classmethod
    def load(cls, source: ModelSource, progress: Progress) -> CTranslate2Model:
        """Load the weights; blocks; called on a loader thread.

        Raises:
            BackendUnavailable: the device is absent.
            UnsupportedCapability: the device does not compute the precision efficiently, or the
                weights are too large for the processor's way of multiplying bytes.
            ModelFailed: the files or the options are bad.
        """
        options = EngineOptions.from_mapping(source.options, source.num_cores)
        device = find_device(source.device)
        description = EngineDescription.read(source.directory)
        if source.precision != description.precision:
            raise ModelFailed(
                f"{source.directory}: the variant says {source.precision}, its files "
                f"{description.precision}"
            )
        device.check(description.precision)
        _check_int8(description, device)
        progress("weights", 0.0)
        engine = _open(source.directory, description, device, options)
        progress("vocabulary", 0.9)
        model = cls(engine, description, device, source.directory)
        progress("ready", 1.0)
        _LOG.info(
            "model_loaded directory=%s kind=%s precision=%s device=%s num_threads=%d",
            source.directory, description.kind, description.precision, device.name,
            options.actual_threads,
        )  # fmt: skip
        return model

    @property
    def capabilities(self) -> Capabilities:
        """What this model does; constant."""
        return self._capabilities

    def open_session(self, options: SessionOptions) -> WholeCallSession:
        """A new executor; called on the thread that will own it.

        `num_slots` is the most rows of its runs, and `max_tokens` of a row; of a generator's row
        with its answer.

        Raises:
            InvalidRequest: more rows or longer ones than the capabilities say, or a number of
                threads, which is an option of the load.
        """
        if self._engine is None:
            raise InvariantViolation("a closed model was asked for a session")
        for field, wanted, limit in (
            ("num_slots", options.num_slots, MAX_ROWS),
            ("max_tokens", options.max_tokens, self._description.max_positions),
        ):
            if not 1 <= wanted <= limit:
                raise InvalidRequest(f"{field} is {wanted}, not from 1 to {limit}", field=field)
        if options.num_threads:
            raise InvalidRequest(
                "num_threads is 0 for a session of this engine: threads belong to the loaded "
                "model, and the backend's own option num_threads counts them",
                field="num_threads",
            )
        session = self._make_session(options)
        self._sessions.append(session)
        return session

    def close(self) -> None:
        """Free the weights, and join the engine's worker; idempotent.

        A session that lives on is an `InvariantViolation`: the worker may then be in a callback,
        and would end the process with it.
        """
        if not all(session.is_shut_down for session in self._sessions):
            raise InvariantViolation("a model was closed before its session")
        self._sessions.clear()
        self._engine = None

    def _make_session(self, options: SessionOptions) -> WholeCallSession:
        sizes = {"max_rows": options.num_slots, "max_tokens": options.max_tokens}
        description = self._description
        if self._head is not None:
            return EncoderSession(self._engine, self._head, description, **sizes)
        if description.kind is ModelKind.GENERATOR:
            return GeneratorSession(self._engine, self._vocabulary, description, **sizes)
        return TranslatorSession(
            self._engine, self._vocabulary, description, self._endings, **sizes
        )

    def _declare(self, device: Device) -> Capabilities:
        description = self._description
        sampling_options: frozenset[str] = frozenset()
        if self._head is not None:
            tasks = frozenset({self._head.task})
        elif description.kind is ModelKind.GENERATOR:
            tasks = GeneratorSession.tasks | {Task.CHAT}
            sampling_options = GeneratorSession.sampling_options
        else:
            tasks = TranslatorSession.tasks
            sampling_options = TranslatorSession.sampling_options
        is_decoding = self._head is None
        return Capabilities(
            kind=SessionKind.BATCH,
            tasks=tasks,
            devices=(device.name,),
            vocab_size=description.vocab_size,
            max_context_tokens=description.max_positions,
            max_answer_tokens=description.max_answer_tokens,
            max_batch_rows=MAX_ROWS,
            # Company moves sums of attention by 1e-6; rounding activations to 8 bits can make a
            # tenth of that.
            is_deterministic=False,
            is_streaming=is_decoding,
            is_cancellable=is_decoding,
            sampling_options=sampling_options,
        )


def _open(
    directory: Path, description: EngineDescription, device: Device, options: EngineOptions
) -> Any:
    """Return the engine's object. Whatever it finds wrong with the files is `ModelFailed`."""
    engine = getattr(ctranslate2, _CLASSES[description.kind])
    try:
        return engine(
            str(directory),
            device=device.kind,
            device_index=device.index,
            compute_type=description.precision.value,
            inter_threads=1,
            intra_threads=options.actual_threads,
            max_queued_batches=_UNLIMITED,  # a full queue would block a session's thread
        )
    except (RuntimeError, ValueError, MemoryError) as error:
        raise ModelFailed(f"{directory}: CTranslate2 cannot load it: {error}") from error


def _check_int8(description: EngineDescription, device: Device) -> None:
    if device.kind != "cpu":
        return
    limit = safe_int8_limit(instruction_sets())
    if description.int8_limit > limit:
        raise UnsupportedCapability(
            f"this {description.precision} variant was written for processors with VNNI; on this "
            f"one its weights of up to {description.int8_limit} would overflow (at most {limit} "
            "is exact): import the model again on this machine",
            field="precision",
        )


def _read_vocabulary(directory: Path, description: EngineDescription) -> list[str]:
    path = find_vocabulary(directory)
    tokens = read_vocabulary(path)
    if len(tokens) < description.vocab_size:
        raise ModelFailed(f"{path} has {len(tokens)} tokens; the model {description.vocab_size}")
    tokens = tokens[: description.vocab_size]
    if len(set(tokens)) < len(tokens):
        raise ModelFailed(f"{path} has a token twice: import the model again")
    return tokens


def _read_endings(directory: Path) -> SourceEndings:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_bytes())
        return SourceEndings(str(config["bos_token"]), str(config["eos_token"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFailed(f"{path} cannot be read: {error}") from error
