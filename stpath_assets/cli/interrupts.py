"""Ctrl-C: a command ends with one line and exit code 130, within two seconds.

Nothing that was finished is lost: parts are written whole, and a run that ends here is told from one that works by its process.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
SAID = "interrupted; what was finished is kept, and the same command goes on from there"
PATIENCE_S = 1.5
"""Time that a command has to end by itself, s."""

_INTERRUPT = {signal.SIGINT}
_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def ending_soon() -> Iterator[None]:
    """End the process inside the block soon after SIGINT, even if a library holds the interrupt back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Its own copy of stderr: Dagster redirects the file descriptor while a step runs.
    error, (read, write), done = os.dup(2), os.pipe(), threading.Event()
    os.set_blocking(write, False)
    # Python writes each signal's number there at once, whichever handler is installed.
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
        while number := os.read(read, 1):
            if number[0] == signal.SIGINT and not done.wait(PATIENCE_S):
                shown = _SHOW_CURSOR if os.isatty(error) else ""
                os.write(error, f"{shown}\n{SAID}\n".encode())
                os._exit(INTERRUPTED)
        os.close(read)

    threading.Thread(target=watch, name="interrupts", daemon=True).start()
    # The thread takes the signal, and Python's handler runs here all the same. What this thread starts inherits the block:
    # Dagster's watchers of logs would each print a traceback, and end by themselves once this process has ended.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
    try:
        yield
    except KeyboardInterrupt:
        done.set()
        os.write(error, f"\n{SAID}\n".encode())
        sys.exit(INTERRUPTED)
    finally:
        done.set()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.set_wakeup_fd(before)
        os.close(write)
        os.close(error)
