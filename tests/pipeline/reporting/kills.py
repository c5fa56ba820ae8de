"""Processes that share an outbox: `kills.py kill|race FILE ADDRESS...`.

`kill` posts a page in a process that is killed before its first effect, goes on in another process,
and repeats this with the next effect, until a process gets to its end. It prints how many were
killed. A kill between two effects leaves what a kill before the second one leaves.
`race` posts eight pages that other processes post as well.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from apprise import Apprise

from pipeline.config import Alerts
from pipeline.reporting import delivery, outbox
from pipeline.reporting.delivery import Pager
from pipeline.reporting.pages import Event

EFFECTS = {"Connection.execute", "Connection.close", "open", "mkdir"} | {
    f"socket.{name}" for name in ("connect", "sendall", "recv_into", "close")
}
"""Functions that change something outside of the process, or learn of it."""


def main():
    what, file, *urls = sys.argv[1:]
    alerts = Alerts(urls=urls, per_hour=1_000_000)
    pager = Pager(Path(file), "shop", "conf/shop.yaml", alerts)
    Apprise.instantiate(urls[0])  # loads its plugins, here and not in each process
    if what == "race":
        for n in range(8):
            posted(pager, n)
        return
    n = 0
    while apart(lambda: killed_at(n, lambda: posted(pager, n))) == -signal.SIGKILL:  # noqa: B023
        assert apart(lambda: posted(pager, n)) == 0  # noqa: B023 -- called at once
        n += 1
    sys.stdout.write(f"{n + 1}\n")


def posted(pager, n):
    delivery.post(pager, Event("drift", str(n), f"shop: drift {n}", "What: temp."))
    delivery.deliver(pager)


def killed_at(effect, work):
    """Do some work, and be killed before one of its effects, counted over all threads."""
    left = [effect]

    def profile(_, event, function):
        if event == "c_call" and function.__qualname__ in EFFECTS:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(profile)
    sys.setprofile(profile)
    work()
    sys.setprofile(None)


def apart(work):
    """Exit code of some work in a process of its own."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    outbox._FIRST_DELAY = 0.0
    main()
