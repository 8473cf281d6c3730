from __future__ import annotations

import os
import subprocess
import sys
import time

from msa_harness.conditions import ForeignLoad


def burn(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_foreign_process_is_seen_and_our_own_is_not():
    cores = len(os.sched_getaffinity(0))
    code = "import time; end = time.perf_counter() + 5\nwhile time.perf_counter() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.2)
        theirs, ours = ForeignLoad([]), ForeignLoad([other.pid])
        time.sleep(1.0)
        foreign, known = theirs.share(), ours.share()
    finally:
        other.kill()
        other.wait()
    assert foreign is not None
    assert known is not None
    # others may be busy too; what the burner alone took is the difference
    assert foreign - known > 0.1 / cores


def test_this_process_is_not_foreign_to_itself():
    load = ForeignLoad([])
    before = time.process_time()
    burn(0.5)
    used = time.process_time() - before
    share = load.share()
    assert share is not None
    cores = len(os.sched_getaffinity(0))
    assert share <= 1.0 - used / (0.5 * cores) + 0.15
