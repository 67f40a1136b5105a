"""A teacher's course file: what becomes of it, and that a broken or hostile one is a message and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.choice.course import (
    CHOICES,
    EXERCISES_LIMIT,
    SIZE_LIMIT,
    Card,
    CourseError,
    CourseFile,
    ExerciseFile,
    Mistake,
    card_of_mistakes,
    cards,
    decoded,
    parse,
    version,
)
from snowyspawner.choice.request import form_values
from snowyspawner.cli import main
from snowyspawner.site import Site
from snowyspawner.site.fields import FIELDS
from snowyspawner.slurm.times import DURATION_HELP

ACCOUNT = "g2021027"
COURSES = {"course": "/proj/{account}/jupyter-course.yaml"}
GOOD = """\
title: Deep learning 2026
description: >
  Train a small network,
  and compare.
environment: tf-mkl
partition: devcore
gpu: none
repository: https://git.example/teaching/labs.git
branch: v1
reservation: lab_1
valid_from: 2026-02-01
valid_to: 2026-02-28 17:00
exercises:
  - title: Lab 1
    open: lab1.ipynb
    time: 0:45:00
  - title: "Lab 2: on the GPU"
    description: On a T4
    environment: tf-gpu
    partition: core
    gpu: t4
    cores: 8
    branch: main
    reservation:
    valid_to: 2026-03-31
