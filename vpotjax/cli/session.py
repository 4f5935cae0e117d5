"""How a process computes: threads, precision, and compiled programs that are kept for the next one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROGRAMS = 1 << 30  # bytes of compiled programs that are kept, the latest used


def one_blas_thread() -> None:
    """Small matrices lose by more; the environment wins."""
    if not {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} & os.environ.keys():
        import scipy.linalg  # noqa: F401  its BLAS has to be there
        import threadpoolctl

        threadpoolctl.threadpool_limits(1, "blas")


def configure_jax() -> None:
    """Double precision; and compiled programs are kept for the next command. The environment wins here too."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(_program_cache()))
        jax.config.update("jax_compilation_cache_max_size", PROGRAMS)


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
