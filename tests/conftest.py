"""Double precision, and the process settings of the command line, before JAX starts."""

import gc
import os
import tempfile

# One BLAS thread: small matrices lose by more.
# No optimisation, and the emitters that compile fastest: the tests compile for minutes what then runs for seconds.
for variable, value in (
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
    ("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0"),  # of each operation of a program, for profiles
    ("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"),
):
    os.environ.setdefault(variable, value)
# One folder of programs for all processes of a run, which share many of them; not the user's.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _PROGRAMS = tempfile.TemporaryDirectory(prefix="vpotjax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _PROGRAMS.name
gc.set_threshold(50_000, 20, 100)  # tracing allocates much that lives: five per cent of the time went into collections

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)


@pytest.fixture(autouse=True, scope="module")
def _free_programs_of_a_file():
    """Many large programs in a process exhaust its memory maps, which ends it without a word."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _free_programs(request):
    """Compiled programs of slow tests are given back: many large ones in a process exhaust its memory maps."""
    yield
    if request.node.get_closest_marker("slow"):
        jax.clear_caches()
