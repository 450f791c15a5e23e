"""How the tests are shared among processes. The fixtures are in ``tests/support/fixtures.py``.

pytest-xdist starts a worker for each core; the process that hands out the tests imports no torch.
"""

from __future__ import annotations

import os

import pytest

from tests.fake_hub.fixtures import start_before_imports

MOST_WORKERS = 8  # each needs 0.7 GB of memory
CORES = os.cpu_count() or 1

if "PYTEST_XDIST_WORKER" in os.environ:  # torch and numpy read these when they are imported
    threads = str(max(1, CORES // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = threads

start_before_imports()  # the test Hub must be known before anything imports its client


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker for each core, but no more than files; a single file runs in this process."""
    files = set()
    for argument in config.args:
        path = config.invocation_params.dir / argument.split("::")[0]
        files |= set(path.rglob("test_*.py")) if path.is_dir() else {path}
    workers = min(CORES, MOST_WORKERS, len(files))
    return workers if workers > 1 else 0


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, but not where tests are only handed out."""
    if not config.getoption("numprocesses") or config.getoption("collectonly"):
        config.pluginmanager.import_plugin("tests.support.fixtures")
