"""The hub of the miniature cluster: the real configuration, and what is different on one machine.

``python -m demo run`` starts it; with the cluster up, ``.venv/bin/jupyterhub -f demo/jupyterhub_config.py`` does, too.
"""

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from demo import DemoError  # noqa: E402
from demo.cluster import Cluster  # noqa: E402
from demo.daemons import MARK  # noqa: E402
from demo.hub import hub_directory, public_port  # noqa: E402

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(CHECKOUT / "jupyterhub_config.py"))  # noqa: F821

cluster = Cluster(os.environ.get("SNOWYSPAWNER_DEMO_STATE") or None)
if not cluster.is_up:
    raise DemoError("the miniature cluster is not up: python -m demo up")
directory = hub_directory(cluster)

# The login node's environment: Slurm's commands find their cluster by it. The mark lets `down` find the proxy.
os.environ.update(cluster.env)
os.environ[MARK] = f"{cluster.state}:hub"

# The same Site with this machine's addresses and image.
c.SnowySpawner.site = str(cluster.site_file)

# This machine only. The hub's own port stays the same from start to start: running sessions know it.
c.JupyterHub.bind_url = f"http://127.0.0.1:{public_port(cluster)}"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_connect_ip = "127.0.0.1"
c.JupyterHub.hub_port = cluster.ports["hub"]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{cluster.ports['proxy_api']}"
c.ConfigurableHTTPProxy.command = cluster.proxy_command
c.ConfigurableHTTPProxy.pid_file = str(directory / "proxy.pid")

# The demo's people, and nobody else who has an account here.
c.Authenticator.allow_all = False
c.Authenticator.allowed_users = set(cluster.users)
c.PAMAuthenticator.open_sessions = False

# What the hub remembers goes with the demo.
c.JupyterHub.db_url = f"sqlite:///{directory}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = str(directory / "cookie_secret")
c.JupyterHub.pid_file = str(directory / "jupyterhub.pid")
(directory / "url").write_text(c.JupyterHub.bind_url + "\n", encoding="utf-8")
