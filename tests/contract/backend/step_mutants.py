"""Step sessions that are broken on purpose, one way each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from leptond.backend import StepResult
from leptond.backend.checking import check_rows
from leptond.backend.fake import TOKEN_BYTES, VOCAB_SIZE, FakeStepSession
from leptond.backend.picking import pick_candidates
from tests.contract.backend.mutation import caught_by


@caught_by("test_a_new_slot_is_empty")
class OpensSlotsWithATokenInThem(FakeStepSession):
    def open(self):
        slot = super().open()
        self._slots[slot].extend((0,))
        return slot


@caught_by("test_a_slot_that_is_not_open_is_refused_by_every_verb")
class KnowsEverySlot(FakeStepSession):
    def length(self, slot):
        return super().length(slot) if slot in self._slots else 0


@caught_by("test_truncate_leaves_other_slots_alone")
class TruncatesEverySlot(FakeStepSession):
    def truncate(self, slot, length):
        super().truncate(slot, length)
        for other in self._slots:
            super().truncate(other, min(length, self.length(other)))


@caught_by("test_a_fork_needs_a_free_slot_and_tokens_that_are_there")
class ForksTokensThatAreNotThere(FakeStepSession):
    def fork(self, source, length):
        return super().fork(source, max(0, min(length, self.length(source))))


@caught_by("test_sessions_of_one_model_do_not_see_each_other")
class SharesSlotsWithOtherSessions(FakeStepSession):
    shared: ClassVar[dict[int, Any]] = {}

    def __init__(self, language, runtime, options):
        super().__init__(language, runtime, options)
        self._slots = self.shared.setdefault(id(language), self._slots)


@caught_by("test_a_step_appends_its_tokens")
class LosesTheLastTokenOfAChunk(FakeStepSession):
    def step(self, rows):
        result = super().step(rows)
        for row in rows:
            if len(row.token_ids) > 1:
                self._slots[row.slot].truncate(self.length(row.slot) - 1)
        return result


@caught_by("test_a_text_cut_into_chunks_is_answered_like_the_whole")
class ForgetsAllButTheNewestChunk(FakeStepSession):
    def step(self, rows):
        for row in rows:
            if row.slot in self._slots and len(row.token_ids) > 1:
                self.truncate(row.slot, 0)
        return super().step(rows)


@caught_by("test_the_order_of_rows_is_the_order_of_lines_and_changes_nothing")
class AnswersInOrderOfSlots(FakeStepSession):
    def step(self, rows):
        return super().step(sorted(rows, key=lambda row: row.slot))


@caught_by("test_rows_that_join_and_leave_at_random_are_answered_like_single_runs")
class MixesUpTwoRows(FakeStepSession):
    def step(self, rows):
        if len(rows) == 2 and all(len(row.token_ids) == 1 for row in rows):
            one, other = rows
            rows = [
                replace(one, token_ids=other.token_ids),
                replace(other, token_ids=one.token_ids),
            ]
        return super().step(rows)


@caught_by("test_slots_without_a_row_are_left_alone")
class TouchesTheHolesBetweenRows(FakeStepSession):
    def step(self, rows):
        result = super().step(rows)
        used = [row.slot for row in rows]
        for slot, history in self._slots.items():
            if used and min(used) < slot < max(used) and slot not in used and len(history):
                history.extend((0,))
        return result


@caught_by("test_rows_of_any_lengths_share_a_step")
class LetsBatchMatesBleed(FakeStepSession):
    def step(self, rows):
        result = super().step(rows)
        result.logits[:] += 0.01 * (len(rows) - 1)
        return result


@caught_by("test_the_last_positions_are_answered_as_many_as_are_wanted")
class AnswersTheFirstPositions(FakeStepSession):
    def _wanted(self, rows):
        for row in rows:
            history = self._slots[row.slot]
            start = len(history) - len(row.token_ids)
            for length in range(start + 1, start + 1 + row.num_logits):
                yield history, length, row.pick


@caught_by("test_a_row_without_wanted_positions_takes_no_line")
class AnswersOnePositionARow(FakeStepSession):
    def _wanted(self, rows):
        for row in rows:
            history = self._slots[row.slot]
            yield history, len(history), row.pick


@caught_by("test_truncate_forgets_what_comes_after")
class NeverTruncates(FakeStepSession):
    def truncate(self, slot, length):
        self._history(slot)


@caught_by("test_truncate_forgets_what_comes_after")
class TruncatesOneTooMany(FakeStepSession):
    def truncate(self, slot, length):
        super().truncate(slot, length)
        super().truncate(slot, max(0, length - 1))


@caught_by("test_truncate_to_more_than_is_there_is_refused")
class TruncatesWhatIsNotThere(FakeStepSession):
    def truncate(self, slot, length):
        super().truncate(slot, max(0, min(length, self.length(slot))))


@caught_by("test_a_fork_and_its_source_go_separate_ways")
class ForksShareTheirTokens(FakeStepSession):
    def fork(self, source, length):
        fork = super().fork(source, length)
        if length == self.length(source):
            self._slots[fork] = self._slots[source]
        return fork


@caught_by("test_a_fork_outlives_its_source")
class ForksDieWithTheirSource(FakeStepSession):
    def __init__(self, *args):
        super().__init__(*args)
        self._sources = {}

    def fork(self, source, length):
        fork = super().fork(source, length)
        self._sources[fork] = source
        return fork

    def close(self, slot):
        super().close(slot)
        for fork, source in self._sources.items():
            if source == slot and fork in self._slots:
                self._slots[fork].truncate(0)


@caught_by("test_a_fork_goes_on_like_its_source")
class ForksTheWholeSource(FakeStepSession):
    def fork(self, source, length):
        super().fork(source, length)
        return super().fork(source, self.length(source))


@caught_by("test_a_reused_slot_remembers_nothing")
class LeavesTokensInClosedSlots(FakeStepSession):
    def __init__(self, *args):
        super().__init__(*args)
        self._left = {}

    def close(self, slot):
        self._left[slot] = self._history(slot)
        super().close(slot)

    def open(self):
        slot = super().open()
        self._slots[slot] = self._left.pop(slot, self._slots[slot])
        return slot


@caught_by("test_every_slot_can_be_open_at_once_and_no_more")
class HandsOutASlotTwice(FakeStepSession):
    def open(self):
        return 0 if 0 in self._slots and len(self._slots) == 2 else super().open()


@caught_by("test_every_slot_can_be_open_at_once_and_no_more")
class OpensMoreThanItHas(FakeStepSession):
    def open(self):
        if not self._free:
            self._free.append(len(self._slots))
        return super().open()


@caught_by("test_memory_comes_back_when_slots_are_closed")
class NeverGivesMemoryBack(FakeStepSession):
    def __init__(self, *args):
        super().__init__(*args)
        self._closed_bytes = 0

    def close(self, slot):
        self._closed_bytes += TOKEN_BYTES * self.length(slot)
        super().close(slot)

    def resident_bytes(self):
        return super().resident_bytes() + self._closed_bytes


@caught_by("test_memory_comes_back_when_slots_are_closed")
class ReportsNoMemory(FakeStepSession):
    def resident_bytes(self):
        return 0


@caught_by("test_shutdown_may_be_called_again_and_leaves_the_model_usable")
class CannotBeShutDownTwice(FakeStepSession):
    def shutdown(self):
        self._runtime.require_alive()
        super().shutdown()


@caught_by("test_a_bad_row_is_refused_before_anything_ran")
class ChecksRowsAsItGoes(FakeStepSession):
    def step(self, rows):
        done: list[Any] = []
        for row in rows:
            self._check([*done, row])
            self._slots[row.slot].extend(row.token_ids)
            done.append(row)
        for row in rows:
            self._slots[row.slot].truncate(self.length(row.slot) - len(row.token_ids))
        return super().step(rows)


@caught_by("test_a_slot_takes_as_many_tokens_as_it_was_opened_for_and_no_more")
class TakesAnyNumberOfTokens(FakeStepSession):
    def _check(self, rows):
        check_rows(rows, self.length, vocab_size=VOCAB_SIZE, max_tokens=1 << 30)


@caught_by("test_a_bad_row_is_refused_before_anything_ran")
class TakesAnyToken(FakeStepSession):
    def step(self, rows):
        clipped = [
            replace(row, token_ids=[max(0, min(token, 258)) for token in row.token_ids])
            for row in rows
        ]
        return super().step(clipped)


@caught_by("test_a_bad_row_is_refused_before_anything_ran")
class TakesAnyTemperature(FakeStepSession):
    def step(self, rows):
        return super().step(
            [
                row
                if row.pick is None or row.pick.temperature > 0
                else replace(row, pick=replace(row.pick, temperature=1e-6))
                for row in rows
            ]
        )


@caught_by("test_two_rows_of_one_slot_are_refused")
class TakesTwoRowsOfASlot(FakeStepSession):
    def _check(self, rows):
        for row in rows:
            super()._check([row])


class _PicksWrongly(FakeStepSession):
    """Base of those whose candidates are wrong although the logits are right."""

    def step(self, rows):
        result = super().step(rows)
        picks = [row.pick for row in rows for _ in range(row.num_logits)]
        return self.spoil(result, picks)

    def spoil(self, result, picks):
        raise NotImplementedError


@caught_by("test_candidates_and_normalizers_follow_from_the_logits_and_the_pick")
class DividesByRepetitionAlways(_PicksWrongly):
    def spoil(self, result, picks):
        raw = result.logits.copy()
        for line, pick in enumerate(picks):
            if pick is not None and pick.repetition is not None:
                negative = raw[line] < 0
                raw[line][negative] /= pick.repetition[negative] ** 2
        return replace(pick_candidates(raw, picks), logits=result.logits)


@caught_by("test_candidates_and_normalizers_follow_from_the_logits_and_the_pick")
class AppliesTemperatureBeforeBias(_PicksWrongly):
    def spoil(self, result, picks):
        swapped = [
            pick and replace(pick, bias=None if pick.bias is None else pick.bias * pick.temperature)
            for pick in picks
        ]
        return pick_candidates(result.logits, swapped)


@caught_by("test_candidates_and_normalizers_follow_from_the_logits_and_the_pick")
class IgnoresTemperature(_PicksWrongly):
    def spoil(self, result, picks):
        warm = [pick and replace(pick, temperature=1.0) for pick in picks]
        return pick_candidates(result.logits, warm)


@caught_by("test_masked_tokens_come_after_all_others")
class IgnoresMasks(_PicksWrongly):
    def spoil(self, result, picks):
        unmasked = [
            pick
            if pick is None or pick.bias is None
            else replace(pick, bias=np.where(np.isinf(pick.bias), np.float32(0), pick.bias))
            for pick in picks
        ]
        return pick_candidates(result.logits, unmasked)


@caught_by("test_rows_of_a_step_keep_their_own_picks")
class PicksTheSameForAllRows(_PicksWrongly):
    def spoil(self, result, picks):
        return pick_candidates(result.logits, picks[:1] * len(picks))


@caught_by("test_rows_of_a_step_keep_their_own_picks")
class PicksForTheFirstPositionOnly(_PicksWrongly):
    def spoil(self, result, picks):
        first = [pick if line == 0 else None for line, pick in enumerate(picks)]
        return pick_candidates(result.logits, first)


@caught_by("test_a_pick_lasts_for_one_step")
class RemembersPicks(_PicksWrongly):
    remembered: ClassVar[list[Any]] = []

    def spoil(self, result, picks):
        used = [pick or next(iter(self.remembered), None) for pick in picks]
        self.remembered[:] = [pick for pick in picks if pick is not None]
        return pick_candidates(result.logits, used)


@caught_by("test_a_pick_leaves_the_raw_logits_alone")
class ReturnsProcessedLogits(_PicksWrongly):
    def spoil(self, result, picks):
        for line, pick in enumerate(picks):
            if pick is not None:
                result.logits[line] /= pick.temperature
        return result


@caught_by("test_without_a_pick_the_candidates_are_those_of_the_raw_logits")
class NormalizesTheCandidatesOnly(_PicksWrongly):
    def spoil(self, result, picks):
        mass = np.exp(result.candidate_logits).sum(axis=-1, dtype=np.float64)
        return replace(result, log_normalizer=np.log(mass).astype(np.float32))


@caught_by("test_candidates_and_normalizers_follow_from_the_logits_and_the_pick")
class NormalizesProcessedForRaw(_PicksWrongly):
    def spoil(self, result, picks):
        return replace(result, raw_log_normalizer=result.log_normalizer)


@caught_by("test_without_a_pick_the_candidates_are_those_of_the_raw_logits")
class LeavesCandidatesUnsorted(_PicksWrongly):
    def spoil(self, result, picks):
        return replace(
            result,
            candidate_ids=result.candidate_ids[:, ::-1],
            candidate_logits=result.candidate_logits[:, ::-1],
        )


@caught_by("test_without_a_pick_the_candidates_are_those_of_the_raw_logits")
class SkipsTheBestCandidate(_PicksWrongly):
    def spoil(self, result, picks):
        return replace(
            result,
            candidate_ids=result.candidate_ids[:, 1:],
            candidate_logits=result.candidate_logits[:, 1:],
        )


@caught_by("test_without_a_pick_the_candidates_are_those_of_the_raw_logits")
class ListsACandidateTwice(_PicksWrongly):
    def spoil(self, result, picks):
        result.candidate_ids[:, 1] = result.candidate_ids[:, 0]
        result.candidate_logits[:, 1] = result.candidate_logits[:, 0]
        return result


@caught_by("test_a_result_has_the_shapes_and_types_of_the_interface")
class ReturnsHalfPrecision(_PicksWrongly):
    def spoil(self, result, picks):
        return replace(result, candidate_logits=result.candidate_logits.astype(np.float16))


@caught_by("test_the_next_step_overwrites_nothing_but_the_view_of_the_logits")
class ReusesItsAnswers(_PicksWrongly):
    kept: StepResult | None = None

    def spoil(self, result, picks):
        if self.kept is None or self.kept.candidate_ids.shape != result.candidate_ids.shape:
            self.kept = result
        self.kept.candidate_ids[:] = result.candidate_ids
        return replace(result, candidate_ids=self.kept.candidate_ids)


@caught_by("test_capabilities_are_declared_and_sane")
class DeclaresTooFewSlots(FakeStepSession):
    declared: ClassVar = {"max_slots": 3}
