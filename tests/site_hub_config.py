"""A hub beside the shared one, with a Site that is nothing but what a test has written: directory/own.yaml."""

import os
from pathlib import Path

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent / "fault_hub_config.py"))  # noqa: F821

c.SnowySpawner.site = str(Path(os.environ["SNOWYSPAWNER_TEST_DIRECTORY"]) / "own.yaml")
