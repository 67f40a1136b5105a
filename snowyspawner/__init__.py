"""JupyterLab in a course's container on a Slurm GPU cluster.

In ``jupyterhub_config.py``::

    import snowyspawner

    c.JupyterHub.spawner_class = "snowy"
    c.SnowySpawner.site = "snowy"
    snowyspawner.set_config(c)  # last
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ConfigError, set_config
    from .spawner import SnowySpawner

__version__ = version("snowyspawner")
__all__ = ["ConfigError", "SnowySpawner", "__version__", "set_config"]


def __getattr__(name: str) -> Any:
    """Import what a hub needs when it is asked for: JupyterHub takes longer than all else that the command does."""
    if name in ("ConfigError", "set_config"):
        from . import config

        return getattr(config, name)
    if name == "SnowySpawner":
        from .spawner import SnowySpawner

        return SnowySpawner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
