"""The tests' hub with another way in: OpenID Connect, by a provider that the test runs itself."""

import json
import os
from pathlib import Path

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent.parent / "hub_config.py"))  # noqa: F821

from demo.state import is_free  # noqa: E402  the demo's configuration has made it importable

directory = Path(os.environ["SNOWYSPAWNER_TEST_DIRECTORY"])
free = (port for port in range(7000, 8000) if is_free(port))
public, own, api = (next(free) for _ in range(3))
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
