"""Sphinx: the documentation as HTML (make docs)."""

project = "snowyspawner"
author = "the snowyspawner developers"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # [text](page.md#heading)
