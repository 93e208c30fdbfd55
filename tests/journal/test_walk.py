"""The decision table of ``simswitch.journal.walk``: every row, every cut, every flipped byte (I6)."""

from __future__ import annotations

from random import Random

import pytest
from simswitch.core.machine import xxh64
from simswitch.journal.append import START, Journal
from simswitch.journal.errors import JournalDamaged
from simswitch.journal.format import RecordHeader, SegmentHeader, decode_record_header, decode_segment_header
from simswitch.journal.walk import Walk, list_segments, repair

from tests.journal.faulty_disk import FaultyDisk
from tests.journal.written import BLOCK, JOURNAL_ID, append, payload, read, segment, settings, write

LARGE = 2 * BLOCK  # a record of three blocks


def refused(disk: FaultyDisk, durable_sequence: int = 0) -> JournalDamaged:
    before = {name: bytes(content.seen) for name, content in disk.seen.items()}
    with pytest.raises(JournalDamaged) as caught:
        read(disk, durable_sequence)
    assert {name: bytes(content.seen) for name, content in disk.seen.items()} == before
    assert caught.value.file in str(caught.value)
    assert "Nothing was changed" in str(caught.value)
    return caught.value


def test_a_and_c_every_record_is_read_and_the_end_is_clean() -> None:
    written = write([40, LARGE, 1, 4096 - 128, 4096 - 127])
    payloads, verdict = written.read()
    assert payloads == written.payloads
    assert verdict.case == "@C"
    assert verdict.place == written.place
    assert not verdict.residues


def test_b_goes_on_in_the_next_segment_also_when_the_last_one_is_full_to_the_byte() -> None:
    written = write([LARGE] * 7, blocks=7)  # header + 3 + 3 blocks: two records fill a segment
    assert [s.number for s in list_segments(written.disk)] == [1, 2, 3, 4]
    assert written.read()[0] == written.payloads
    spare = write([LARGE] * 7, blocks=8)  # one block stays unused at the end of each
    assert spare.read()[0] == spare.payloads
    spare.disk.flip(segment(1), 7 * BLOCK + 5)
    assert spare.read()[0] == spare.payloads


def test_c_an_empty_folder_and_prepared_segments_are_an_empty_journal() -> None:
    assert read(FaultyDisk())[1].place == START
    disk = FaultyDisk()
    for number in (1, 2):
        disk.open(segment(number), create=True).pwrite((bytes(4 * BLOCK),), 0)
    assert read(disk)[1].case == "@C"
    written = write([40], blocks=4, disk=disk)
    assert written.read()[0] == written.payloads


def test_d_a_record_torn_at_any_byte_is_cut_and_the_journal_goes_on() -> None:
    """Truncation at every byte of the last record: what is before is whole, the place becomes zeros, is used again."""
    written = write([40, 100, LARGE])
    start = 3 * BLOCK
    whole = bytes(written.disk.seen[segment(1)].seen)
    end = start + 128 + LARGE
    for cut in range(start, end):
        disk = written.disk
        disk.overwrite(segment(1), 0, whole[:cut].ljust(len(whole), b"\0"))
        payloads, verdict = read(disk)
        if cut == end - 1 and whole[cut] == 0:
            continue
        assert payloads == written.payloads[:2], cut
        assert verdict.case == ("@C" if cut == start else "@D"), cut
        assert (verdict.place.offset, verdict.place.sequence) == (start, 3)
        if cut % 512 == 1:
            repair(disk, verdict)
            assert bytes(disk.seen[segment(1)].durable[start:]) == bytes(len(whole) - start)
            again = write([50], disk=disk, place=verdict.place)
            assert read(disk)[0] == written.payloads[:2] + again.payloads
    disk.overwrite(segment(1), 0, whole)
    assert read(disk)[0] == written.payloads


def test_d_a_record_whose_sectors_were_written_in_any_order_is_cut() -> None:
    written = write([40, LARGE])
    start = 2 * BLOCK
    whole = bytes(written.disk.seen[segment(1)].seen)
    random = Random(20)
    for _ in range(300):
        torn = bytearray(whole)
        lost = [at for at in range(start, start + 3 * BLOCK, 512) if random.random() < 0.5]
        for at in lost:
            torn[at : at + 512] = bytes(512)
        written.disk.overwrite(segment(1), 0, bytes(torn))
        payloads, verdict = written.read()
        if torn == whole:
            assert payloads == written.payloads
        else:
            assert payloads == written.payloads[:1]
            repair(written.disk, verdict)
            assert read(written.disk)[1].case == "@C"


