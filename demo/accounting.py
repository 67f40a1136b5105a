"""Slurm's accounting: clusters, projects, people, and the limits of partitions, told to it by sacctmgr."""

from __future__ import annotations

import re

from snowyspawner.site import Site

from .commands import run, wait_until
from .slurm import Plan, partition_qos

DEFAULT_PROJECT = "demo"  # where the Site has no default of its own
SECOND_PROJECTS = ("g2020014", "demo2")  # the first that looks like a project of the Site's, else the last
CLOSED_PROJECT = "g2019001"  # a project that exists and that no demo account belongs to


def projects(site: Site) -> tuple[str, str]:
    """Return the projects that every demo account belongs to; Slurm charges the first where none is named."""
    second = next((name for name in SECOND_PROJECTS if re.fullmatch(site.accounts.pattern, name)), SECOND_PROJECTS[-1])
    return site.accounts.default or DEFAULT_PROJECT, second


def sacctmgr(plan: Plan, *words: str) -> str:
    """Run sacctmgr against the plan's own database."""
    return run(["sacctmgr", "-i", "-n", "-P", *words], env={"SLURM_CONF": str(plan.conf(plan.login))}, timeout=60)


def registered(plan: Plan) -> dict[str, tuple[str, str]]:
    """Return where each cluster's slurmctld said it can be found: address and port (0: nowhere yet)."""
    rows = sacctmgr(plan, "show", "cluster", "format=Cluster,ControlHost,ControlPort").splitlines()
    return {name: (host, port) for name, host, port in (row.split("|")[:3] for row in rows)}


def fill(plan: Plan, accounts: list[str]) -> None:
    """Tell the accounting what is missing in it."""
    known = registered(plan)
    clusters = ",".join(plan.clusters)
    if unknown := [name for name in plan.clusters if name not in known]:
        sacctmgr(plan, "add", "cluster", ",".join(unknown))
    limits = partition_qos(plan.site)
    have = sacctmgr(plan, "show", "qos", "format=Name").split()
    for name, jobs in limits.items():
        if name not in have:
            sacctmgr(plan, "add", "qos", name)
        sacctmgr(plan, "modify", "qos", name, "set", f"MaxSubmitJobsPerUser={jobs}")
    own = projects(plan.site)
    rows = sacctmgr(plan, "show", "assoc", "format=Cluster,Account,User").splitlines()
    have_assocs = {tuple(row.split("|")[:3]) for row in rows}

    def missing(account: str, user: str = "") -> bool:
        return any((cluster, account, user) not in have_assocs for cluster in plan.clusters)

    for name in (*own, CLOSED_PROJECT):
        if missing(name):
            sacctmgr(plan, "add", "account", name, f"cluster={clusters}", f"Description={name}", "Organization=demo")
    for name in own:
        if new := ",".join(user for user in accounts if missing(name, user)):
            default = [f"DefaultAccount={name}"] if name == own[0] else []
            sacctmgr(plan, "add", "user", new, f"account={name}", *default, f"cluster={clusters}")


def wait_registered(plan: Plan) -> None:
    """Wait until the accounting knows where each cluster is: what -M looks up."""
    ports = {
        plan.cluster: plan.cluster_port,
        plan.login: plan.login_port if plan.login != plan.cluster else plan.cluster_port,
    }

    def complete() -> bool:
        found = registered(plan)
        return all(found.get(name, ("", ""))[1] == str(port) for name, port in ports.items())

    wait_until(complete, "the clusters' registration with slurmdbd", 60)
