"""A second hub on the same cluster, whose Sites go wrong: the name of a server decides which one it is."""

import json
import os
from pathlib import Path

from snowyspawner import SnowySpawner
from snowyspawner.site import load

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent / "hub_config.py"))  # noqa: F821

from demo.cluster import Cluster  # noqa: E402  the demo's configuration has made it importable
from demo.state import free_ports  # noqa: E402

directory = Path(os.environ["SNOWYSPAWNER_TEST_DIRECTORY"])


class FailingSpawner(SnowySpawner):
    """Takes its Site from SERVER.yaml, else default.yaml; sets the traits that are in SERVER.json."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        site, traits = directory / f"{self.name}.yaml", directory / f"{self.name}.json"
        self.life.site = load(site if site.exists() else directory / "default.yaml")
        if traits.exists():
            for name, value in json.loads(traits.read_text()).items():
                setattr(self, name, value)


c.JupyterHub.spawner_class = FailingSpawner
# REST answers 202 at once, never just while a start fails, when JupyterHub would say neither 202 nor why.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}

# Each way to fail has a server of its own.
c.JupyterHub.named_server_limit_per_user = 0

# The shared hub has the cluster's own ports. This one keeps those that it finds free: jobs know them.
ports = directory / "ports"
if not ports.exists():
    spare = Cluster(os.environ["SNOWYSPAWNER_DEMO_STATE"]).spare_ports
    ports.write_text(" ".join(map(str, free_ports(spare, 3))))
public, own, api = ports.read_text().split()
c.JupyterHub.bind_url = f"http://127.0.0.1:{public}"
c.JupyterHub.hub_port = int(own)
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{api}"
(directory / "url").write_text(c.JupyterHub.bind_url)
(directory / "own").write_text(f"http://127.0.0.1:{own}")
