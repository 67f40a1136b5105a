"""The spawn form as one file that needs no hub: for people who edit a Site and want to see what they have written."""

from __future__ import annotations

import re
from pathlib import Path

from jupyterhub.app import JupyterHub
from markupsafe import Markup

from .._share import share_dir
from ..choice.request import form_values
from ..site import Site
from ..web import form


def page(site: Site) -> str:
    """Return the page, HTML with all its CSS and JavaScript in it: it asks for nothing, and can start nothing."""
    known = form.Known(named_servers=True)
    shown = form.variables(site, form_values(site), {}, known)
    # The page names no file of a hub's, and its script has nobody to ask; the buttons are there, and disabled.
    del shown["snowy_static"]
    shown["data"] = {**shown["data"], "urls": {}}
    shown["snowy_link"] = lambda options: "#"
    return form.template("snowy_form_file.html").render(
        **shown, without_hub=True, styles=[_jupyterhub_style(), _ours("snowy.css")], script=_ours("snowy-form.js")
    )


def _ours(name: str) -> Markup:
    return Markup((share_dir() / "static" / name).read_text(encoding="utf-8"))  # noqa: S704 a file of ours


def _jupyterhub_style() -> Markup:
    """Return JupyterHub's stylesheet, which is Bootstrap's, without what it loads: icons that are not used here."""
    path = Path(JupyterHub.data_files_path.default_value, "static", "css", "style.min.css")
    text = path.read_text(encoding="utf-8-sig")  # a BOM within a page would spoil the first rule
    return Markup(re.sub(r"@import[^;]*;|/\*# sourceMappingURL.*", "", text))  # noqa: S704 JupyterHub's
