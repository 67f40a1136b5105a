"""A container or an environment of one's own: how it is written, where it may be, what is said, what the job gets."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.choice import own, several
from snowyspawner.choice.course import CourseError, parse
from snowyspawner.choice.notebook_line import from_line, to_line
from snowyspawner.choice.own import Found
from snowyspawner.choice.presets import offered
from snowyspawner.choice.request import SessionRequest, from_options, review
from snowyspawner.choice.summary import line, link, shared_options
from snowyspawner.session import messages, own_environment
from snowyspawner.session.as_person import Reader, helper_text
from snowyspawner.session.record import Ended
from snowyspawner.session.script import Target, build, spec
from snowyspawner.site import Site, SiteError
from snowyspawner.standalone import launcher
from snowyspawner.web.card import asked, why
from snowyspawner.web.form import Known, render

ME = pwd.getpwuid(os.getuid())
BOTH = ("own_container", "own_environment")


def choose(site: Site, **options: str) -> SessionRequest:
    return from_options({"account": "g2021027", "environment": "tf-mkl", "gpu": "none", **options}, site)


# -- how it is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "path", ["~/lab", "~/a/b.c/lab-1.sif", "/proj/g2021027/envs/lab", "/home/me/x@y", "~/.local/e%n=v+1", "~/lab/"]
)
def test_a_path_is_kept_as_it_is_written(snowy: Site, name: str, path: str) -> None:
    made = choose(snowy, **{name: path})
    assert getattr(made, name) == path.rstrip("/")
    assert made.options(snowy)[name] == path.rstrip("/")
    # What a link has opens the same.
    assert f"opt-{name}=" in link(shared_options(made, snowy))
    assert choose(snowy, **shared_options(made, snowy)) == made


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "path",
    [
        "lab.sif",
        "~",
        "/",
        "~/",
        "~you/lab",
        "~/../lab",
        "~/lab/../../etc",
        "~/lab/.",
        "//lab",
        "~//lab",
        "~/my lab",
        "~/lab;id",
        "~/lab:/etc",
        "~/lab,x",
        "~/$HOME",
        "~/lab\\n",
        "~/'lab'",
        "~/låb",
        "-~/lab",
        "$HOME/lab",
    ],
)
def test_what_is_no_path_is_refused_at_its_field(snowy: Site, name: str, path: str) -> None:
    found = review({"account": "g2021027", name: path}, snowy)
    assert found.request is None
    assert list(found.errors) == [name]
    assert "is not a path: write ~/NAME or /DIRECTORY/NAME" in found.errors[name]


@pytest.mark.parametrize(
    "address", ["docker://python:3.12", "oras://registry.example/lab:1", "https://example.org/lab.sif"]
)
def test_an_address_is_refused_with_the_way_to_fetch_it(snowy: Site, address: str) -> None:
    found = review({"own_container": address}, snowy)
    assert found.errors["own_container"].endswith(
        "is an address: fetch it first, with apptainer pull ~/NAME.sif ADDRESS, and name that file"
    )


@pytest.mark.parametrize("value", [True, 3, ["~/lab"], {"path": "~/lab"}, "~/" + "x" * 600, "~/lab\0"])
def test_anything_that_json_holds_is_refused_there(snowy: Site, value: Any) -> None:
    assert list(review({"account": "g2021027", "own_environment": value}, snowy).errors) == ["own_environment"]


@pytest.mark.parametrize("name", BOTH)
def test_a_site_may_not_offer_it(variant: Callable[..., Site], name: str) -> None:
    site = variant(own=None)
    found = review({"account": "g2021027", name: "~/lab"}, site)
    assert found.errors == {name: "is not offered here: leave it empty"}
    assert f'name="{name}"' not in render(site, {**_values(site)}, {})
    # What a link asks for stays visible, with its sentence; what was chosen last is not offered again.
    assert f'name="{name}"' in render(site, {**_values(site), name: "~/lab"}, found.errors)
    values, remarks = offered({name: "~/lab"}, site)
    assert values[name] == ""
    assert remarks == [f"Your last choice of your own {name[4:]}, ~/lab, is not possible any more: it is none now."]


def _values(site: Site) -> dict[str, str]:
    return choose(site).options(site)


@pytest.mark.parametrize(
    "places",
    [["lab"], ["/"], ["~you"], ["/proj/.."], ["/proj/a b"], ["/proj/{project}"], ["/a:/b"], ["//proj"], [""], "~"],
)
def test_a_mistake_in_the_site_s_places_is_named(variant: Callable[..., Site], places: Any) -> None:
    with pytest.raises(SiteError, match=r"own\.containers"):
        variant(own={"containers": places})


# -- where it may be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "accounts", "place"),
    [
        ("~/lab", None, "/home/me"),
        ("/home/me/lab", None, "/home/me"),
        ("/home/me/", None, ""),
        ("/home/me", None, ""),
        ("/home/mean/lab", None, ""),
        ("/proj/g1/lab", None, "/proj/g1"),
        ("/proj/g1/lab", ["g1", "g2"], "/proj/g1"),
        ("/proj/g3/lab", ["g1", "g2"], ""),
        ("/proj/g1/lab", [], ""),
        ("/proj/g1.", ["g1"], ""),
        ("/proj/g10/lab", ["g1"], ""),
        ("/proj/g1", ["g1"], ""),
        ("/data/envs/lab", ["g1"], "/data/envs"),
        ("/etc/lab", None, ""),
    ],
)
def test_it_is_below_a_place_of_the_person_s(path: str, accounts: list[str] | None, place: str) -> None:
    assert own.place_of(path, ["~", "/proj/{account}", "/data/envs"], "/home/me", accounts) == place


def test_a_place_may_be_below_the_home_directory() -> None:
    assert own.place_of("~/envs/lab", ["~/envs"], "/home/me/") == "/home/me/envs"
    assert own.place_of("~/lab", ["~/envs"], "/home/me") == ""


def test_where_it_may_be_is_said_for_this_person() -> None:
    places = ["~", "/proj/{account}"]
    assert own.outside(places) == "must be below ~ or /proj/PROJECT"
    assert own.outside(places, []) == "must be below ~ or /proj/PROJECT"
    assert own.outside(places, ["g1", "g2", "g3", "g4"]) == "must be below ~, /proj/g1, /proj/g2 or /proj/g3"
    assert own.outside(places, ["a/b"]) == "must be below ~ or /proj/PROJECT"


# -- what is said ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("answer", own.Answer.__args__)  # type: ignore[attr-defined]
def test_every_answer_but_good_ones_is_a_sentence_with_a_remedy(name: str, answer: Any) -> None:
    said = own.refusal(name, "~/lab", Found(answer, "venv"))
    assert bool(said) == (answer not in ("ready", "unknown"))
    assert not said or "~/lab" in said


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("venv", "~/lab/bin/python -m pip install jupyterhub jupyterlab"),
        ("conda", "conda install --prefix ~/lab --channel conda-forge jupyterhub-singleuser"),
    ],
)
def test_what_is_missing_comes_with_the_command_that_installs_it(kind: str, command: str) -> None:
    said = own.refusal("own_environment", "~/lab", Found("no_server", kind))
    assert said == f"~/lab has no jupyterhub-singleuser: install it with {command}"


def test_what_is_not_used_is_said(snowy: Site) -> None:
    found = review({"account": "g2021027", "own_container": "~/lab.sif"}, snowy)
    assert found.remarks == {
        "environment": "is not used: your own container takes its place",
        "image": "is not used: your own container takes its place",
    }
    found = review({"account": "g2021027", "own_environment": "~/lab", "environment": "tf-mkl"}, snowy)
    # Nothing is known of what a GPU is good for in it.
    assert found.remarks == {"environment": "is not used: your own environment takes its place"}


def test_rules_about_the_site_s_software_do_not_hold_for_one_s_own(variant: Callable[..., Site]) -> None:
    site = variant(images={"other.sif": {"path": "/other.sif"}}, environments={"tf-mkl": {"images": ["other.sif"]}})
    wanted = {"account": "g2021027", "environment": "tf-mkl", "image": "container.sif"}
    assert list(review(wanted, site).errors) == ["image"]
    for name in BOTH:
        assert not review({**wanted, name: "~/lab"}, site).errors


def test_pages_name_it_by_its_last_part(snowy: Site) -> None:
    assert choose(snowy).software == "tf-mkl"
    made = choose(snowy, own_container="~/images/lab.sif")
    assert made.software == "lab.sif"
    both = choose(snowy, own_container="~/images/lab.sif", own_environment="~/envs/mine/")
    assert both.software == "mine"
    assert ("Environment", "mine") in asked(both.model_dump(), snowy)
    html = render(snowy, _values(snowy), {}, known=Known(own_presets={"Lab": made.options(snowy)}))
    assert 'class="snowy-sum">lab.sif&nbsp;' in html
    assert "JupyterLab in mine, made by" in build(snowy, both, Target("a", "/home/me", "http://h/", 1))


def test_the_form_says_where_it_may_be(snowy: Site) -> None:
    html = render(snowy, _values(snowy), {}, known=Known(accounts=["g2021027"]))
    assert "<summary>Use my own environment</summary>" in html
    assert "It must be below ~ or /proj/g2021027." in html
    assert html.count('id="snowy-fold-own_environment" open') == 0
    html = render(snowy, {**_values(snowy), "own_environment": "~/lab"}, {})
    assert html.count('id="snowy-fold-own_environment" open') == 1


# -- as a line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("~/envs/lab", {"own_environment": "~/envs/lab"}),
        ("~/lab.sif", {"own_container": "~/lab.sif"}),
        ("~/envs/lab ~/lab.sif", {"own_environment": "~/envs/lab", "own_container": "~/lab.sif"}),
        ("~/envs/lab other.sif", {"own_environment": "~/envs/lab", "image": "other.sif"}),
        ("tf-mkl ~/sandbox", {"environment": "tf-mkl", "own_container": "~/sandbox"}),
        ("lab.sif", {"environment": "lab.sif"}),
        ("'~/a b'", {"own_environment": "~/a b"}),
    ],
)
def test_a_path_behind_the_dashes_is_one_s_own(words: str, given: dict[str, str]) -> None:
    assert from_line(f"-n 4 -- {words}") == {"cores": "4", **given}
    assert from_line(to_line(given)) == given


def test_a_line_is_written_without_quotes(snowy: Site) -> None:
    made = choose(snowy, own_environment="~/envs/lab", own_container="~/lab.sif")
    assert line(shared_options(made, snowy), snowy).endswith(" -- ~/envs/lab ~/lab.sif")
    made = choose(snowy, own_container="~/lab.sif")
    assert line(shared_options(made, snowy), snowy).endswith(" -- ~/lab.sif")


# -- several sessions --------------------------------------------------------------------------------------------------


def test_several_sessions_are_called_after_it(snowy: Site) -> None:
    plan = several.plan({"cores": "1,4", "own_environment": "~/envs/mine"}, snowy)
    assert [session.name for session in plan.sessions] == ["mine-1", "mine-4"]
    assert plan.title == "mine on 1 and 4 cores"
    with pytest.raises(Exception, match="your own environment takes the place of each of them"):
        several.plan({"environment": "tf-mkl,tf-pip", "own_environment": "~/envs/mine"}, snowy)
    found = several.verdict({"environment": "tf-mkl,tf-pip", "own_container": "~/lab.sif"}, snowy)
    assert list(found.errors) == ["environment"]


# -- course files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_a_course_s_own_is_below_its_project(snowy: Site, name: str) -> None:
    course = parse(f"title: Lab\n{name}: /proj/g2021027/lab\n", snowy, "g2021027")
    assert course.exercises[0].mistakes == ()
    assert course.exercises[0].options[name] == "/proj/g2021027/lab"
    for path in ("~/lab", "/home/teacher/lab", "/proj/g2020014/lab", "/proj/g2021027/../lab", "lab"):
        (mistake,) = parse(f"title: Lab\n{name}: {path}\n", snowy, "g2021027").exercises[0].mistakes
        assert (mistake.line, mistake.key, mistake.value) == (2, name, repr(path))
        assert "must be below /proj/g2021027" in mistake.allowed or "is not a path" in mistake.allowed
    with pytest.raises(CourseError, match="must be text"):
        parse(f"title: Lab\n{name}: [/proj/g2021027/lab]\n", snowy, "g2021027")


def test_a_course_s_own_where_the_site_offers_none(variant: Callable[..., Site]) -> None:
    site = variant(own={"containers": None, "environments": ["~"]})
    for name in BOTH:
        (mistake,) = parse(f"title: Lab\n{name}: /proj/g2021027/lab\n", site, "g2021027").exercises[0].mistakes
        assert mistake.allowed in ("is not offered here: leave it out", "is not offered here: leave it empty")


# -- what the job gets -------------------------------------------------------------------------------------------------

TARGET = Target("jupyter-a", "/home/me", "http://hub/", 7)


def test_a_container_takes_the_image_s_place(snowy: Site) -> None:
    given = json.loads(spec(snowy, choose(snowy, own_container="~/lab.sif", image="container.sif"), TARGET))
    usual = json.loads(spec(snowy, choose(snowy), TARGET))
    assert given["image"] == {**usual["image"], "path": "/home/me/lab.sif"}
    assert given["environment"] == {"kind": "none", "conda": "", "prefix": "", "name": "lab.sif"}


def test_an_environment_takes_the_environment_s_place(snowy: Site) -> None:
    given = json.loads(spec(snowy, choose(snowy, own_environment="~/envs/lab"), TARGET))
    usual = json.loads(spec(snowy, choose(snowy), TARGET))
    assert given["image"] == usual["image"]
    assert given["environment"] == {"kind": "prefix", "conda": "", "prefix": "/home/me/envs/lab", "name": "lab"}


def test_a_project_s_directory_is_bound(variant: Callable[..., Site]) -> None:
    site = variant(images={"container.sif": {"path": "/c.sif", "binds": ["/sw"]}})
    made = choose(site, own_environment="/proj/g2021027/envs/lab", own_container="/proj/g2021027/lab.sif")
    assert json.loads(spec(site, made, TARGET))["image"]["binds"] == ["/sw", "/proj/g2021027"]
    made = choose(site, own_environment="~/envs/lab")
    assert json.loads(spec(site, made, TARGET))["image"]["binds"] == ["/sw"]
    # Nor twice.
    site = variant(images={"container.sif": {"path": "/c.sif", "binds": ["/proj"]}})
    made = choose(site, own_environment="/proj/g2021027/envs/lab")
    assert json.loads(spec(site, made, TARGET))["image"]["binds"] == ["/proj"]


def test_a_container_runs_where_the_site_has_none(variant: Callable[..., Site]) -> None:
    site = variant(images={"container.sif": {"path": "/", "runtime": "none", "entry": "run", "binds": []}})
    image = json.loads(spec(site, choose(site, own_container="~/lab.sif"), TARGET))["image"]
    assert (image["runtime"], image["entry"], image["path"]) == ("auto", "exec", "/home/me/lab.sif")


@pytest.mark.parametrize("code", range(65, 83))
@pytest.mark.parametrize("mine", [{"own_container": "~/lab.sif"}, {"own_environment": "~/lab"}])
def test_why_a_job_failed_is_said_of_one_s_own(snowy: Site, code: int, mine: dict[str, str]) -> None:
    (name,) = mine
    request = choose(snowy, **mine).model_dump()
    said = why(Ended(exit_code=code, request=request, reported=True, reason="launch", node="s1"), snowy)
    assert "{" not in str(said)
    of_it = {"own_container": {66, 67, 68, 70, 73, 75}, "own_environment": {72, 73, 75}}[name]
    assert (said.field == name) == (code in of_it)
    assert (mine[name] in said.sentence) == (code in of_it or (name == "own_container" and "image" in said.sentence))
    assert said == messages.launch_failure(code, messages.facts_of(request, snowy, "s1"))


def _activate(tmp_path: Path, env: Path, *, server: str = "") -> subprocess.CompletedProcess[str]:
    spec: dict[str, Any] = {
        "image": {"path": "", "runtime": "none", "entry": "exec", "binds": []},
        "environment": {"kind": "prefix", "conda": "", "prefix": str(env), "name": "mine"},
        "gpu": "",
    }
    path = tmp_path / "image"
    path.mkdir(exist_ok=True)
    (path / "jupyterhub-singleuser").write_text("#!/bin/sh\necho the image's\n")
    (path / "jupyterhub-singleuser").chmod(0o755)
    claim = {"cmd": ["jupyterhub-singleuser"], "shell": own_environment.ACTIVATE}
    command = launcher.server_command(spec, claim, "", "/tmp", "")
    return subprocess.run(
        command, env={"PATH": f"{path}:/usr/bin:/bin"}, capture_output=True, text=True, timeout=30, cwd=tmp_path
    )


def _environment(
    path: Path, server: str | None = "#!/bin/sh\nenv; command -v python3\n", python: str = "/usr/bin/python3"
) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python3").symlink_to(python)
    (path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    if server is not None:
        (path / "bin" / "jupyterhub-singleuser").write_text(server)
        (path / "bin" / "jupyterhub-singleuser").chmod(0o755)
    return path


def test_an_environment_is_made_active(tmp_path: Path) -> None:
    made = _environment(tmp_path / "envs" / "mine")
    done = _activate(tmp_path, made)
    assert done.returncode == 0, done.stderr
    assert f"VIRTUAL_ENV={made}\n" in done.stdout
    assert done.stdout.endswith(f"{made}/bin/python3\n")
    # As conda does it, without conda.
    (made / "conda-meta").mkdir()
    (made / "etc/conda/activate.d").mkdir(parents=True)
    (made / "etc/conda/activate.d/gdal.sh").write_text("export GDAL_DATA=$CONDA_PREFIX/share/gdal\n")
    done = _activate(tmp_path, made)
    assert f"GDAL_DATA={made}/share/gdal\n" in done.stdout
    assert "VIRTUAL_ENV=" not in done.stdout


def test_another_server_is_not_taken_for_the_environment_s(tmp_path: Path) -> None:
    done = _activate(tmp_path, _environment(tmp_path / "mine", server=None))
    assert (done.returncode, done.stdout) == (73, "")
    assert done.stderr == f"snowyspawner: no jupyterhub-singleuser in {tmp_path}/mine/bin\n"


def test_an_environment_that_has_gone_is_said(tmp_path: Path) -> None:
    done = _activate(tmp_path, tmp_path / "mine")
    assert (done.returncode, done.stdout) == (72, "")
    assert f"no environment at {tmp_path}/mine" in done.stderr


def test_a_python_that_is_not_in_this_container_is_said(tmp_path: Path) -> None:
    done = _activate(tmp_path, _environment(tmp_path / "mine", python="/nowhere/python3"))
    assert (done.returncode, done.stdout) == (72, "")
    assert f"snowyspawner: the python of {tmp_path}/mine does not run in this container" in done.stderr


# -- what the helper finds ---------------------------------------------------------------------------------------------


@pytest.fixture
def look(variant: Callable[..., Site], tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Ask the helper, as the hub does; the places are in the test's directory."""
    site = variant(
        own={name: [f"{tmp_path}/home", f"{tmp_path}/proj/{{account}}"] for name in ("containers", "environments")}
    )

    def ask(name: str, path: str) -> tuple[str, str]:
        argv = ["/usr/bin/python3", "-IS", "-", "own", name, path]
        done = subprocess.run(argv, input=helper_text(site).encode(), capture_output=True, timeout=20, env={})
        assert (done.returncode, done.stderr) == (0, b"")
        word, detail, end = done.stdout.decode().split("\n")
        assert end == ""
        return word, detail

    return ask


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_an_environment_is_found(look: Any, home: Path) -> None:
    made = _environment(home / "mine")
    assert look("own_environment", str(made)) == ("ready", "venv")
    (made / "conda-meta").mkdir()
    assert look("own_environment", str(made)) == ("ready", "conda")
    # Made in a container: here its Python is not.
    (made / "bin/python3").unlink()
    (made / "bin/python3").symlink_to("/opt/container/python3")
    assert look("own_environment", str(made)) == ("ready", "conda")


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("rm -r $E", "missing"),
        ("rm -r $E; touch $E", "no_environment"),
        ("rm $E/bin/python3", "no_environment"),
        ("rm -r $E/bin", "no_environment"),
        ("rm $E/bin/jupyterhub-singleuser", "no_server"),
        ("rm $E/bin/jupyterhub-singleuser; mkfifo $E/bin/jupyterhub-singleuser", "no_server"),
        ("chmod a-x $E/bin/jupyterhub-singleuser", "forbidden"),
        ("echo '#!/old/place/bin/python3.12' > $E/bin/jupyterhub-singleuser", "moved /old/place"),
        ("echo '#!/usr/bin/env python3' > $E/bin/jupyterhub-singleuser", "ready venv"),
        ("printf '\\0\\377\\n' > $E/bin/jupyterhub-singleuser", "ready venv"),
        ("mv $E $E.old; ln -s $E.old $E", "ready venv"),
        ("mv $E $E.old; ln -s /usr $E", "outside /usr"),
        ("mv $E $E.old; ln -s $E $E", "unknown"),
    ],
)
def test_what_is_wrong_with_an_environment_is_found(look: Any, home: Path, change: str, answer: str) -> None:
    made = _environment(home / "mine")
    subprocess.run(["/bin/bash", "-c", change], env={"E": str(made), "PATH": "/usr/bin:/bin"}, check=True)
    if "a-x" in change and os.getuid() == 0:
        answer = "ready venv" if os.access(made / "bin/jupyterhub-singleuser", os.X_OK) else answer
    assert " ".join(look("own_environment", str(made))).strip() == (
        answer if " " in answer else f"{answer} {'venv' if answer == 'no_server' else ''}".strip()
    )


