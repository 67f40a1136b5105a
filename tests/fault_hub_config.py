"""A hub beside the shared one, with its Site and traits laid over; see tests/faults.py."""

import os
from pathlib import Path

import yaml
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope

import snowyspawner


class CancelHandler(APIHandler):
    """Half of JupyterHub's DELETE of a server that starts: what it does when it is too busy for the other half."""

    @needs_scope("delete:servers")
    def delete(self, user_name, server_name):
        """Cancel the start, and leave it at that."""
        self.find_user(user_name).spawners[server_name]._spawn_future.cancel()


c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent / "hub_config.py"))  # noqa: F821

directory = Path(os.environ["SNOWYSPAWNER_TEST_DIRECTORY"])

over = directory / "laid_over.yaml"
over.write_text(yaml.safe_dump({"extends": "site.yaml", **yaml.safe_load((directory / "over.yaml").read_text())}))
c.SnowySpawner.site = str(over)
for name, value in yaml.safe_load((directory / "traits.yaml").read_text()).items():
    setattr(c.SnowySpawner, name, value)

# The shared hub has the ports before these.
c.JupyterHub.hub_port += 2
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{c.JupyterHub.hub_port + 1}"
c.JupyterHub.bind_url = f"http://127.0.0.1:{c.JupyterHub.hub_port + 4}"
# Far more servers than people: the miniature has three of them.
c.JupyterHub.named_server_limit_per_user = 0
# REST answers at once.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": float(os.environ.get("SNOWYSPAWNER_TEST_PATIENCE", "0"))}
c.JupyterHub.extra_handlers = [(r"/api/cancel-only/([^/]+)/([^/]+)", CancelHandler)]
snowyspawner.set_config(c)
(directory / "own").write_text(f"http://127.0.0.1:{c.JupyterHub.hub_port}")
(directory / "url").write_text(c.JupyterHub.bind_url)
