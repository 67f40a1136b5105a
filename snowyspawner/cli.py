"""The ``snowyspawner`` command: what an administrator or a curious student asks without a hub."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, site
from .choice import course, request, several, summary
from .session import as_person, script
from .site.fields import FIELDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 fine, 1 something is wrong with what was given, 2 with the usage."""
    parser = argparse.ArgumentParser(prog="snowyspawner", description="Look at a site without a hub.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check",
        help="check a site file, or a course file, and say what is wrong in it",
        description="Check a site file. With --course, check a course file as the hub of that site reads it: each "
        "mistake is printed as FILE:LINE: KEY: VALUE: what is allowed.",
    )
    check.set_defaults(run=_check)
    check.add_argument("--course", default="", metavar="FILE", help="the course file to check")
    check.add_argument(
        "--site", default="", dest="course_site", metavar="SITE", help="the same as the site's name without --site"
    )
    check.add_argument(
        "--account", default="", metavar="NAME", help="the project that the course file is for (default: by its path)"
    )
    show = commands.add_parser(
        "script",
        help="print the job script of a choice",
        description="Print the job script of a choice. What is not given comes from the site's defaults.",
    )
    show.set_defaults(run=_script)
    for field in FIELDS:
        show.add_argument(f"--{field.replace('_', '-')}", dest=field, metavar="VALUE")
    helper = commands.add_parser(
        "helper",
        help="print the helper of a hub that uses sudo",
        description="Print the program with which a hub that is neither root nor the person reads a job's log and a "
        "course file, and learns whether an image is readable. Install it, owned by root, as the site's `helper`.",
    )
    helper.set_defaults(run=_helper)
    link = commands.add_parser(
        "link",
        help="print a link that opens the form filled in",
        description="Print a link that opens the form filled in. The flags are those of notebook.py, that is "
        "sbatch's; for example: snowyspawner link -n 4 -p devcore --gres=gpu:t4:0 -t 2:00:00 -- tf-mkl",
        # -h and -- are the line's own business; what is not known here belongs to it.
        allow_abbrev=False,
    )
    link.set_defaults(run=_link)
    link.add_argument("--hub", default="", metavar="URL", help="the hub's address, such as https://hub.example/hub/")
    link.add_argument("--site", default="snowy", help="a shipped site's name or a file's path (default: %(default)s)")
    link.add_argument("--server", default="", metavar="NAME", help="the named server that the form is for")
    for command in (check, show, helper):
        command.add_argument(
            "site", nargs="?", default="snowy", help="a shipped site's name or a file's path (default: %(default)s)"
        )
    words = list(sys.argv[1:] if argv is None else argv)
    # argparse would take a -- away, and what follows it for its own.
    at = words.index("--") if words[:1] == ["link"] and "--" in words else len(words)
    args, line = parser.parse_known_args(words[:at])
    if line and args.run is not _link:
        parser.error(f"unrecognized arguments: {' '.join(line)}")
    args.line, args.doubtful = [*line, *words[at:]], False
    try:
        text: str = args.run(args)
    except request.RequestError as error:
        for field, sentence in error.errors.items():
            print(
                f"{field}: {sentence}" if args.run is _link else f"--{field.replace('_', '-')}: {sentence}",
                file=sys.stderr,
            )
        return 1
    except course.CourseError as error:
        for mistake in error.mistakes:
            print(f"{args.course}:{mistake}", file=sys.stderr)
        return 1
    except site.SiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(text, end="")
    return int(args.doubtful)


def _check(args: argparse.Namespace) -> str:
    the_site = site.load(args.course_site or args.site)
    if args.course:
        return _check_course(args, the_site)
    if wrong := request.problems(the_site):
        raise site.SiteError("\n".join(f"{args.site}: {line}" for line in wrong))
    names = ", ".join(the_site.partitions)
    return f"{args.site}: {the_site.display_name}: fine; partitions {names}; {len(the_site.presets)} presets\n"


def _check_course(args: argparse.Namespace, the_site: site.Site) -> str:
    """Return what the cards of a course file would be. Raises `course.CourseError`."""
    try:
        with open(args.course, "rb") as file:
            text = course.decoded(file.read(course.SIZE_LIMIT + 1))
    except OSError as error:
        raise course.CourseError([course.Mistake(1, "", "", f"cannot be read: {error.strerror}")]) from None
    place = Path(args.course).resolve()
    account = args.account or the_site.course_account(str(place)) or ""
    found = course.parse(text, the_site, account)
    if wrong := [mistake for exercise in found.exercises for mistake in exercise.mistakes]:
        raise course.CourseError(list(dict.fromkeys(wrong)))
    of = f" of {account}" if account else ""
    count = len(found.exercises)
    lines = [f"{args.course}: {found.title}{of}: fine; {count} card{'' if count == 1 else 's'}"]
    for exercise in found.exercises:
        cost = summary.cost(request.from_options(exercise.options, the_site), the_site)
        opens = f"; from {summary.say_moment(exercise.opens, the_site)}" if exercise.opens is not None else ""
        closes = f"; until {summary.say_moment(exercise.closes, the_site)}" if exercise.closes is not None else ""
        lines.append(f"  {exercise.title}: {cost}{opens}{closes}")
    if the_site.course_account(str(place)) is None:
        places = " or ".join(the_site.courses.values())
        where = f"looks for course files at {places}" if places else "reads no course files: its site has no courses"
        lines.append(f"  {the_site.display_name} {where}")
    return "\n".join(lines) + "\n"


def _script(args: argparse.Namespace) -> str:
    the_site = site.load(args.site)
    options = {field: value for field in FIELDS if (value := getattr(args, field)) is not None}
    target = script.Target("jupyter-lab-00000000", "/home/you", "http://hub.example/hub/api/snowyspawner/", 0)
    return script.build(the_site, request.from_options(options, the_site), target)


def _helper(args: argparse.Namespace) -> str:
    return as_person.helper_text(site.load(args.site))


def _link(args: argparse.Namespace) -> str:
    the_site = site.load(args.site)
    found = request.review({"line": shlex.join(args.line)} if args.line else {}, the_site)
    if "line" in found.errors:
        raise request.RequestError({"line": found.errors["line"]})
    errors = found.errors
    if several.means_several(found.line, the_site):
        errors = several.verdict(found.line, the_site).errors
    for field, sentence in errors.items():
        # The form will say it, too; whoever gives the link out should know before.
        print(f"{field}: {sentence}", file=sys.stderr)
        args.doubtful = True
    base = args.hub.rstrip("/") + "/" if args.hub else "/hub/"
    return summary.link(summary.as_shown(found.line, found), base, args.server) + "\n"
