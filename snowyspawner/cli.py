"""The ``snowyspawner`` command: what an administrator or a curious student asks without a hub."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, site
from .admin import completion, site_file
from .choice import course, request, several, summary
from .session import as_person, script
from .site.fields import FIELDS

_EXIT_STATUS = (
    "Exit status: 0 nothing is wrong; 1 something is wrong with what was given; 2 the command was not understood."
)


# Not argparse's default: that would not count as given where it is given.
_DEFAULT = "snowy"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 fine, 1 something is wrong with what was given, 2 with the usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    # argparse would take a -- away, and what follows it for its own.
    at = words.index("--") if words[:1] == ["link"] and "--" in words else len(words)
    parser = _parser(words[:at])
    completion.complete(parser, _DEFAULT)
    args, line = parser.parse_known_args(words[:at])
    if line and args.run is not _link:
        parser.error(f"unrecognized arguments: {' '.join(line)}")
    if args.run is _check and (args.user or args.job) and (args.course or not args.config):
        parser.error("--user and --job go with -f FILE, and not with --course")
    args.line, args.doubtful = [*line, *words[at:]], False
    try:
        text: str = args.run(args)
    except request.RequestError as error:
        dashes = "" if args.run is _link else "--"
        wrong = [f"{dashes}{f.replace('_', '-') if dashes else f}: {said}" for f, said in error.errors.items()]
    except course.CourseError as error:
        wrong = [f"{args.course}:{mistake}" for mistake in error.mistakes]
    except site.SiteError as error:
        wrong = str(error).splitlines()
    else:
        print(text, end="")
        return int(args.doubtful)
    if getattr(args, "json", False):
        print(json.dumps({"ok": False, "mistakes": wrong}, indent=1))
    else:
        print("\n".join(wrong), file=sys.stderr)
    return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the command's parser; the examples in its help are of the site that *words* ask about."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    which = common.add_mutually_exclusive_group()
    which.add_argument("--site", help=f"a shipped site's name or a site file's path (default: {_DEFAULT})")
    which.add_argument(
        "-f",
        "--config",
        default="",
        metavar="FILE",
        help="take the site from a hub's configuration (jupyterhub_config.py), which is run as the hub would run it",
    )
    parser = argparse.ArgumentParser(
        prog="snowyspawner", description="Look at a site without a hub.", epilog=_EXIT_STATUS
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        parents=[common],
        help="check a site file, a course file, or all that a hub needs, and say what is wrong",
        description="Check a site file. With -f FILE, check all that the hub of that configuration needs, as the "
        "account that runs this: what is doubtful or wrong comes with what to do. With --course, check a course "
        "file as the hub of that site reads it: each mistake is printed as FILE:LINE: KEY: VALUE: what is allowed.",
        epilog=_EXIT_STATUS,
    )
    check.set_defaults(run=_check)
    check.add_argument("--course", default="", metavar="FILE", help="the course file to check")
    check.add_argument(
        "--account", default="", metavar="NAME", help="the project that the course file is for (default: by its path)"
    )
    check.add_argument("--user", default="", metavar="NAME", help="with -f: a person to check for, such as yourself")
    check.add_argument(
        "--job",
        default="",
        metavar="NAME",
        help="with -f: submit a short job as this person, which answers from a node",
    )
    check.add_argument("--json", action="store_true", help='print {"ok": true or false, "mistakes": […], …} instead')
    show = commands.add_parser(
        "script",
        parents=[common],
        help="print the job script of a choice",
        description="Print the job script of a choice. What is not given comes from the site's defaults.",
        epilog=_EXIT_STATUS,
    )
    show.set_defaults(run=_script)
    of_help = _of_help(words, common)
    for field in FIELDS:
        show.add_argument(f"--{field.replace('_', '-')}", dest=field, metavar="VALUE", help=_help(field, of_help))
    helper = commands.add_parser(
        "helper",
        parents=[common],
        help="print the helper of a hub that uses sudo",
        description="Print the program with which a hub that is neither root nor the person reads a job's log and a "
        "course file, and learns whether an image is readable. Install it, owned by root, as the site's `helper`.",
        epilog=_EXIT_STATUS,
    )
    helper.set_defaults(run=_helper)
    form = commands.add_parser(
        "form",
        parents=[common],
        help="print the spawn form as a page that needs no hub",
        description="Print the spawn form as one HTML file, to be opened in a browser without a hub. The site's rules "
        "work in it; what needs a hub or Slurm is disabled.",
        epilog=f"Example: snowyspawner form --site ./site.yaml > form.html. {_EXIT_STATUS}",
    )
    form.set_defaults(run=_form)
    init = commands.add_parser(
        "init",
        help="write a site file from what Slurm says",
        description="Write a site file from what sinfo, scontrol and sacctmgr say of a cluster. What they do not know "
        f"is marked by lines that begin with {site_file.DECIDE}",
        epilog=_EXIT_STATUS,
    )
    init.set_defaults(run=_init)
    init.add_argument("--cluster", default="", metavar="NAME", help="the cluster, for -M (default: the local one)")
    init.add_argument("-o", "--output", metavar="FILE", help="write to this file, which must not exist yet")
    link = commands.add_parser(
        "link",
        parents=[common],
        help="print a link that opens the form filled in",
        description="Print a link that opens the form filled in. The flags are those of notebook.py, that is sbatch's.",
        epilog=f"Example: snowyspawner link {_example(of_help)}. {_EXIT_STATUS}",
        # -h and -- are the line's own business; what is not known here belongs to it.
        allow_abbrev=False,
    )
    link.set_defaults(run=_link)
    link.add_argument("--hub", default="", metavar="URL", help="the hub's address, such as https://hub.example/hub/")
    link.add_argument("--server", default="", metavar="NAME", help="the named server that the form is for")
    return parser


def _of_help(words: Sequence[str], common: argparse.ArgumentParser) -> site.Site | None:
    """Return the site that a help text is about: the one that *words* name, if it can be read; None: none is asked."""
    if not {"-h", "--help"}.intersection(words):
        return None
    with contextlib.suppress(site.SiteError):
        return site.load(common.parse_known_args(words)[0].site or _DEFAULT)
    return site.load(_DEFAULT)


def _help(field: str, the_site: site.Site | None) -> str:
    """Return what is said of an option for a field, with the values that the site has for it."""
    values = completion.values_of(field, the_site) if the_site else []
    said = [FIELDS[field].help or f"{FIELDS[field].label}.", f"One of {', '.join(values)}." if values else ""]
    # A % in a help text is argparse's.
    return " ".join(filter(None, said)).replace("%", "%%")


def _example(the_site: site.Site | None) -> str:
    """Return the line of a site's defaults."""
    return summary.line(request.form_values(the_site), the_site).replace("%", "%%") if the_site else ""


