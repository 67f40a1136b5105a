"""The form of other Sites: GPUs by the dozen, memory of its own, environments bound to images. No cluster is needed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from snowyspawner.choice.request import form_values, review
from snowyspawner.site import Site, load, shipped
from snowyspawner.site.fields import FIELDS
from snowyspawner.web import form

from .conftest import shoot
from .steps import barriers
from .test_form_hostile import HOST, PAGE, serve_file

pytestmark = pytest.mark.browser

SITES = [*shipped(), *sorted((Path(__file__).parent.parent / "sites").glob("*.yaml"))]


def combinations(site: Site, count: int) -> list[dict[str, str]]:
    """Choices that can be read, half of them not possible."""
    chance = random.Random(f"{site.display_name}")  # noqa: S311  no secret
    most = max(partition.max_cores for partition in site.partitions.values())
    gpus = ["none", *(f"{key}:{n}" for key, gpu in site.gpus.items() for n in (1, gpu.max_count, gpu.max_count + 1))]
    pool = {
        "environment": list(site.environments),
        "image": list(site.images),
        "partition": list(site.partitions),
        "cores": ["1", "4", str(most // 2), str(most), str(most + 1)],
        "gpu": gpus,
        "memory": ["", "1000", "300000", "99999999"] if site.memory_free else [""],
        # Each limit itself is allowed, in another partition, too.
        "time": ["59", "40-0", "2-0:0:1", *{partition.max_time: 0 for partition in site.partitions.values()}],
    }
    return [
        {**form_values(site), **{field: chance.choice(values) for field, values in pool.items()}} for _ in range(count)
    ]


@pytest.mark.parametrize("source", SITES, ids=lambda source: Path(source).stem)
async def test_the_page_reads_every_site_s_rules_as_the_hub_does(page: Page, source: Any) -> None:
    site = load(source)

    async def serve(route: Route) -> None:
        path = route.request.url.removeprefix(HOST).partition("?")[0]
        name = path.rpartition("/")[2]
        if path == "/":
            html = form.render(site, form_values(site), {}, known=form.Known(base_url="/hub/"))
            await route.fulfill(content_type="text/html; charset=utf-8", body=PAGE.replace("{form}", html))
        elif name == "check":
            found = review(json.loads(route.request.post_data or "{}"), site)
            await route.fulfill(json={"errors": found.errors, "remarks": found.remarks, "cost": "", "link": ""})
        else:
            await serve_file(route, name)

    await page.route(f"{HOST}/**", serve)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(HOST)
    await expect(page.locator("#spawn_form")).to_have_attribute("data-state", "checked")
    untouched = await page.evaluate("snowyForm.read()")
    assert review(untouched, site).request == review({}, site).request
    refused = 0
    for values in combinations(site, 80):
        said = await page.evaluate(
            """values => { snowyForm.write(values); snowyForm.changed();
                           return [snowyForm.read(), snowyForm.verdict(snowyForm.read())]; }""",
            values,
        )
        known = {field: text for field, text in values.items() if field in said[0]}
        assert said[0] == known
        found = review({field: text for field, text in values.items() if field in FIELDS}, site)
        # A number of GPUs that is not in the list can be read all the same.
        assert said[1]["errors"] == found.errors, values
        remarks = {field: text for field, text in said[1]["remarks"].items() if field not in found.errors}
        assert remarks == found.remarks, values
        refused += bool(found.errors)
    assert 5 < refused < 80
    assert problems == []
    if site.memory_free:
        await expect(page.get_by_label("Memory in MB")).to_be_visible()
    await page.evaluate("document.getElementById('snowy-details').open = true")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await barriers(page) == []
    await shoot(page, f"site-{Path(source).stem}")
