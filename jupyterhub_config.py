"""The hub on Snowy's login node. Copy it, read it, change what is yours.

Run it with ``jupyterhub -f jupyterhub_config.py`` on a host that can submit to the cluster and that the compute
nodes can reach.
"""

import snowyspawner

c = get_config()  # noqa: F821  JupyterHub defines it

# -- Sessions --------------------------------------------------------------------------------------------------

# Jobs on the cluster instead of processes on this host. "snowy" is snowyspawner's entry point.
c.JupyterHub.spawner_class = "snowy"

# The cluster. A shipped site, or the path of your own YAML file, which may say "extends: snowy" and then holds
# only what is different: docs/reference/site.md.
c.SnowySpawner.site = "snowy"

# "You can enqueue multiple notebook jobs with different settings in different windows": named servers do that.
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = 8

# A job may wait this long (seconds) in the queue before it is cancelled, and this long to start its server.
c.SnowySpawner.queue_timeout = 12 * 3600
c.SnowySpawner.launch_timeout = 180

# -- Network ---------------------------------------------------------------------------------------------------

# Where people's browsers go. Put TLS in front (nginx, Apache), or give ssl_key and ssl_cert here.
c.JupyterHub.bind_url = "http://127.0.0.1:8000"

# Where jobs reach the hub: this host's name in the cluster's network. Empty would mean 127.0.0.1, which on a
# compute node is the node itself.
c.JupyterHub.hub_ip = "0.0.0.0"  # noqa: S104  the compute nodes must get in
# c.JupyterHub.hub_connect_ip = "rackham3.uppmax.uu.se"

# The proxy as a service of its own, so that a restart of the hub cuts nobody off; docs/install.md has its unit.
# c.ConfigurableHTTPProxy.should_start = False

# -- People ----------------------------------------------------------------------------------------------------

# Whoever may log in to this host may use the hub: PAM, JupyterHub's default. A hub that is not root can only
# check its own account's password.
c.JupyterHub.authenticator_class = "pam"
c.Authenticator.allow_all = True

# -- What waiting jobs need ------------------------------------------------------------------------------------

# Last: checks the site, and sets what JupyterHub's defaults would break for jobs that wait for hours.
snowyspawner.set_config(c)
