"""Batch sessions that are broken on purpose, one way each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar

from leptond.backend import EmittedChunk
from leptond.backend.fake import FakeBatchSession
from leptond.errors import InvalidRequest
from tests.contract.backend.mutation import caught_by


@caught_by("test_a_row_is_answered_alone_as_in_company")
class AnswersRowsInReverse(FakeBatchSession):
    def run(self, batch, emit):
        super().run(batch, lambda index, chunk: emit(len(batch) - 1 - index, chunk))


@caught_by("test_every_row_is_closed_exactly_once")
class NeverClosesARow(FakeBatchSession):
    def run(self, batch, emit):
        super().run(batch, lambda index, chunk: emit(index, replace(chunk, is_final=False)))


@caught_by("test_every_row_is_closed_exactly_once")
class ClosesARowTwice(FakeBatchSession):
    def run(self, batch, emit):
        super().run(batch, emit)
        emit(0, EmittedChunk(is_final=True))


@caught_by("test_a_row_that_its_reader_ends_leaves_the_others_alone")
class IgnoresThatARowWasEnded(FakeBatchSession):
    def run(self, batch, emit):
        def emit_and_go_on(index, chunk):
            emit(index, chunk)
            return True

        super().run(batch, emit_and_go_on)


@caught_by("test_a_row_that_its_reader_ends_leaves_the_others_alone")
class EndsAllRowsWithOne(FakeBatchSession):
    def run(self, batch, emit):
        is_over = False

        def emit_until_one_ends(index, chunk):
            nonlocal is_over
            is_over = is_over or not emit(index, chunk)
            return not is_over

        super().run(batch, emit_until_one_ends)


@caught_by("test_a_bad_row_is_refused_before_anything_ran")
class ChecksTheBatchAsItGoes(FakeBatchSession):
    def run(self, batch, emit):
        for index, row in enumerate(batch):
            super().run([row], partial(self._emit_as, index, emit))

    @staticmethod
    def _emit_as(index, emit, _, chunk):
        return emit(index, chunk)


@caught_by("test_an_interrupted_run_ends_early_and_the_next_one_is_whole")
class IgnoresInterrupts(FakeBatchSession):
    def interrupt(self):
        pass


@caught_by("test_an_interrupt_while_nothing_runs_is_forgotten")
class StaysInterrupted(FakeBatchSession):
    def run(self, batch, emit):
        if not self._is_interrupted.is_set():
            super().run(batch, emit)


@caught_by("test_a_row_is_answered_alone_as_in_company")
class LetsBatchMatesPad(FakeBatchSession):
    """Answers depend on the longest row of the batch, as with padding that is not masked."""

    def run(self, batch, emit):
        longest = max((len(row.token_ids) for row in batch), default=0)
        padded = [
            replace(row, token_ids=[*row.token_ids, *[0] * (longest - len(row.token_ids))])
            if row.token_ids
            else row
            for row in batch
        ]
        super().run(padded, emit)


@caught_by("test_rows_have_answers_of_their_own")
class AnswersEveryRowLikeTheFirst(FakeBatchSession):
    def run(self, batch, emit):
        self._check(batch)
        super().run([batch[0]] * len(batch), emit)


@caught_by("test_as_many_rows_fit_as_declared_and_no_more")
class TakesAnyNumberOfRows(FakeBatchSession):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._max_rows = 1 << 30


@caught_by("test_shutdown_may_be_called_again_and_leaves_the_model_usable")
class CannotEndTwice(FakeBatchSession):
    def shutdown(self):
        self._runtime.require_alive()
        super().shutdown()


@caught_by("test_tensors_land_in_the_buffers_that_were_named")
class IgnoresBuffers(FakeBatchSession):
    def run(self, batch, emit):
        self._check(batch)
        super().run([replace(row, outputs={}) for row in batch], emit)


@caught_by("test_tensors_land_in_the_buffers_that_were_named")
class CopiesWhatItWroteToBuffers(FakeBatchSession):
    def run(self, batch, emit):
        def emit_copies(index, chunk):
            copies = {name: tensor.copy() for name, tensor in chunk.tensors.items()}
            return emit(index, replace(chunk, tensors=copies))

        super().run(batch, emit_copies)


@caught_by("test_tensors_land_in_the_buffers_that_were_named")
class WritesBesideBuffers(FakeBatchSession):
    def run(self, batch, emit):
        super().run(batch, emit)
        for row in batch:
            for buffer in row.outputs.values():
                whole = buffer
                while whole.base is not None:
                    whole = whole.base
                whole[-1] = 0


@caught_by("test_a_buffer_of_the_wrong_shape_is_refused_before_anything_ran")
class WritesBuffersOfAnyShape(FakeBatchSession):
    def run(self, batch, emit):
        try:
            self._check(batch)
        except InvalidRequest:
            batch = [replace(row, outputs={}) for row in batch]
        super().run(batch, emit)


@caught_by("test_the_order_of_rows_changes_nothing")
class AnswersByPlace(FakeBatchSession):
    """The first row of a batch is read backwards."""

    def run(self, batch, emit):
        self._check(batch)
        first, *others = batch
        super().run([replace(first, token_ids=first.token_ids[::-1]), *others], emit)


@caught_by("test_capabilities_are_declared_and_sane")
class DeclaresSlotsForWholeCalls(FakeBatchSession):
    declared: ClassVar = {"max_slots": 4}