"""


@pytest.fixture(scope="module")
def site(variant: Callable[..., Site]) -> Site:
    return variant(courses=COURSES)


def at(site: Site, text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=site.zone).timestamp()


# -- a good one ----------------------------------------------------------------------------------------------------


def test_exercises_have_what_the_course_says_and_what_they_say_themselves(site: Site) -> None:
    course = parse(GOOD, site, ACCOUNT)
    first, second = course.exercises
    assert first.options == {
        "account": ACCOUNT,
        "environment": "tf-mkl",
        "partition": "devcore",
        "gpu": "none",
        "time": "0:45:00",
        "reservation": "lab_1",
        "repository": "https://git.example/teaching/labs.git#v1",
        "open": "labs/lab1.ipynb",
    }
    assert (first.title, first.description) == ("Deep learning 2026: Lab 1", "Train a small network, and compare.")
    assert (first.opens, first.closes) == (at(site, "2026-02-01 00:00"), at(site, "2026-02-28 17:00"))
    assert second.options["repository"] == "https://git.example/teaching/labs.git#main"
    assert (second.options["reservation"], second.options["cores"]) == ("", "8")
    # A day is over with its end, and has 23 hours when the clocks go forward.
    assert second.closes == at(site, "2026-04-01 00:00")
    assert not first.mistakes
    assert not second.mistakes


def test_without_exercises_the_course_is_one(site: Site) -> None:
    (only,) = parse("title: Yes\ncores: 4\n", site).exercises
    assert only == ("Yes", "", {"cores": "4"}, None, None, ())


def test_every_field_that_is_not_of_one_time_or_person_can_be_said() -> None:
    assert set(FIELDS) - set(CHOICES) == {"begin", "email_on_start"}
    beside = {"title", "description", "branch", "valid_from", "valid_to"}
    assert set(ExerciseFile.model_fields) == set(CHOICES) | beside
    assert set(CourseFile.model_fields) == set(ExerciseFile.model_fields) | {"exercises"}


def test_the_teacher_s_example_can_be_used(site: Site) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "teacher.md"
    (example,) = re.findall(r"^```yaml\n(title: .*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    found = parse(example, site, ACCOUNT)
    assert len(found.exercises) == 2
    assert [exercise.mistakes for exercise in found.exercises] == [(), ()]


@pytest.mark.parametrize("name", CourseFile.model_fields)
def test_the_pages_for_people_say_what_a_key_is(name: str) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "course.md"
    assert f"| `{name}` |" in page.read_text(encoding="utf-8")


def test_times_are_texts_whatever_yaml_would_make_of_them(site: Site) -> None:
    (only,) = parse("title: x\ntime: 1:00:00\ncores: 0x4\nopen: 2026-01-01\ngpu: no\n", site).exercises
    assert (only.options["time"], only.options["open"]) == ("1:00:00", "2026-01-01")
    assert {mistake.key: mistake.value for mistake in only.mistakes} == {"cores": "'0x4'", "gpu": "'no'"}


# -- broken and hostile ones -----------------------------------------------------------------------------------------

BILLION_LAUGHS = "title: x\na: &a [lol, lol, lol]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)

#: Name: what is in the file, the line, the key and (a part of) what is said.
HOSTILE: dict[str, tuple[bytes, int, str, str]] = {
    "empty": (b"", 1, "", "the file is empty: it needs a title at least"),
    "only a comment": (b"# soon\n", 1, "", "the file is empty"),
    "huge": (b"title: " + b"x" * (SIZE_LIMIT + 1), 1, "", "the file is larger than 64 KiB"),
    "deep": (b"title: " + b"[" * 200, 1, "title.1.1.1", "there are more than 4 levels of tables and lists"),
    "very deep": (b"title: " + b"[" * 30_000, 1, "", "nest"),
    "deep by lines": (
        b"title:\n" + b"".join(b" " * n + b"- \n" for n in range(1, 200)),
        5,
        "title.1.1.1",
        "more than 4 levels",
    ),
    "wide": (b"".join(b"k%d: 1\n" % n for n in range(5000)), 600, "k599", "there is too much in this file"),
    "binary": (bytes(range(256)), 1, "", "is not text"),
    "an image": (b"\x7fELF\x02\x01\x01" + bytes(64), 1, "", "is not text"),
    "nul": (b"title: a\0b\n", 1, "", "is not text"),
    "latin-1": ("title: x\ndescription: \xe5\n".encode("latin-1"), 2, "", "write the file in UTF-8"),
    "utf-16": ("title: x\n".encode("utf-16"), 1, "", "is not text"),
    "escapes of a terminal": (b"title: x\ndescription: \x1b[2J\n", 2, "", "is not text"),
    "tab": (b"title: x\n\tcores: 4\n", 2, "", "begins with a tab: indent with spaces"),
    "aliases that explode": (BILLION_LAUGHS.encode(), 2, "a", "anchors and aliases (& and *) are not read"),
    "alias of itself": (b"title: x\nexercises: &a\n  - *a\n", 2, "exercises", "anchors and aliases"),
    "merge": (b"title: x\n<<: {cores: 4}\n", 2, "<<", "there is no such key"),
    "a python object": (b"title: !!python/object/apply:os.system [id]\n", 1, "title", "tags (!) are not read"),
    "a tag of its own": (b"title: !secret x\n", 1, "title", "tags (!) are not read"),
    "a key twice": (b"title: x\ncores: 4\ncores: 8\n", 3, "cores", "the key is in line 2 already"),
    "a key that is a list": (b"title: x\n? [a, b]\n: c\n", 2, "", "a key must be a word"),
    "two documents": (b"title: x\n---\ntitle: y\n", 2, "", "--- begins a second document"),
    "not closed": (b"title: 'x\n", 2, "", "is not YAML: found unexpected end of stream"),
    "a text": (b"title\n", 1, "", "must have keys and values"),
    "a list": (b"- title: x\n", 1, "", "must have keys and values"),
    "no title": (b"cores: 4\n", 1, "title", "is missing"),
    "no title in an exercise": (b"title: x\nexercises:\n  - cores: 4\n", 3, "exercises.1.title", "is missing"),
    "an empty title": (b"title: ' '\n", 1, "title", "must be a line of 1 to 100 characters"),
    "a long title": (b"title: " + b"x" * 101, 1, "title", "must be a line of 1 to 100 characters"),
    "a title that turns round": ("title: a\u202eb".encode(), 1, "title", "must be a line of 1 to 100 characters"),
    "a long description": (b"title: x\ndescription: " + b"x" * 501, 2, "description", "at most 500 characters"),
    "a long value": (b"title: x\nopen: " + b"x" * 513, 2, "open", "must be at most 512 characters"),
    "unknown key": (b"title: x\ncommand: rm -rf /\n", 2, "command", "there is no such key; the keys are title,"),
    "a key for the course only": (
        b"title: x\nexercises:\n  - title: y\n    exercises: []\n",
        4,
        "exercises.1.exercises",
        "there is no such key",
    ),
    "container paths": (b"title: x\ncontainer: /proj/a/x.sif\n", 2, "container", "there is no such key"),
    "wrong type": (b"title: x\ncores: [4]\n", 2, "cores", "a list: must be text"),
    "another wrong type": (b"title: x\ngpu: {t4: 1}\n", 2, "gpu", "a table: must be text"),
    "exercises that are none": (b"title: x\nexercises: three\n", 2, "exercises", "must be a list of exercises"),
    "an exercise that is none": (b"title: x\nexercises:\n  - Lab 1\n", 3, "exercises.1", "must have keys and values"),
    "no exercise": (b"title: x\nexercises: []\n", 2, "exercises", f"must be 1 to {EXERCISES_LIMIT} exercises"),
    "many exercises": (b"title: x\nexercises:\n" + b"  - title: y\n" * 13, 2, "exercises", "must be 1 to 12 exercises"),
    "no day": (b"title: x\nvalid_from: 2026-02-30\n", 2, "valid_from", "'2026-02-30': must be a day or a time"),
    "no time": (b"title: x\nvalid_to: soon\n", 2, "valid_to", "'soon': must be a day or a time, such as 2027-01-31"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_message(name: str, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By line and key, within a moment; the command prints it, and a page can show it."""
    content, line, key, said = HOSTILE[name]
    began = time.process_time()
    with pytest.raises(CourseError) as caught:
        parse(decoded(content), site, ACCOUNT)
    assert time.process_time() - began < 0.5
    first = caught.value.mistakes[0]
    assert (first.line, first.key) == (line, key)
    assert said in str(first)
    for mistake in caught.value.mistakes:
        assert str(mistake).isprintable()
        assert len(str(mistake)) < 500
    assert len(caught.value.mistakes) <= 21
    file = tmp_path / "jupyter-course.yaml"
    file.write_bytes(content)
    assert main(["check", "--course", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"{file}:{first}"


def test_many_mistakes_are_listed_by_line_up_to_a_number(site: Site) -> None:
    text = "title: x\n" + "".join(f"key{number}: 1\n" for number in range(50))
    with pytest.raises(CourseError) as caught:
        parse(text, site)
    *shown, last = caught.value.mistakes
    assert [mistake.line for mistake in shown] == list(range(2, 22))
    assert last == (22, "", "", "30 more mistakes follow")


#: What an exercise may say and cannot have: the key, the value, (a part of) what is allowed.
REFUSED: list[tuple[str, str, str]] = [
    ("environment", "tf", "is not offered here; choose tf-gpu, tf-mkl or tf-pip"),
    ("image", "/proj/evil.sif", "is not offered here; choose container.sif"),
    ("partition", "nosuch", "is not offered here"),
    ("cores", "17", "a node of core has 16"),
    ("cores", "four", "is not a whole number"),
    ("gpu", "a100:1", "is not offered here"),
    ("gpu", "t4:9", "a node has 1 t4 at most"),
    ("memory", "64000", "comes with the cores here"),
    ("qos", "high", "is not offered here"),
    ("constraint", "--wrap=id", "is not offered here"),
    ("time", "soon", "is not a duration"),
    ("time", "99-0", "is too long for core"),
    ("account", "root", "is not a project's name here"),
    ("reservation", "lab; id", "is not a reservation's name"),
    ("open", "../../etc/passwd", "must be a path below your home directory"),
    ("open", "/etc/passwd", "must be a path below your home directory"),
    ("repository", "--upload-pack=id", "is not a repository"),
    ("repository", "https://--upload-pack=id/x", "is not a repository"),
    ("repository", "https://git.example/-x", "is not a repository"),
    ("repository", "https://git.example/../x", "is not a repository"),
    ("repository", "https://git.example/.git", "is not a repository"),
    ("repository", "https://git.example/x?service=git-upload-pack", "is not a repository"),
    ("repository", "https://me:secret@git.example/x", "is not a repository"),
    ("repository", "https://git.example/x%0a--upload-pack", "is not a repository"),
    ("repository", "https://git.example", "is not a repository"),
    ("repository", "http://git.example/x", "is not a repository"),
    ("repository", "ssh://git@git.example/x", "is not a repository"),
    ("repository", "git@git.example:x", "is not a repository"),
    ("repository", "ext::sh -c id", "is not a repository"),
    ("repository", "file:///proj/g2021027/x", "is not a repository"),
    ("repository", "/etc/x", "or a path below a project's directory"),
    ("repository", "/proj/g2021027/../g2019001/x", "is not a repository"),
    ("repository", "/proj/x", "is not a repository"),
    ("repository", "$(id)", "is not a repository"),
    ("branch", "--upload-pack=id", "is not the name of a branch"),
    ("branch", "a..b", "is not the name of a branch"),
    ("branch", "a b", "is not the name of a branch"),
    ("branch", "x.lock", "is not the name of a branch"),
    ("valid_to", "2026-01-31", "must be after valid_from, 2026-02-01"),
]


@pytest.mark.parametrize(("key", "value", "said"), REFUSED)
def test_an_exercise_that_cannot_be_had_keeps_its_card_and_starts_nothing(
    key: str, value: str, said: str, site: Site
) -> None:
    with_url = "repository: https://git.example/x\n" if key == "branch" else ""
    text = f"title: x\n{with_url}valid_from: 2026-02-01\nexercises:\n- title: y\n  {key}: '{value}'\n- title: z\n"
    bad, good = parse(text, site, ACCOUNT).exercises
    assert good.mistakes == ()
    assert said in " ".join(str(mistake) for mistake in bad.mistakes)
    assert all(mistake.key.startswith("exercises.1.") for mistake in bad.mistakes)
    # The line of what was written, or of the exercise where several things do not go together.
    assert {mistake.line for mistake in bad.mistakes} <= {5, 6} if with_url == "" else {6, 7, 2}
    shown = cards(parse(text, site, ACCOUNT), site, at(site, "2026-02-02 10:00"), [ACCOUNT])
    if key != "valid_to":
        assert shown[1].values is None
        assert shown[1].remarks[0] == "The course file has a mistake: tell your teacher."
        assert said in " ".join(shown[1].remarks)
    assert shown[2].values is not None


@pytest.mark.parametrize(
    ("repository", "directory"),
    [
        ("https://github.com/scicompuu/sesegpu", "sesegpu"),
        ("https://git.example:8443/~me/a.b/labs.git", "labs"),
        ("https://git.example/labs/", "labs"),
        ("/proj/g2021027/labs.git", "labs"),
        ("/proj/g2021027/teaching/labs", "labs"),
    ],
)
def test_a_repository_is_an_address_or_a_path_of_a_project(repository: str, directory: str, site: Site) -> None:
    (only,) = parse(f"title: x\nrepository: {repository}\nopen: a.ipynb\n", site, ACCOUNT).exercises
    assert only.mistakes == ()
    assert only.options["open"] == f"{directory}/a.ipynb"


# -- cards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2026-01-17 23:59", {}),
        ("2026-01-18 00:00", {1: "From Sun 1 Feb 00:00", 2: "From Sun 1 Feb 00:00"}),
        ("2026-01-31 23:59", {1: "From Sun 1 Feb 00:00", 2: "From Sun 1 Feb 00:00"}),
        ("2026-02-01 00:00", {1: "", 2: ""}),
        ("2026-02-28 16:59", {1: "", 2: ""}),
        ("2026-02-28 17:00", {2: ""}),
        ("2026-03-31 23:59", {2: ""}),
        ("2026-04-01 00:00", {}),
    ],
)
def test_a_card_comes_and_goes(moment: str, shown: dict[int, str], site: Site) -> None:
    found = cards(parse(GOOD, site, ACCOUNT), site, at(site, moment), [ACCOUNT], ["lab_1"])
    assert found.keys() == shown.keys()
    for number, said in shown.items():
        assert (found[number].values is None) == bool(said)
        assert found[number].when.startswith("Until " if not said else f"{said} (Europe/Stockholm).")
        assert found[number].remarks == ()


