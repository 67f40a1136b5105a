"""The tests' hub with another way in: OpenID Connect, by a provider that the test runs itself."""

import json
import os
from pathlib import Path

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent.parent / "hub_config.py"))  # noqa: F821

from demo.cluster import Cluster  # noqa: E402  the demo's configuration has made it importable
from demo.state import free_ports  # noqa: E402

directory = Path(os.environ["SNOWYSPAWNER_TEST_DIRECTORY"])
public, own, api = free_ports(Cluster(os.environ["SNOWYSPAWNER_DEMO_STATE"]).spare_ports, 3)
c.JupyterHub.bind_url = f"http://127.0.0.1:{public}"
c.JupyterHub.hub_port = own
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{api}"

provider = json.loads((directory / "provider.json").read_text())["url"]
c.JupyterHub.authenticator_class = "generic-oauth"
c.GenericOAuthenticator.client_id = "hub"
c.GenericOAuthenticator.client_secret = "for tests"
c.GenericOAuthenticator.oauth_callback_url = f"http://127.0.0.1:{public}/hub/oauth_callback"
c.GenericOAuthenticator.authorize_url = f"{provider}/authorize"
c.GenericOAuthenticator.token_url = f"{provider}/token"
c.GenericOAuthenticator.userdata_url = f"{provider}/userinfo"
c.GenericOAuthenticator.username_claim = "preferred_username"
c.GenericOAuthenticator.login_service = "the test's provider"
c.GenericOAuthenticator.scope = ["openid"]
c.GenericOAuthenticator.allow_all = True
(directory / "url").write_text(c.JupyterHub.bind_url.rstrip("/"))
(directory / "own").write_text(f"http://127.0.0.1:{own}")
