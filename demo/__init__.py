"""A miniature of a Site on this machine: real Slurm, real accounting, real Apptainer.

``python -m demo --help`` says what it does. Everything it makes lies under one state directory and one cache
directory; `demo.cluster.Cluster` is the same thing for tests.
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


class DemoError(RuntimeError):
    """The demo cannot go on. The text says why and what to do about it."""