@pytest.mark.parametrize(
    ("active", "used", "remarks"),
    [
        (["lab_1", "other"], "lab_1", ()),
        (["other"], "", ("The reservation lab_1 is not active now: the session starts without it.",)),
        ([], "", ("The reservation lab_1 is not active now: the session starts without it.",)),
    ],
)
def test_a_reservation_is_used_while_it_is_active(
    active: list[str], used: str, remarks: tuple[str, ...], site: Site
) -> None:
    first = cards(parse(GOOD, site, ACCOUNT), site, at(site, "2026-02-02 10:00"), [ACCOUNT], active)[1]
    assert first.values is not None
    assert (first.values["reservation"], first.remarks) == (used, remarks)


def test_a_card_has_a_value_for_every_field_of_the_form(site: Site) -> None:
    found = cards(parse(GOOD, site, ACCOUNT), site, at(site, "2026-02-02 10:00"), ["g2020014", ACCOUNT])
    for card in found.values():
        assert card.values is not None
        assert list(card.values) == list(form_values(site))
        # The person's own default is another one.
        assert card.values["account"] == ACCOUNT
    assert found[2].values is not None
    assert found[2].values["gpu"] == "t4:1"


def test_whose_project_it_is_not_cannot_start_it(site: Site) -> None:
    found = cards(parse(GOOD, site, ACCOUNT), site, at(site, "2026-02-02 10:00"), ["g2020014"])
    assert found[1].values is None
    assert found[1].remarks == ("Project: 'g2021027' is not one of your projects: choose g2020014.",)


