"""Slurm, the outside world. Nothing in here knows JupyterHub."""
