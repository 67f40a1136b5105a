"""The hub of `tests/faults.py`, with an administrator, somebody who may see a group's sessions, and a student."""

from pathlib import Path

from snowyspawner.session import estimate

c = get_config()  # noqa: F821  JupyterHub defines it
load_subconfig(str(Path(__file__).resolve().parent / "fault_hub_config.py"))  # noqa: F821

student, teacher, admin = sorted(c.Authenticator.allowed_users)
c.Authenticator.admin_users = {admin}
c.JupyterHub.load_groups = {"course": {"users": [student]}, "teachers": {"users": [teacher]}}
c.JupyterHub.load_roles = [
    *(role for role in c.JupyterHub.load_roles if role["name"] != "help"),
    {"name": "teachers", "groups": ["teachers"], "scopes": ["read:servers!group=course"]},
]
# A page of 200 sessions has to be made of something.
estimate.STARTS_PER_MINUTE = 1000
