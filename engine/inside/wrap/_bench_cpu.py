"""Which threads of this process compute, at the moment of a sample. Standard library only.

A thread that computes keeps the others out: Python makes it give way after 5 ms, and the sample sees it where it
computes. One that gave way by itself, to send or to wait, has computed just before the line where it is seen.
"""

import threading
import time

computed_s = {}  # thread -> CPU seconds just before a sample; empty: it was not asked


def let_compute(sleep):
    """Note what each thread has computed, and let them go on for a short time."""
    computed_s.update({thread: cpu_s_of(thread) for thread in list(threading._active)})
    sleep(0.001)


def since_then(thread):
    """CPU seconds of a thread since let_compute()."""
    if thread not in computed_s:
        return 0.0
    return max(0.0, cpu_s_of(thread) - computed_s[thread])  # less: another thread has its number now


def cpu_s_of(thread):
    """CPU seconds of a thread; 0 where the system does not tell."""
    native = getattr(threading._active.get(thread), "native_id", None)
    try:
        # Linux: the clock of a thread by its number. To read it from a file would let other threads go on meanwhile.
        return time.clock_gettime(~native << 3 | 6)
    except (OSError, TypeError, OverflowError):
        return 0.0


def other_cpu_s():
    """CPU seconds of the process but for this thread."""
    return time.process_time() - time.thread_time()
