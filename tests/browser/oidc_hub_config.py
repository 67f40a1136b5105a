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
# The page's example, with what is different here.
page = (Path(__file__).resolve().parent.parent.parent / "docs" / "sign-in.md").read_text()
example = page.partition("## OpenID Connect\n")[2].partition("```python\n")[2].partition("```\n")[0]
(directory / "oidc-secret").write_text("for tests\n")
for there, here in {
    "/etc/jupyterhub/oidc-secret": str(directory / "oidc-secret"),
    "https://jupyter.example.org": f"http://127.0.0.1:{public}",
    "https://login.example.org": provider,
}.items():
    assert there in example
    example = example.replace(there, here)
exec(compile(example, "docs/sign-in.md", "exec"))  # noqa: S102  the page's
(directory / "url").write_text(c.JupyterHub.bind_url.rstrip("/"))
(directory / "own").write_text(f"http://127.0.0.1:{own}")
