"""A course's git repository: what the job needs to know to fetch it, and the shell text that does. Pure.

Where the environment has nbgitpuller, that fetches an https repository with the first page: it keeps what a student has
changed. Else, and for a path, git does before the server starts. Whatever goes wrong, the session starts.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from ..choice.request import SessionRequest

#: POSIX shell text that runs in the container, in the home directory and with the environment active; the same for
#: everybody: what varies is in `variables`. It chooses the page that JupyterLab opens (JUPYTERHUB_DEFAULT_URL).
FETCH = r"""
fetch_repository() {
  where=$SNOWYSPAWNER_REPOSITORY branch=$SNOWYSPAWNER_BRANCH directory=$SNOWYSPAWNER_DIRECTORY
  note=$directory-not-fetched.txt failed=1 puller=
  # Nothing asks for a password, no hook and no other protocol is used; -c goes before what a person has configured.
  careful() {
    GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false timeout -k 2 "$@" 2>&1
  }
  git="git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c submodule.recurse=false"
  git="$git -c protocol.allow=never -c protocol.https.allow=always -c protocol.file.allow=always"
  # A path is a teacher's, and git reads other people's repositories only when it is told to.
  pack="git -c safe.directory='*' upload-pack"
  case $where in https://*) puller=$(command -v gitpuller) ;; esac
  if ! command -v git >/dev/null; then
    said="there is no git in this environment"
  elif [ -n "$puller" ]; then
    # Asked first: nbgitpuller's own page does not let a person go on without the network.
    if said=$(careful 20 $git ls-remote -q --exit-code -- "$where" "${branch:-HEAD}"); then
      failed= JUPYTERHUB_DEFAULT_URL=$SNOWYSPAWNER_PULL
    fi
  elif [ -e "$directory/.git" ]; then
    if [ "$($git -C "$directory" config --get remote.origin.url)" != "$where" ]; then
      said="$directory is a copy of another repository"
    elif said=$(careful 30 $git -C "$directory" pull -q --ff-only --no-recurse-submodules --upload-pack "$pack"); then
      failed=
    fi
  elif [ -e "$directory" ]; then
    said="there is a $directory that is no git repository"
  elif said=$(careful 60 $git clone -q --template= --no-recurse-submodules --upload-pack "$pack" \
    ${branch:+--branch "$branch"} -- "$where" "$directory"); then
    failed=
  fi
  if [ -z "$failed" ]; then
    rm -f "$note"
    return
  fi
  [ -n "$said" ] || said="no answer in time, or no such branch"
  said="The repository $where was not fetched: $(printf '%s' "$said" | tail -n 1)"
  printf 'snowyspawner: %s\n' "$said" >&2
  if ! [ -e "$directory" ] && printf '%s\n\n%s\n' "$said" \
    "The session runs without it. When what is wrong has been mended, start another session: it is fetched then." \
    >"$note"; then
    JUPYTERHUB_DEFAULT_URL=$SNOWYSPAWNER_NOTE
  fi
}
fetch_repository
unset -f fetch_repository careful
unset SNOWYSPAWNER_REPOSITORY SNOWYSPAWNER_BRANCH SNOWYSPAWNER_DIRECTORY SNOWYSPAWNER_PULL SNOWYSPAWNER_NOTE
"""


def variables(request: SessionRequest, root: str = "") -> dict[str, str]:
    """Return what `FETCH` reads; *root* is what JupyterLab shows, below the home directory (empty: that itself).

    https://nbgitpuller.readthedocs.io/en/latest/topic/url-options.html says what nbgitpuller's address has.
    """
    where, _, branch = request.repository.partition("#")
    asked = {
        "repo": where,
        "branch": branch,
        "targetpath": request.directory,
        "urlpath": request.lab_path(root).removeprefix("/"),
    }
    return {
        "SNOWYSPAWNER_REPOSITORY": where if where.startswith("https://") else f"file://{where}",
        "SNOWYSPAWNER_BRANCH": branch,
        "SNOWYSPAWNER_DIRECTORY": "/".join(filter(None, [root.strip("/"), request.directory])),
        "SNOWYSPAWNER_PULL": "/git-pull?" + urlencode({name: text for name, text in asked.items() if text}),
        "SNOWYSPAWNER_NOTE": f"/lab/tree/{quote(request.directory)}-not-fetched.txt",
    }
