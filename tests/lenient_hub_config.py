"""A second hub on the same cluster: its Sites promise what Slurm refuses, and its time zone is another."""

from pathlib import Path

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent / "failing_hub_config.py"))  # noqa: F821

# JupyterHub's default is 10 seconds. Whoever presses Start sees what Slurm says, if it takes no longer.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 5}
