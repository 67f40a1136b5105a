"""What a person does with the form, and what may be asked of the page that shows it."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Locator, Page, expect

from demo import axe

from ..hubs import Hub

#: What each group of radio buttons, each field is called on the page.
LABELS = {
    "environment": "Environment",
    "image": "Container",
    "gpu": "GPU",
    "partition": "Partition",
    "cores": "Cores",
    "time": "Time",
    "account": "Project",
    "reservation": "Reservation",
    "open": "Open",
    "repository": "Repository",
}
T4 = "1 \N{MULTIPLICATION SIGN} NVIDIA T4"
GROUPS = ("environment", "image", "gpu", "partition")
#: WCAG 2.2, A and AA, and what axe counts as good practice. No rule is left out.
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]


async def sign_in(page: Page, hub: Hub, name: str, path: str = "/hub/spawn") -> None:
    """Go to *path*, and sign in on the way with the account's password; PAM checks it."""
    await page.goto(hub.url + path)
    await page.get_by_label("Username").fill(name)
    await page.get_by_label("Password").fill(hub.cluster.users[name])
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_load_state()


def choice(page: Page, field: str, name: str) -> Locator:
    """Return the radio button *name* of the group of *field*."""
    return page.get_by_role("radiogroup", name=LABELS[field]).get_by_role("radio", name=name, exact=True)


def entry(page: Page, field: str) -> Locator:
    """Return the text field or list of *field*."""
    return page.locator(f"#snowy-{field}")


def error_of(page: Page, field: str) -> Locator:
    """Return the message at *field*."""
    return page.locator(f"#snowy-{field}-error")


async def unfold(page: Page) -> None:
    """Open the details, if they are folded."""
    if await page.locator("#snowy-details").get_attribute("open") is None:
        await page.locator("#snowy-details > summary").click()


async def settled(page: Page) -> None:
    """Wait until the server has spoken about what stands in the form now."""
    await expect(page.locator("#spawn_form")).to_have_attribute("data-state", "checked")


async def read(page: Page) -> dict[str, str]:
    """Return what the form would send."""
    values: dict[str, str] = await page.evaluate("snowyForm.read()")
    return values


async def write(page: Page, values: dict[str, str]) -> None:
    """Set fields as the page's own controls do, and wait for the server's word."""
    await page.evaluate("values => { snowyForm.write(values); snowyForm.changed(); }", values)
    await settled(page)


async def messages(page: Page, kind: str = "error") -> dict[str, str]:
    """Return the messages that are shown, by field."""
    found: dict[str, str] = await page.evaluate(
        """kind => Object.fromEntries([...document.querySelectorAll(`.snowy-form .snowy-${kind}`)]
           .map(e => [e.id.replace(/^snowy-/, "").replace(new RegExp(`-${kind}$`), ""), e.textContent]))""",
        kind,
    )
    return found


async def check(page: Page, values: dict[str, Any]) -> dict[str, Any]:
    """Ask the server itself what it thinks of *values*."""
    answer: dict[str, Any] = await page.evaluate(
        """async values => {
             const { urls } = JSON.parse(document.getElementById("snowy-data").textContent);
             const _xsrf = document.querySelector("#spawn_form [name=_xsrf]").value;
             const headers = { "Content-Type": "application/json", "X-XSRFToken": _xsrf };
             return (await fetch(urls.check, { method: "POST", headers, body: JSON.stringify(values) })).json();
           }""",
        values,
    )
    return answer


async def barriers(page: Page) -> list[str]:
    """Return what axe-core finds on the page, a line each."""
    if not await page.evaluate("'axe' in window"):
        await page.add_script_tag(path=axe.script())
    options = {"runOnly": {"type": "tag", "values": AXE_TAGS}, "rules": {"target-size": {"enabled": True}}}
    result = await page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{found['id']}: {found['help']}: {node['target']} {node['failureSummary']}"
        for found in result["violations"]
        for node in found["nodes"]
    ]
