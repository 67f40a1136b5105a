"""A cluster as data: the model of a Site, and how one is loaded.

A `Site` is checked as a whole before anybody gets it. Nothing in here asks Slurm or knows JupyterHub.
"""

from __future__ import annotations

from .loading import SiteError, load, load_or_keep, shipped
from .model import Environment, Image, Partition, Site, gpu_type

__all__ = ["Environment", "Image", "Partition", "Site", "SiteError", "gpu_type", "load", "load_or_keep", "shipped"]
