"""The page that says how to install the hub, done: every command of it, in its order, and then a session.

On a machine of its own (tests/machine.py), with a real systemd, sudo, nginx and Apache, from the built wheel.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from demo import packages
from demo.commands import open_umask, wait_until
from demo.directories import CACHE, machine_lock
from demo.progress import Progress
from demo.state import free_ports

from ..conftest import empty
from ..hubs import ROOT, until
from ..machine import Machine, machine
from ..wheel import build
from .steps import sign_in
from .test_main_job import run_cell

pytestmark = [pytest.mark.cluster, pytest.mark.browser, pytest.mark.slow]

PAGE = ROOT / "docs" / "install.md"
RUNS = "JupyterHub is now running"  # in the hub's log
CONFIG = "/etc/jupyterhub/jupyterhub_config.py"
# What the page leaves to its reader, as it is here.
YOURS = {"HUB": "localhost", "INSIDE": "127.0.0.1", "PEOPLE": "hpcusers"}


@dataclass
class Installed:
    """A machine with the hub on it, and the ports that browsers come by."""

    machine: Machine
    cluster: Any
    nginx: int
    apache: int
    path: str = "/"

    @property
    def url(self) -> str:
        """Return the hub's address, without the last slash."""
        return f"https://localhost:{self.nginx}{self.path}".rstrip("/")

    @property
    def by_apache(self) -> str:
        """Return the same by Apache."""
        return self.url.replace(f":{self.nginx}", f":{self.apache}")

    def log(self) -> str:
        """Return what the hub has written."""
        return self.machine.path("/var/log/jupyterhub/jupyterhub.log").read_text()

    async def answers(self, page: Page) -> None:
        """Wait until the hub answers, through nginx."""

        async def there() -> bool:
            answer = await page.goto(f"{self.url}/hub/login")
            return answer is not None and answer.status == 200

        try:
            await until(there, 40, "the hub's answer, through nginx", 1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from None


def blocks() -> list[str]:
    """Return the page's commands, with what is its reader's in them."""
    found = re.findall(r"^```(?:bash|sh)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(found) == PAGE.read_text().count("\n```") / 2  # a block of another kind would be left out
    yours, *others = found
    for name, value in YOURS.items():
        yours, count = re.subn(rf"^{name}=\S+", f"{name}={value}", yours, flags=re.M)
        assert count == 1
    return [yours, *others]


@pytest.fixture(scope="module")
def installed(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The page's commands, and between them only what is different here: other ports, and where the miniature lies."""
    packages.install(packages.SYSTEMD, Progress(quiet=True))
    wheel = build(tmp_path_factory.mktemp("wheel"))
    with machine(cluster.state / "installed", [cluster.state, CACHE]) as made:
        # What a login node has: Slurm, its people in a group, and a site file.
        with open_umask():
            made.path("/etc/slurm").mkdir(exist_ok=True)
            made.path("/etc/slurm/slurm.conf").write_bytes(Path(cluster.env["SLURM_CONF"]).read_bytes())
            made.path("/etc/jupyterhub").mkdir()
            made.path("/etc/jupyterhub/site.yaml").write_text(f"extends: {cluster.site_file}\n")
            made.path("/root/empty").mkdir()
            (made.path("/root/empty") / wheel.name).write_bytes(wheel.read_bytes())
        made.run(["groupadd", "--force", YOURS["PEOPLE"]])
        for name in cluster.users:
            made.run(["usermod", "--append", "--groups", YOURS["PEOPLE"], name])
        public, api, port, nginx, apache, plain = free_ports(cluster.spare_ports, 6)
        here = f"""
sed -i -E '/listen \\[::\\]/d; s/listen 80;/listen 127.0.0.1:{plain};/' "$DEPLOY/nginx.conf"
sed -i 's/listen 443 /listen 127.0.0.1:{nginx} /' "$DEPLOY/nginx.conf"
sed -i -E '/^<VirtualHost \\*:80>/,/^<.VirtualHost>/d; s/\\*:443>/127.0.0.1:{apache}>/' "$DEPLOY/apache.conf"
sed -i 's/127.0.0.1:8000/127.0.0.1:{public}/' "$DEPLOY"/*.conf "$DEPLOY/jupyterhub_config.py"
sed -i 's/=8000/={public}/; s/=8001/={api}/; s/:8081/:{port}/' "$DEPLOY/jupyterhub-proxy.service"
cat >> "$DEPLOY/jupyterhub_config.py" <<'END'
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = {port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.Authenticator.admin_users = {{"{next(iter(cluster.users))}"}}
END
rm -f /etc/nginx/sites-enabled/default
apt-get install -y --no-install-recommends apache2 logrotate
echo 'Listen 127.0.0.1:{apache}' > /etc/apache2/ports.conf
install -d /etc/systemd/system/jupyterhub.service.d /var/log/jupyterhub
cat > /etc/systemd/system/jupyterhub.service.d/here.conf <<'END'
[Service]
BindReadOnlyPaths={cluster.state}
StandardOutput=append:/var/log/jupyterhub/jupyterhub.log
StandardError=append:/var/log/jupyterhub/jupyterhub.log
END
"""
        # What the page says of Apache in words.
        apache_too = """
a2dissite 000-default
a2enmod headers proxy proxy_http ssl
sed "s/jupyter.example.org/$HUB/" "$DEPLOY/apache.conf" > /etc/apache2/sites-available/jupyterhub.conf
a2ensite jupyterhub
systemctl start apache2.service
"""
        first, programs, *others = blocks()
        made.path("/root/page.sh").write_text("\n".join([first, programs, here, *others, apache_too]))
        with machine_lock("packages"):  # what lies below the machine must not change while apt-get works on it
            began = time.monotonic()
            print(made.run(["bash", "-ex", "/root/page.sh"], cwd="/root/empty")[-4000:])
            took = time.monotonic() - began
        print(f"the page took {took:.0f} s")
        assert took < 600
        yield Installed(made, cluster, nginx, apache)


@pytest.fixture
async def stranger(browser: Browser) -> AsyncIterator[Page]:
    """A page of somebody who has been told that the certificate signs itself."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, ignore_https_errors=True)
    context.set_default_timeout(30_000)
    yield await context.new_page()
    await context.close()


@pytest.fixture
def name(cluster: Any, slurm: Any) -> Iterator[str]:
    """Somebody, of whom nothing is left afterwards."""
    who = next(iter(cluster.users))
    yield who
    slurm("scancel", "-M", cluster.site.cluster, "-u", who)
    empty(cluster.state / "home" / who)


async def works(page: Page, url: str, name: str) -> None:
    """JupyterLab's page at *url* has a kernel that answers."""
    await page.goto(f"{url}/user/{name}/lab?reset")
    await page.locator(".jp-LauncherCard[data-category=Notebook]").first.click(timeout=60_000)
    await expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    assert await run_cell(page, "print('Hello')") == "Hello"


@pytest.mark.parametrize("path", ["/", "/jupyter/"])
async def test_a_session_through_nginx_and_systemd(
    installed: Installed, stranger: Page, name: str, cluster: Any, slurm: Any, path: str
) -> None:
    """Sign in, start, a kernel, a terminal, a reload; the hub restarts below it; it is stopped."""
    host, page = installed.machine, stranger
    installed.path = path
    host.run(["sed", "-i", "-E", rf's|^(c.JupyterHub.bind_url = "http://[^/]+)[^"]*"|\1{path}"|', CONFIG])
    host.run(["systemctl", "restart", "jupyterhub.service"])
    await installed.answers(page)
    await sign_in(page, installed, name)
    cut_off: list[str] = []
    page.on("websocket", lambda socket: socket.on("close", lambda _: cut_off.append(socket.url)))
    await page.get_by_role("radio", name="CPU, quick queue: tf-mkl").check()
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url(re.compile(rf"{path}user/{name}/lab"), timeout=90_000)
    (job,) = slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", name, "-o", "%i").split()
    await works(page, installed.url, name)
    seen = Path(f"~{name}/seen.txt").expanduser()
    seen.unlink(missing_ok=True)
    await page.get_by_role("button", name="New Launcher", exact=True).click()
    await page.locator(".jp-LauncherCard[data-category=Other]").filter(has_text="Terminal").click()
    await page.locator(".jp-Terminal .xterm-screen").click()
    cut_off.clear()  # of pages before this one
    await page.keyboard.type("echo $SLURM_JOB_ID > ~/seen.part && mv ~/seen.part ~/seen.txt\n")
    await until(seen.exists, 30, "what the terminal saw")
    assert seen.read_text().strip() == job
    # Who administers the hub sees it, with what the page's own check has found.
    other = await page.context.new_page()
    await other.goto(f"{installed.url}/hub/home")
    await other.get_by_role("link", name="Sessions").click()
    row = other.get_by_role("row").filter(has_text=job)
    await expect(row).to_contain_text("JupyterLab answers on node")
    await expect(other.get_by_role("heading", name="The last check")).to_be_visible()
    # The hub restarts, and nobody is cut off.
    host.run(["systemctl", "restart", "jupyterhub.service"])
    await installed.answers(other)
    await page.bring_to_front()
    await page.keyboard.type("echo again > ~/seen.part && mv ~/seen.part ~/seen.txt\n")
    await until(lambda: seen.read_text() == "again\n", 30, "what the terminal sees afterwards")
    assert cut_off == []
    # The page is loaded anew.
    await works(page, installed.url, name)
    if path != "/":
        await works(page, installed.by_apache, name)
    # The unit's restrictions hold for the hub, and its sudo works in spite of them.
    pid = host.run(["systemctl", "show", "--value", "--property=MainPID", "jupyterhub.service"]).strip()
    status = host.run(["cat", f"/proc/{pid}/status"])
    assert re.search(r"^CapBnd:\s+00000000200000c0$", status, re.M), status
    assert re.search(r"^CapEff:\s+0+$", status, re.M), status
    tried = host.run(
        ["nsenter", f"--target={pid}", "--mount", "--", "sh", "-c", "touch /etc/x /opt/x /home/x"], check=False
    )
    assert tried.count("Read-only file system") == 3, tried
    await page.goto(f"{installed.url}/hub/home")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("This session was stopped.")).to_be_visible(timeout=20_000)
    states = "PENDING,RUNNING"
    assert slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", name, "-t", states, "-o", "%i").split() == []
    assert "Cannot read the log" not in installed.log()


def test_the_check_finds_nothing_wrong(installed: Installed, name: str) -> None:
    """The page's own command has found nothing to mend, or the page had ended there; this one has a job as well."""
    host, hub = installed.machine, "/var/lib/jupyterhub"
    wait_until(lambda: RUNS in installed.log(), "the hub", 40)
    command = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"(cd {hub} && runuser "))
    said = host.run(["bash", "-c", f"{command.rstrip(')')} --job {name})"])
    print(said)
    assert f"what follows is checked as {hub.rpartition('/')[2]}" in said
    for line in (
        r"hub's address: .* answers this host",
        "sign-in: PAM",
        f"sudo: .* as {name}",
        "helper: ",
        "job: tf-mkl",
    ):
        assert re.search(f"^✓ {line}", said, re.M), line
    kept = host.path(f"{hub}/snowyspawner-check.json")
    assert kept.stat().st_uid == host.path(hub).stat().st_uid
    assert "what follows is checked as" in kept.read_text()


@pytest.mark.parametrize(
    ("unit", "exposure"),
    [("jupyterhub.service", 62), ("jupyterhub-proxy.service", 15), ("jupyterhub-backup.service", 5)],
)
def test_the_units_are_as_tight_as_is_said(installed: Installed, unit: str, exposure: int) -> None:
    """By systemd's own rules; *exposure* is in tenths, of 100."""
    host, path = installed.machine, f"/etc/systemd/system/{unit}"
    said = host.run(["systemd-analyze", "verify", "--man=no", path])
    assert unit not in said, said
    host.run(["systemd-analyze", "security", "--offline=yes", f"--threshold={exposure}", path])
    assert f"says {exposure / 10}," in PAGE.read_text() or unit != "jupyterhub.service"


def test_the_copy_of_the_database_and_the_log_s_rotation(installed: Installed, tmp_path: Path) -> None:
    """While the hub runs. The log is cut, and written on."""
    host = installed.machine
    wait_until(lambda: RUNS in installed.log(), "the hub", 40)
    assert "jupyterhub-backup.timer" in host.run(["systemctl", "list-timers", "--no-pager"])
    # The unit's own command, which is told to keep two.
    for _ in range(2):
        host.run(["systemctl", "start", "jupyterhub-backup.service"])
        time.sleep(1)  # a copy is named after its second
    host.run(["sed", "-i", "s/ 14$/ 2/", "/etc/systemd/system/jupyterhub-backup.service"])
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", "jupyterhub-backup.service"])
    copies = sorted(host.path("/var/lib/jupyterhub-backup").iterdir())
    assert len(copies) == 2, copies
    for copy in copies:
        assert copy.stat().st_mode & 0o777 == 0o600
    (tmp_path / "copy.sqlite").write_bytes(copies[-1].read_bytes())
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.sqlite")) as database:
        assert database.execute("select count(*) from users").fetchone()
    host.run(["cp", "/opt/snowyspawner/share/snowyspawner/deploy/logrotate", "/etc/logrotate.d/jupyterhub"])
    host.run(["logrotate", "--force", "/etc/logrotate.d/jupyterhub"])
    assert host.path("/var/log/jupyterhub/jupyterhub.log.1").stat().st_size > 0
    assert RUNS not in installed.log()
    host.run(["systemctl", "restart", "jupyterhub.service"])
    wait_until(lambda: RUNS in installed.log(), "what the hub writes after it", 40)
