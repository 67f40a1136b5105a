"""JupyterLab in a course's container on a Slurm GPU cluster.

In ``jupyterhub_config.py``::

    import snowyspawner

    c.JupyterHub.spawner_class = "snowy"
    c.SnowySpawner.site = "snowy"
    snowyspawner.set_config(c)  # last
"""

from importlib.metadata import version

from .config import ConfigError, set_config
from .spawner import SnowySpawner

__version__ = version("snowyspawner")
__all__ = ["ConfigError", "SnowySpawner", "__version__", "set_config"]
