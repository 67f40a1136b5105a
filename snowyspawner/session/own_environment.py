"""Shell text with which a job makes a user's own environment active. Pure.

The launcher has put its ``bin`` first on PATH, as of any environment by its directory; the rest comes with the claim.
"""

from __future__ import annotations

#: Shell text that runs in the container; ``$base`` is the environment's directory, ``$server`` what was found of
#: jupyterhub-singleuser. An image may have one of its own, which must not be taken for the environment's.
ACTIVATE = r"""
case $server in "$base"/*) ;; *) die 73 "no jupyterhub-singleuser in $base/bin" ;; esac
wrong=$("$base/bin/python3" -c '' 2>&1) || die 72 "the python of $base does not run in this container: $wrong"
if [ -d "$base/conda-meta" ]; then
  export CONDA_PREFIX="$base" CONDA_DEFAULT_ENV="$base"
  # As `conda activate` does, which is not in every image.
  for file in "$base"/etc/conda/activate.d/*.sh; do if [ -r "$file" ]; then . "$file"; fi; done
else
  export VIRTUAL_ENV="$base"
fi
"""
