"""Say on a terminal what a command waits for, where XLA compiles for longer than two seconds."""

import sys
import threading
from typing import Any

__all__ = ["announce_compilation"]

_PATIENCE = 2.0  # s
# Events of jax.monitoring: a program that is not in memory is asked for, and it has been compiled or read.
_BEGIN = "/jax/compilation_cache/compile_requests_use_cache"
_END = "/jax/core/compile/backend_compile_duration"
_TEXT = "compiling, once for this kind of design: some 5 to 40 s; later calls find the result in {folder}"


def announce_compilation(folder: str) -> None:
    """Print one line on stderr when a compilation of this process takes longer than two seconds.

    Args:
        folder: where compiled programs are kept.
    """
    import jax

    waiting: list[threading.Timer] = []
    announced = threading.Event()

    def tell() -> None:
        if not announced.is_set():
            announced.set()
            print(f"jaxcost: {_TEXT.format(folder=folder)}", file=sys.stderr, flush=True)

    def begin(event: str, **_: Any) -> None:
        if event == _BEGIN and not announced.is_set():
            waiting.append(threading.Timer(_PATIENCE, tell))
            waiting[-1].daemon = True
            waiting[-1].start()

    def end(event: str, duration_secs: float, **_: Any) -> None:
        if event == _END:
            while waiting:
                waiting.pop().cancel()

    jax.monitoring.register_event_listener(begin)
    jax.monitoring.register_event_duration_secs_listener(end)
