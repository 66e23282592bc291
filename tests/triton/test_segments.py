"""Segments of /dev/shm: lent and returned, and swept once their process is gone."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapter.triton import segments
from adapter.triton.segments import Segment

FOLDER = Path("/dev/shm")
MAKE = (
    "import time; from adapter.triton.segments import Segment;"
    "kept = Segment(4096); print(kept.name, flush=True); time.sleep(100)"
)


def test_it_is_returned_with_the_last_part_of_its_last_view() -> None:
    segment, returned = Segment(4096), list[Segment]()
    view = segment.lend(returned.append)
    view[:4] = b"abcd"
    part = view[1:3]
    del view
    gc.collect()
    assert returned == []
    assert bytes(part) == b"bc"
    del part
    assert returned == [segment]
    again = segment.lend(returned.append)
    assert bytes(again[:4]) == b"abcd"


def test_it_is_for_this_user_alone_and_goes_with_its_object() -> None:
    segment = Segment(4096)
    path = FOLDER / segment.name
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 4096
    assert segments.is_held(segment.name)
    segment.unlink()
    assert not path.exists()
    other = FOLDER / Segment(4096).name
    gc.collect()
    assert not other.exists()


def test_half_of_dev_shm_is_left_to_others() -> None:
    before = set(FOLDER.iterdir())
    with pytest.raises(OSError, match="less than half of /dev/shm would be left"):
        Segment(segments.most_bytes() + 4096)
    assert set(FOLDER.iterdir()) <= before


def test_those_of_a_killed_process_are_swept_and_no_others() -> None:
    with subprocess.Popen([sys.executable, "-c", MAKE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = process.stdout.readline().strip()
        ours = Segment(4096)
        assert segments.is_held(theirs)
        segments.sweep()
        assert (FOLDER / theirs).exists()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not segments.is_held(theirs)
        segments.sweep()
        assert not (FOLDER / theirs).exists()
        assert (FOLDER / ours.name).exists()
