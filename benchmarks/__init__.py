"""What the framework costs, measured: one workload, many servers, one machine. README.md tells how, and what it means.

Owns: the servers under test (`servers`), what is asked of them (`workloads`, `growth`), and the words for what came out
(`summary`, `plot`). Knows nothing of the package but `app.py`, an application like any user's. The harness itself needs
nothing but Python, a C compiler and wrk, and Linux, whose /proc it reads.
"""