def test_a_file_that_cannot_be_used_has_one_card() -> None:
    mistakes = [Mistake(3, "cores", "'x'", "no"), Mistake(4, "", "", "more")]
    assert card_of_mistakes(mistakes, ACCOUNT) == Card(
        "The course file of g2021027 cannot be used",
        remarks=("Line 3: cores: 'x': no.", "1 more: snowyspawner check --course has them all."),
    )
    assert card_of_mistakes([]).remarks == ("It cannot be read.",)


def test_other_cards_have_another_version() -> None:
    card = Card("x")
    assert version({"a": card}) == version({"a": Card("x")})
    assert len({version({}), version({"a": card}), version({"b": card}), version({"a": replace(card, when="y")})}) == 4


# -- snowyspawner check --course ---------------------------------------------------------------------------------------


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    file = tmp_path / "site.yaml"
    file.write_text(f"extends: snowy\ncourses: {{course: '{tmp_path}/proj/{{account}}/jupyter-course.yaml'}}\n")
    return file


def test_check_says_what_the_cards_will_be(tmp_path: Path, site_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The project is told by the file's place."""
    file = tmp_path / "proj" / ACCOUNT / "jupyter-course.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(GOOD)
    assert main(["check", "--course", str(file), "--site", str(site_file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: Deep learning 2026 of g2021027: fine; 2 cards",
        "  Deep learning 2026: Lab 1: 4 cores \N{MULTIPLICATION SIGN} 45 minutes = 3 core-hours, 32 GB"
        "; from Sun 1 Feb 00:00 (Europe/Stockholm); until Sat 28 Feb 17:00 (Europe/Stockholm)",
        "  Deep learning 2026: Lab 2: on the GPU: 8 cores \N{MULTIPLICATION SIGN} 59 minutes = 7.9 core-hours, 64 GB"
        ", 1 NVIDIA T4"
        "; from Sun 1 Feb 00:00 (Europe/Stockholm); until Wed 1 Apr 00:00 (Europe/Stockholm)",
    ]


def test_check_says_where_the_site_looks(tmp_path: Path, site_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "course.yaml"
    file.write_text("title: x\n")
    assert main(["check", "--course", str(file), "--account", ACCOUNT, "--site", str(site_file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"  Snowy looks for course files at {tmp_path}/proj/{{account}}/jupyter-course.yaml"
    )


def test_check_says_that_the_site_reads_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, site_file = tmp_path / "course.yaml", tmp_path / "site.yaml"
    file.write_text("title: x\n")
    site_file.write_text("extends: snowy\ncourses: null\n")
    assert main(["check", "--course", str(file), "--site", str(site_file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  Snowy reads no course files: its site has no courses"


def test_check_says_what_each_exercise_cannot_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "course.yaml"
    file.write_text("title: x\ncores: 99\nexercises:\n- title: y\n- title: z\n  time: soon\n")
    assert main(["check", "--course", str(file)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{file}:2: exercises.1.cores: '99': a node of core has 16: ask for 16 or fewer",
        f"{file}:2: exercises.2.cores: '99': a node of core has 16: ask for 16 or fewer",
        f"{file}:6: exercises.2.time: 'soon': 'soon' is not a duration: write {DURATION_HELP}",
    ]


@pytest.mark.parametrize("name", ["nosuch.yaml", "."])
def test_check_of_what_cannot_be_read_says_so(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--course", str(tmp_path / name)]) == 1
    assert ":1: cannot be read: " in capsys.readouterr().err


# -- the Site's part ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "path", "account"),
    [
        ("/proj/{account}/c.yaml", "/proj/g2021027/c.yaml", "g2021027"),
        ("/proj/{account}/{account}.yaml", "/proj/a/a.yaml", "a"),
        ("/proj/{account}/{account}.yaml", "/proj/a/b.yaml", None),
        ("/proj/{account}/c.yaml", "/proj/a/b/c.yaml", None),
        ("/proj/{account}/c.yaml", "/proj/../c.yaml", None),
        ("/proj/x/c.yaml", "/proj/x/c.yaml", ""),
        ("/proj/x/c.yaml", "/proj/x/d.yaml", None),
    ],
)
def test_whose_course_file_a_path_is(
    template: str, path: str, account: str | None, variant: Callable[..., Site]
) -> None:
    assert variant(courses={"c": template}).course_account(path) == account


@pytest.mark.parametrize(
    "template", ["course.yaml", "/proj/../etc/x", "/proj/{user}/x", "/a b", "/proj/./x", "/proj//x", "", "/{account", 3]
)
def test_a_site_s_place_for_courses_is_a_path(template: Any, variant: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match="course"):
        variant(courses={"c": template})