def _site(args: argparse.Namespace) -> tuple[str, site.Site]:
    """Return the site that is asked about, and what to call it. Raises `site.SiteError`."""
    if not args.config:
        name = args.site or _DEFAULT
        return name, site.load(name)
    # Not for all: JupyterHub takes a second to import.
    from .config import ConfigError, site_of

    try:
        given = site_of(args.config)
    except ConfigError as error:
        raise site.SiteError(str(error)) from None
    name = given if isinstance(given, str) else args.config
    return name, site.load(given)


def _check(args: argparse.Namespace) -> str:
    if args.config and not args.course:
        return _check_hub(args)
    name, the_site = _site(args)
    if args.course:
        return _check_course(args, the_site)
    if wrong := request.problems(the_site):
        raise site.SiteError("\n".join(f"{name}: {line}" for line in wrong))
    if args.json:
        counts = {"partitions": list(the_site.partitions), "presets": list(the_site.presets)}
        return _as_json({"site": name, "display_name": the_site.display_name, **counts})
    names = ", ".join(the_site.partitions)
    return f"{name}: {the_site.display_name}: fine; partitions {names}; {len(the_site.presets)} presets\n"


def _check_hub(args: argparse.Namespace) -> str:
    """Return what all checks of a hub say."""
    # Only for this: JupyterHub takes a second to import.
    from .admin import checks, report

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    try:
        found = checks.run(checks.Asked(args.config, args.job or args.user, bool(args.job), say))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    args.doubtful = not report.passed(found)
    if not args.json:
        return report.as_text(found, sys.stdout.encoding)
    data = report.as_data(found)
    mistakes = [f"{each['name']}: {each['said']}" for each in data if each["state"] == "fail"]
    return json.dumps({"ok": not args.doubtful, "mistakes": mistakes, "checks": data}, indent=1) + "\n"


def _as_json(facts: dict[str, Any]) -> str:
    return json.dumps({"ok": True, "mistakes": [], **facts}, indent=1) + "\n"


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
    if args.json:
        cards = [{"title": each.title, "options": each.options} for each in found.exercises]
        return _as_json({"course": args.course, "title": found.title, "account": account, "cards": cards})
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
    _, the_site = _site(args)
    options = {field: value for field in FIELDS if (value := getattr(args, field)) is not None}
    target = script.Target("jupyter-lab-00000000", "/home/you", "http://hub.example/hub/api/snowyspawner/", 0)
    return script.build(the_site, request.from_options(options, the_site), target)


def _helper(args: argparse.Namespace) -> str:
    return as_person.helper_text(_site(args)[1])


def _form(args: argparse.Namespace) -> str:
    # Not for all, as above.
    from .admin import form_file

    return form_file.page(_site(args)[1])


def _init(args: argparse.Namespace) -> str:
    text, failures = site_file.draft(args.cluster)
    for line in failures:
        print(line, file=sys.stderr)
    if not args.output:
        return text
    try:
        with open(args.output, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise site.SiteError(f"{args.output}: cannot be written: {error.strerror}") from None
    return f"{args.output}: written; {text.count(site_file.DECIDE)} lines are marked {site_file.DECIDE}\n"


def _link(args: argparse.Namespace) -> str:
    _, the_site = _site(args)
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
