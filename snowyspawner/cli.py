"""The ``snowyspawner`` command: what an administrator or a curious student asks without a hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__, reader, request, script, site


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 fine, 1 something is wrong with what was given, 2 with the usage."""
    parser = argparse.ArgumentParser(prog="snowyspawner", description="Look at a site without a hub.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="check a site file and say what is wrong in it")
    check.set_defaults(run=_check)
    show = commands.add_parser(
        "script",
        help="print the job script of a choice",
        description="Print the job script of a choice. What is not given comes from the site's defaults.",
    )
    show.set_defaults(run=_script)
    for field in request.FIELDS:
        show.add_argument(f"--{field.replace('_', '-')}", dest=field, metavar="VALUE")
    helper = commands.add_parser(
        "helper",
        help="print the helper of a hub that uses sudo",
        description="Print the program with which a hub that is neither root nor the person reads a job's log and a "
        "course file, and learns whether an image is readable. Install it, owned by root, as the site's `helper`.",
    )
    helper.set_defaults(run=_helper)
    for command in (check, show, helper):
        command.add_argument(
            "site", nargs="?", default="snowy", help="a shipped site's name or a file's path (default: %(default)s)"
        )
    args = parser.parse_args(argv)
    try:
        text: str = args.run(args)
    except request.RequestError as error:
        for field, sentence in error.errors.items():
            print(f"--{field.replace('_', '-')}: {sentence}", file=sys.stderr)
        return 1
    except site.SiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(text, end="")
    return 0


def _check(args: argparse.Namespace) -> str:
    the_site = site.load(args.site)
    if wrong := request.problems(the_site):
        raise site.SiteError("\n".join(f"{args.site}: {line}" for line in wrong))
    names = ", ".join(the_site.partitions)
    return f"{args.site}: {the_site.display_name}: fine; partitions {names}; {len(the_site.presets)} presets\n"


def _script(args: argparse.Namespace) -> str:
    the_site = site.load(args.site)
    options = {field: value for field in request.FIELDS if (value := getattr(args, field)) is not None}
    target = script.Target("jupyter-lab-00000000", "/home/you", "http://hub.example/hub/api/snowyspawner/", 0)
    return script.build(the_site, request.from_options(options, the_site), target)


def _helper(args: argparse.Namespace) -> str:
    return reader.helper_text(site.load(args.site))
