"""The hub's pages beside JupyterHub's own, and the files that they load."""

from __future__ import annotations

from jupyterhub.handlers import default_handlers
from tornado import web

from ._share import share_dir

_YEAR = 366 * 86400


class StaticHandler(web.StaticFileHandler):
    """The files of share/static: the same for everybody, signed in or not."""

    def set_extra_headers(self, path: str) -> None:
        """Let browsers keep what is asked for by its content's hash; anything else they ask for again."""
        keep = f"public, max-age={_YEAR}, immutable" if self.get_argument("v", "") else "no-cache"
        self.set_header("Cache-Control", keep)
        self.set_header("X-Content-Type-Options", "nosniff")


default_handlers += [
    (r"/snowy/static/(.*)", StaticHandler, {"path": str(share_dir() / "static")}),
]
