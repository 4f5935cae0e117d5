"""How a process computes: threads, precision, and compiled programs that are kept for the next one."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import traceback
from pathlib import Path

from vpotjax._checks import InputError

HEARTBEAT = 30  # seconds without a sign of life after which other processes are given up
PROGRAMS = 1 << 30  # bytes of compiled programs that are kept, the latest used
SHORTEST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"  # of a program that is kept


def one_blas_thread() -> None:
    """Small matrices lose by more; the environment wins."""
    if not {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} & os.environ.keys():
        import scipy.linalg  # noqa: F401  its BLAS has to be there
        import threadpoolctl

        threadpoolctl.threadpool_limits(1, "blas")


def configure_jax() -> None:
    """Double precision, rarer garbage collections, and programs kept for the next command; the environment wins."""
    import jax

    gc.set_threshold(50_000, 20, 100)  # tracing allocates much that lives: collections were four per cent of `predict`
    jax.config.update("jax_enable_x64", True)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(_program_cache()))
        jax.config.update("jax_compilation_cache_max_size", PROGRAMS)
    if SHORTEST not in os.environ:  # JAX keeps none below a second, of which a command has several
        jax.config.update(SHORTEST.lower(), 0.1)


def join_processes(how: str) -> None:
    """Become one of several processes of a training, see `vpotjax train --help`.

    Raises:
        InputError: `how` is neither "auto" nor an address, a count and a number; the others cannot be found.
    """
    import jax

    if how == "auto":
        given = {}
    else:
        address, count, number = parts if len(parts := how.split(",")) == 3 else ("", "", "")
        if not (":" in address and count.isdigit() and number.isdigit() and int(number) < int(count)):
            raise InputError(
                f"processes is {how!r}; give 'auto', or the address of the first process, how many there are, and the "
                "number of this one from 0, as node1:9876,2,0."
            )
        given = {"coordinator_address": address, "num_processes": int(count), "process_id": int(number)}
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"processes is {how!r}, but this process cannot join the others ({reason}); check addresses and counts."
        ) from None
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise InputError(
            f"this process has {jax.local_device_count()} of {jax.device_count()} devices in {jax.process_count()} "
            "processes; give all of them as many."
        )


def end_if_joined(code: int, error: BaseException | None = None) -> None:
    """Where this is one of several processes and has failed, end at once: by itself it would wait for the others."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        if error is not None:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _program_cache() -> Path:
    """A folder of its own for each kind of processor, whose programs no other can run."""
    import hashlib
    import platform

    import platformdirs

    kind = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):  # Linux alone has it
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind += "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return platformdirs.user_cache_path("vpotjax") / f"programs-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
