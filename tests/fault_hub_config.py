"""A hub beside the shared one, with its Site and traits laid over; see tests/faults.py."""

import asyncio
import os
from pathlib import Path

import yaml
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope

import snowyspawner
from snowyspawner.session import advice


class CancelHandler(APIHandler):
    """Half of JupyterHub's DELETE of a server that starts: what it does when it is too busy for the other half."""

    @needs_scope("delete:servers")
    def delete(self, user_name, server_name):
        """Cancel the start, and leave it at that."""
        self.find_user(user_name).spawners[server_name]._spawn_future.cancel()

    @needs_scope("start:servers", "delete:servers")
    async def post(self, user_name, server_name):
        """Start a server, and cancel that as soon as JupyterHub has a row for it: before there is a job."""
        user = self.find_user(user_name)
        spawner = user.get_or_create_spawner(server_name, server_name)
        start = asyncio.ensure_future(self.spawn_single_user(user, server_name, options=self.get_json_body()))
        while spawner.server is None and not start.done():  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0)
        spawner._spawn_future.cancel()
        await asyncio.wait([start])


c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent / "hub_config.py"))  # noqa: F821

directory = Path(os.environ["SNOWYSPAWNER_TEST_DIRECTORY"])

over = directory / "laid_over.yaml"
over.write_text(yaml.safe_dump({"extends": "site.yaml", **yaml.safe_load((directory / "over.yaml").read_text())}))
c.SnowySpawner.site = str(over)
for name, value in yaml.safe_load((directory / "traits.yaml").read_text()).items():
    setattr(c.SnowySpawner, name, value)

if database := os.environ.get("SNOWYSPAWNER_TEST_DATABASE"):
    c.JupyterHub.db_url = database
    c.JupyterHub.db_kwargs = {"pool_pre_ping": True}

# The shared hub has the ports before these.
c.JupyterHub.hub_port += 2
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{c.JupyterHub.hub_port + 1}"
c.JupyterHub.bind_url = f"http://127.0.0.1:{c.JupyterHub.hub_port + 4}"
# Far more servers than people: the miniature has three of them.
c.JupyterHub.named_server_limit_per_user = 0
# REST answers at once.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": float(os.environ.get("SNOWYSPAWNER_TEST_PATIENCE", "0"))}
# A session that says something about the next one takes five minutes; a test's does not.
advice.ENOUGH = float(os.environ.get("SNOWYSPAWNER_TEST_ENOUGH", advice.ENOUGH))
c.JupyterHub.extra_handlers = [(r"/api/cancel-only/([^/]+)/([^/]+)", CancelHandler)]
snowyspawner.set_config(c)
(directory / "own").write_text(f"http://127.0.0.1:{c.JupyterHub.hub_port}")
(directory / "url").write_text(c.JupyterHub.bind_url)