def test_a_link_may_lead_to_another_place(look: Any, home: Path, tmp_path: Path) -> None:
    """From the home directory to the project's; a place may itself be a link, as disks often are."""
    _environment(tmp_path / "disk" / "g1" / "mine")
    (tmp_path / "proj").symlink_to("disk")
    (home / "mine").symlink_to(tmp_path / "proj" / "g1" / "mine")
    assert look("own_environment", f"{tmp_path}/proj/g1/mine") == ("ready", "venv")
    (tmp_path / "home2").mkdir()
    _environment(tmp_path / "home2" / "mine")
    home.rename(tmp_path / "home3")
    home.symlink_to("home2")
    assert look("own_environment", f"{home}/mine") == ("ready", "venv")


@pytest.mark.parametrize("path", ["/etc/lab", "{tmp}/home", "{tmp}/homes/lab", "{tmp}/proj/lab", "{tmp}/proj/../etc"])
def test_elsewhere_nothing_is_looked_at(look: Any, home: Path, tmp_path: Path, path: str) -> None:
    path = path.replace("{tmp}", str(tmp_path))
    if ".." in path:
        with pytest.raises(AssertionError):  # no path at all
            look("own_environment", path)
    else:
        assert look("own_environment", path)[0] == "outside"


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"", "no_container"),
        (b"I am no image.\n", "no_container"),
        (b"\x7fELF" + bytes(2000), "no_container"),
        (None, "no_container"),  # a directory without a shell
    ],
)
def test_what_is_no_container_is_found(look: Any, home: Path, content: bytes | None, answer: str) -> None:
    path = home / "lab.sif"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert look("own_container", str(path))[0] == answer
    assert look("own_container", f"{home}/none.sif") == ("missing", "")
    os.mkfifo(home / "fifo")
    assert look("own_container", f"{home}/fifo") == ("no_container", "")


@pytest.mark.parametrize(
    "said", ["ready", "ready\n", "ready\nx\ny\n", "", "nonsense\n", "a" * 70000, "\x1b[31mready\n"]
)
async def test_whatever_the_person_s_process_says_is_an_answer(
    snowy: Site, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    reader = Reader(snowy)
    script = f"import sys; sys.stdin.read(); sys.stdout.write({said!r})"
    monkeypatch.setattr(Reader, "_command", lambda self, account: (["/usr/bin/python3", "-c", script], b""))
    found = await reader.own("own_environment", "~/lab", ME)
    assert found.answer == ("ready" if said.startswith("ready") else "unknown")
    assert not re.search(r"[\n\x1b]", found.detail)
