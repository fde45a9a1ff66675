"""Tests of everything; what has to be set before any library is imported is set here."""

import os

# The hub's client reads it when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# Processes of xdist share the cores. Threads of OpenMP wait for each other in a loop: with more of them than cores, what takes
# 2 s alone takes 20. NumPy and PyTorch read it when they are imported.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _share = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(_share))
