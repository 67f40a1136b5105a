"""The demo's hub with what tests need: a token that may do everything, and choices that go wrong."""

import os
from pathlib import Path

import yaml

import snowyspawner
from snowyspawner.web import courses

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent.parent / "demo" / "jupyterhub_config.py"))  # noqa: F821

# A port of the cluster's own block: another run beside this one must not take it while the hub is down.
c.JupyterHub.bind_url = f"http://127.0.0.1:{c.JupyterHub.hub_port + 5}"

directory = Path(os.environ["SNOWYSPAWNER_TEST_DIRECTORY"])
state = Path(os.environ["SNOWYSPAWNER_DEMO_STATE"])

c.JupyterHub.db_url = f"sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = str(directory / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(directory / "proxy.pid")
# The token is a random one: checking it needs none of the hashing that a password would, 8 ms of each request.
c.JupyterHub.trust_user_provided_tokens = True
c.JupyterHub.services = [{"name": "tests", "api_token": os.environ["SNOWYSPAWNER_TEST_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "tests",
        "services": ["tests"],
        "scopes": ["admin:users", "admin:servers", "access:servers", "tokens", "groups", "read:metrics"],
    },
    # Somebody who helps others.
    {"name": "help", "groups": ["helpers"], "scopes": ["admin:server_state"]},
]
c.JupyterHub.load_groups = {"helpers": {"users": [max(c.Authenticator.allowed_users)]}}

site = {
    "extends": str(state / "site.yaml"),
    # Choices that go wrong on the node.
    "images": {
        "missing.sif": {"path": str(directory / "missing.sif")},
        "broken.sif": {"path": str(directory / "broken.sif")},
        "closed.sif": {"path": "/root/closed.sif"},
    },
    "environments": {"gone": {"description": "An environment that no image has"}},
}
(directory / "broken.sif").write_bytes(os.urandom(4096))
(directory / "broken.sif").chmod(0o644)
(directory / "site.yaml").write_text(yaml.safe_dump(site))
c.SnowySpawner.site = str(directory / "site.yaml")
snowyspawner.set_config(c)


class HastySpawner(snowyspawner.SnowySpawner):
    """Looks every few seconds at what is free and at courses, not every half minute: tests wait for that."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.life.facts.live_for = 5.0
        courses.known(self.life).fresh_for = 1.5


c.JupyterHub.spawner_class = HastySpawner
(directory / "url").write_text(c.JupyterHub.bind_url.rstrip("/"))
(directory / "own").write_text(f"http://127.0.0.1:{c.JupyterHub.hub_port}")