def test_e_a_segment_torn_when_it_was_begun_is_cut() -> None:
    written = write([LARGE, LARGE], blocks=4)
    whole = bytes(written.disk.seen[segment(2)].seen)
    for cut in (1, 8, 16, 60):
        written.disk.overwrite(segment(2), 0, whole[:cut].ljust(len(whole), b"\0"))
        payloads, verdict = written.read()
        assert payloads == written.payloads[:1]
        assert verdict.case == "@E"
        repair(written.disk, verdict)
        assert read(written.disk)[1].case == "@C"
        again = write([LARGE], blocks=4, disk=written.disk.copy(), place=verdict.place)
        assert again.read()[0] == written.payloads[:1] + again.payloads


def test_f_what_was_never_finished_is_removed() -> None:
    written = write([40])
    written.disk.open(segment(2) + ".preparing", create=True).pwrite((bytes(BLOCK),), 0)
    _, verdict = written.read()
    repair(written.disk, verdict)
    assert written.disk.names() == [segment(1)]


def test_g_a_bad_record_with_a_good_one_behind_it_is_refused() -> None:
    written = write([40, 40, 40])
    written.disk.flip(segment(1), 2 * BLOCK + 130)
    error = refused(written.disk)
    assert (error.case, error.file, error.offset, error.sequence) == ("@G", segment(1), 2 * BLOCK, 2)
    assert "payload" in error.what
    erased = write([40, LARGE, 40])
    erased.disk.overwrite(segment(1), 2 * BLOCK, bytes(3 * BLOCK))
    assert refused(erased.disk).case == "@G"


def test_g_a_bad_record_at_the_end_of_a_segment_is_refused_when_the_next_was_begun() -> None:
    written = write([LARGE, LARGE], blocks=4)
    written.disk.flip(segment(1), BLOCK + 3000)
    assert refused(written.disk).case == "@G"
    # Also when the first record of the next one is torn itself.
    written.disk.overwrite(segment(2), BLOCK, bytes(BLOCK))
    assert refused(written.disk).case == "@G"


def test_h_a_bad_record_at_or_below_a_durable_sequence_is_refused() -> None:
    written = write([40, 40])
    written.disk.flip(segment(1), 2 * BLOCK + 20)
    assert written.read(durable_sequence=1)[1].case == "@D"
    assert refused(written.disk, durable_sequence=2).case == "@H"
    written.disk.overwrite(segment(1), 2 * BLOCK, bytes(BLOCK))
    assert refused(written.disk, durable_sequence=2).case == "@H"


def rewritten(disk: FaultyDisk, name: str, offset: int, **changes: object) -> None:
    """Gives a record's header other fields, with a checksum that is right."""
    decoded = decode_record_header(disk.seen[name].seen, offset)
    assert not isinstance(decoded, str)
    fields = {field: getattr(decoded[0], field) for field in RecordHeader.__slots__} | changes
    disk.overwrite(name, offset, RecordHeader(**fields).encode()[0])


def test_i_a_gap_and_a_stale_record_are_refused() -> None:
    for sequence, text in ((3, "gap"), (1, "stale")):
        written = write([40, 40])
        rewritten(written.disk, segment(1), 2 * BLOCK, sequence=sequence)
        error = refused(written.disk)
        assert error.case == "@I"
        assert text in error.what


def test_j_a_record_that_does_not_follow_the_one_before_is_refused() -> None:
    written = write([40, 40])
    rewritten(written.disk, segment(1), 2 * BLOCK, previous_checksum=12345)
    assert refused(written.disk).case == "@J"
    broken = write([LARGE, LARGE], blocks=4)
    header = list_segments(broken.disk)[1].header
    assert isinstance(header, SegmentHeader)
    forged = SegmentHeader(1, JOURNAL_ID, 2, 4 * BLOCK, 2, header.previous_checksum ^ 1)
    broken.disk.overwrite(segment(2), 0, forged.encode())
    assert refused(broken.disk).case == "@J"


def test_k_records_and_segments_of_another_journal_are_refused() -> None:
    written = write([40, 40])
    rewritten(written.disk, segment(1), 2 * BLOCK, journal_id=b"another journal!")
    assert refused(written.disk).case == "@K"
    mixed = write([LARGE, LARGE, LARGE], blocks=4)
    other = write([LARGE, LARGE, LARGE], blocks=4, journal_id=b"another journal!")
    mixed.disk.seen[segment(2)] = other.disk.seen[segment(2)]
    assert refused(mixed.disk).case == "@K"


def test_l_a_damaged_segment_header_is_refused_when_records_stand_behind_it() -> None:
    for name in (segment(1), segment(2), segment(3)):
        for damage in (bytes(BLOCK), b"\xff"):
            written = write([LARGE, LARGE, LARGE], blocks=4)
            written.disk.overwrite(name, 0, damage)
            error = refused(written.disk)
            assert (error.case, error.file) == ("@L", name)


