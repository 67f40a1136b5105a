"""A hub for as many people as a test wants, who need no account here; its Slurm can be told to be away."""

import os
from pathlib import Path

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent / "failing_hub_config.py"))  # noqa: F821

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = os.environ["SNOWYSPAWNER_TEST_TOKEN"]
c.Authenticator.allow_all = True


class HastySpawner(c.JupyterHub.spawner_class):
    """Looks every few seconds at what is free, not every half minute: tests wait for that."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.life.facts.live_for = 5.0


c.JupyterHub.spawner_class = HastySpawner