def test_m_a_missing_segment_is_refused() -> None:
    for number in (1, 2):
        written = write([LARGE, LARGE, LARGE], blocks=4)
        del written.disk.seen[segment(number)]
        error = refused(written.disk)
        assert (error.case, error.file) == ("@M", segment(number))
    # The newest one is missed too, because the one after it had been prepared.
    written = write([LARGE, LARGE], blocks=4)
    written.disk.open(segment(3), create=True).pwrite((bytes(4 * BLOCK),), 0)
    del written.disk.seen[segment(2)]
    assert refused(written.disk).case == "@M"


def test_m_segments_below_the_first_sequence_that_is_wanted_are_not_needed() -> None:
    written = write([LARGE, LARGE, LARGE], blocks=4)
    del written.disk.seen[segment(1)]
    walk = Walk(written.disk, first_sequence=2, durable_sequence=1)
    assert [bytes(record.payload) for record in walk] == written.payloads[1:]


def test_n_a_cut_or_lengthened_file_is_refused() -> None:
    for change in (-1, -BLOCK, -6 * BLOCK, BLOCK):
        written = write([40, 40])
        seen = written.disk.seen[segment(1)].seen
        if change < 0:
            del seen[change:]
        else:
            seen.extend(bytes(change))
        assert refused(written.disk).case == "@N"


def test_o_a_snapshot_without_a_journal_is_refused() -> None:
    assert refused(FaultyDisk(), durable_sequence=5).case == "@O"


def test_a_payload_can_not_pass_itself_off_as_a_record() -> None:
    """The last record is torn, and its payload holds what looks like a later record: it is cut all the same."""
    inner = RecordHeader(xxh64(b"x"), 1, 1, b"guessed journal!", 9, 0, 0, 8, 0, 0).encode()[0] + b"x"
    disk = FaultyDisk()
    journal = Journal(disk, JOURNAL_ID, 1, START, settings(8))
    append(journal, payload(1))
    append(journal, bytes(BLOCK - 128) + inner.ljust(BLOCK, b"\0"))
    journal.close()
    disk.flip(segment(1), 2 * BLOCK + 200)
    payloads, verdict = read(disk)
    assert payloads == [payload(1)]
    assert verdict.case == "@D"


def test_every_flipped_byte_is_refused_or_only_ever_costs_the_last_record() -> None:
    """No single flipped byte loses an acknowledged record in silence; the last may be cut, unless it is vouched for."""
    written = write([40, 4096, 40, 40], blocks=6)  # 1 + 1 + 2 + 1 + 1 blocks; all of one segment is used
    last = 5 * BLOCK
    for offset in range(6 * BLOCK):
        written.disk.flip(segment(1), offset, offset % 8)
        try:
            payloads, verdict = written.read()
        except JournalDamaged:
            assert offset < last
        else:
            assert offset >= last, f"byte {offset}"
            assert payloads == written.payloads[:3]
            assert verdict.case == "@D"
            with pytest.raises(JournalDamaged):
                written.read(durable_sequence=4)
        written.disk.flip(segment(1), offset, offset % 8)
    assert written.read()[0] == written.payloads


def test_every_flipped_byte_of_a_prepared_segment_is_harmless() -> None:
    written = write([40], blocks=2)
    written.disk.open(segment(2), create=True).pwrite((bytes(2 * BLOCK),), 0)
    for offset in range(0, 2 * BLOCK, 7):
        disk = written.disk.copy()
        disk.flip(segment(2), offset)
        payloads, verdict = read(disk)
        assert payloads == written.payloads
        assert verdict.case == "@E"
        repair(disk, verdict)
        assert write([40], blocks=2, disk=disk, place=verdict.place).read()[1].case == "@C"


def test_headers_say_what_is_wrong_with_them() -> None:
    header = SegmentHeader(1, JOURNAL_ID, 3, 8 * BLOCK, 5, 6)
    block = header.encode()
    assert decode_segment_header(block, 3, 8 * BLOCK) == header
    assert "renamed" in str(decode_segment_header(block, 4, 8 * BLOCK))
    assert "on disk" in str(decode_segment_header(block, 3, 9 * BLOCK))
    assert "checksum" in str(decode_segment_header(block[:-1] + b"\1", 3, 8 * BLOCK))
    assert "magic" in str(decode_segment_header(b"?" + block[1:], 3, 8 * BLOCK))
    assert "ends" in str(decode_segment_header(block[:100], 3, 8 * BLOCK))
