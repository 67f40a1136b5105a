"""The shell text that fetches a course's repository: the real one, with the real git, in a home of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from snowyspawner.choice.request import SessionRequest, from_options
from snowyspawner.session import repository
from snowyspawner.site import Site
from snowyspawner.standalone import launcher
from tests.git_server import certificate, commit, serving

SHELLS = ["/bin/bash", "/bin/dash"]
LAB = "/lab/tree/labs/lab1.ipynb"


def request(site: Site, where: str, file: str = "labs/lab1.ipynb") -> SessionRequest:
    return from_options({"repository": where, "open": file}, site)


@pytest.fixture
def project(tmp_path: Path, variant: Callable[..., Site]) -> tuple[Site, Path]:
    """A Site with projects below the test's directory, and a repository in one of them."""
    work = tmp_path / "proj" / "g2021027" / "labs"
    commit(work, {"lab1.ipynb": "one", "mine.txt": "theirs"})
    return variant(courses={"course": f"{tmp_path}/proj/{{account}}/jupyter-course.yaml"}), work


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def fetch(choice: SessionRequest, home: Path, shell: str = SHELLS[0], path: str = "", **more: str) -> tuple[str, str]:
    """Run the text as a job does; return the page that JupyterLab opens, and what was said."""
    env = {
        "PATH": path or "/usr/bin:/bin",
        "HOME": str(home),
        "JUPYTERHUB_DEFAULT_URL": choice.lab_path(),
        **repository.variables(choice),
        **more,
    }
    script = repository.FETCH + '\nprintf %s "$JUPYTERHUB_DEFAULT_URL"; env | grep ^SNOWYSPAWNER_ >&2'
    done = subprocess.run([shell, "-c", script], cwd=home, env=env, capture_output=True, text=True, timeout=60)
    return done.stdout, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_path_of_a_project_is_cloned_and_brought_up_to_date(
    shell: str, project: tuple[Site, Path], home: Path
) -> None:
    """What the student has changed stays, and stays theirs when the teacher changes the same."""
    site, work = project
    choice = request(site, str(work))
    assert fetch(choice, home, shell) == (LAB, "")
    assert (home / "labs" / "lab1.ipynb").read_text() == "one"
    commit(work, {"lab1.ipynb": "two"})
    (home / "labs" / "mine.txt").write_text("mine")
    assert fetch(choice, home, shell) == (LAB, "")
    assert [(home / "labs" / name).read_text() for name in ("lab1.ipynb", "mine.txt")] == ["two", "mine"]
    commit(work, {"mine.txt": "newer"})
    page, said = fetch(choice, home, shell)
    assert page == LAB
    assert said.startswith(f"snowyspawner: The repository file://{work} was not fetched: ")
    assert (home / "labs" / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in home.iterdir()) == ["labs"]


def test_the_branch_that_is_asked_for_is_cloned(project: tuple[Site, Path], home: Path) -> None:
    site, work = project
    subprocess.run(["git", "branch", "v1"], cwd=work, check=True)
    commit(work, {"lab1.ipynb": "later"})
    assert fetch(request(site, f"{work}#v1"), home) == (LAB, "")
    assert (home / "labs" / "lab1.ipynb").read_text() == "one"


@pytest.mark.parametrize("shell", SHELLS)
def test_what_cannot_be_fetched_is_said_where_the_student_sees_it(shell: str, snowy: Site, home: Path) -> None:
    """Nobody listens there: as on a node without the network."""
    choice = request(snowy, "https://127.0.0.1:9/labs.git")
    page, said = fetch(choice, home, shell)
    assert page == "/lab/tree/labs-not-fetched.txt"
    note = (home / "labs-not-fetched.txt").read_text()
    assert note.startswith("The repository https://127.0.0.1:9/labs.git was not fetched: ")
    assert note.splitlines()[0] in said
    assert "The session runs without it." in note
    assert sorted(path.name for path in home.iterdir()) == ["labs-not-fetched.txt"]


def test_a_note_goes_when_it_is_no_longer_true(project: tuple[Site, Path], home: Path) -> None:
    site, work = project
    (home / "labs-not-fetched.txt").write_text("old")
    assert fetch(request(site, str(work)), home)[0] == LAB
    assert not (home / "labs-not-fetched.txt").exists()


def test_what_is_there_already_is_left_as_it_is(project: tuple[Site, Path], home: Path) -> None:
    """Also where the home is a repository itself: git would look for one upwards."""
    site, work = project
    commit(home, {"diary": "x"})
    (home / "labs").mkdir()
    page, said = fetch(request(site, str(work)), home)
    assert page == LAB
    assert "there is a labs that is no git repository" in said
    assert list((home / "labs").iterdir()) == []


def test_a_copy_of_another_repository_is_left_as_it_is(project: tuple[Site, Path], home: Path, tmp_path: Path) -> None:
    """Of the same name: pulled, it would be taken for the course's."""
    site, work = project
    commit(tmp_path / "other" / "labs", {"mine": "x"})
    subprocess.run(["git", "clone", "-q", tmp_path / "other" / "labs", home / "labs"], check=True)
    page, said = fetch(request(site, str(work)), home)
    assert page == LAB
    assert "labs is a copy of another repository" in said
    assert [path.name for path in (home / "labs").iterdir() if path.name != ".git"] == ["mine"]


def test_without_git_it_is_said(project: tuple[Site, Path], home: Path, tmp_path: Path) -> None:
    site, work = project
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("timeout", "tail", "rm", "env", "grep"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    page, said = fetch(request(site, str(work)), home, path=str(tools))
    assert page == "/lab/tree/labs-not-fetched.txt"
    assert "there is no git in this environment" in said


def test_no_hook_of_anybody_s_runs(project: tuple[Site, Path], home: Path, tmp_path: Path) -> None:
    """Neither a template's nor one that was put into the clone."""
    site, work = project
    for hooks in (tmp_path / "template" / "hooks", home / "hooks"):
        hooks.mkdir(parents=True)
        for name in ("post-checkout", "post-merge"):
            (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
            (hooks / name).chmod(0o755)
    config = f"[init]\n\ttemplateDir = {tmp_path}/template\n[core]\n\thooksPath = {home}/hooks\n"
    (home / ".gitconfig").write_text(config)
    choice = request(site, str(work))
    assert fetch(choice, home) == (LAB, "")
    commit(work, {"lab1.ipynb": "two"})
    assert fetch(choice, home) == (LAB, "")
    assert (home / "labs" / "lab1.ipynb").read_text() == "two"
    assert not (tmp_path / "hooked").exists()


@pytest.mark.parametrize("url", ["https://127.0.0.1:9/x.git", "file:///nosuch/x.git"])
def test_a_submodule_is_not_fetched(url: str, project: tuple[Site, Path], home: Path) -> None:
    site, work = project
    (work / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = {url}\n')
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=work, check=True, capture_output=True, text=True).stdout
    entry = f"160000,{head.strip()},x"
    (work / "x").mkdir()
    subprocess.run(["git", "update-index", "--add", "--cacheinfo", entry], cwd=work, check=True)
    commit(work, {"more": "x"})
    (home / ".gitconfig").write_text("[submodule]\n\trecurse = true\n")
    assert fetch(request(site, str(work)), home) == (LAB, "")
    assert list((home / "labs" / "x").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_a_repository_of_the_teacher_s_is_read_by_the_student(variant: Callable[..., Site]) -> None:
    """git refuses other people's repositories on the same disk unless it is told that this is meant."""
    with tempfile.TemporaryDirectory() as name:
        place, home = Path(name), Path(name) / "home"
        place.chmod(0o755)
        home.mkdir()
        os.chown(home, 65534, 65534)
        work = place / "proj" / "g2021027" / "labs"
        choice = request(variant(courses={"course": f"{name}/proj/{{account}}/c.yaml"}), str(work))
        env = {"PATH": "/usr/bin:/bin", "HOME": str(home), **repository.variables(choice)}
        nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
        for text in ("one", "two"):
            commit(work, {"lab1.ipynb": text})
            words = [*nobody, SHELLS[1], "-c", repository.FETCH]
            done = subprocess.run(words, cwd=home, env=env, capture_output=True, text=True, timeout=60)
            assert done.stderr == ""
            assert (home / "labs" / "lab1.ipynb").read_text() == text


# -- https -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("repositories")
    commit(root / "labs", {"lab1.ipynb": "one"})
    pem = certificate(root)
    with serving(root, pem) as url:
        yield url, pem


def test_without_nbgitpuller_git_fetches_from_https(server: tuple[str, Path], snowy: Site, home: Path) -> None:
    url, pem = server
    (home / ".gitconfig").write_text(f"[http]\n\tsslCAInfo = {pem}\n")
    assert fetch(request(snowy, f"{url}/labs"), home) == (LAB, "")
    assert (home / "labs" / "lab1.ipynb").read_text() == "one"


@pytest.mark.parametrize(
    ("repository_name", "branch", "said"),
    [("labs", "", ""), ("labs", "main", ""), ("labs", "none", "no such branch"), ("other", "", "not found")],
)
def test_with_nbgitpuller_its_page_comes_first_if_the_repository_answers(
    repository_name: str,
    branch: str,
    said: str,
    server: tuple[str, Path],
    snowy: Site,
    home: Path,
    executable: Callable[..., Path],
) -> None:
    """What tells whether it is there is its command; nothing is run with it."""
    url, pem = server
    tools = executable("gitpuller", "#!/bin/sh\nexit 9\n").parent
    (home / ".gitconfig").write_text(f"[http]\n\tsslCAInfo = {pem}\n")
    where = f"{url}/{repository_name}"
    choice = request(snowy, f"{where}#{branch}" if branch else where, f"{repository_name}/a b.ipynb")
    page, heard = fetch(choice, home, path=f"{tools}:/usr/bin:/bin")
    if said:
        assert page == f"/lab/tree/{repository_name}-not-fetched.txt"
        assert said in heard
        return
    assert heard == ""
    parts = urlsplit(page)
    asked = {"repo": [where], "targetpath": ["labs"], "urlpath": ["lab/tree/labs/a%20b.ipynb"]}
    assert (parts.path, parse_qs(parts.query)) == ("/git-pull", asked | ({"branch": [branch]} if branch else {}))


def test_a_certificate_that_nobody_knows_is_not_trusted(server: tuple[str, Path], snowy: Site, home: Path) -> None:
    page, said = fetch(request(snowy, f"{server[0]}/labs"), home)
    assert page == "/lab/tree/labs-not-fetched.txt"
    assert "certificate" in said


def test_nobody_is_asked_for_a_password(snowy: Site, home: Path, tmp_path: Path) -> None:
    """A server that wants one is a refusal, at once, whatever the person has configured to be asked with."""
    root = tmp_path / "closed"
    (root / "labs").mkdir(parents=True)
    pem = certificate(root)
    asked = tmp_path / "asked"
    asked.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-asked\necho secret\n")
    asked.chmod(0o755)
    config = f"[http]\n\tsslCAInfo = {pem}\n[core]\n\taskPass = {asked}\n"
    (home / ".gitconfig").write_text(config)
    with serving(root, pem, wants_password=True) as url:
        page, said = fetch(request(snowy, f"{url}/labs"), home, SSH_ASKPASS=str(asked), DISPLAY=":0")
    assert page == "/lab/tree/labs-not-fetched.txt"
    assert "was not fetched" in said
    assert not (tmp_path / "was-asked").exists()


# -- in the launcher -------------------------------------------------------------------------------------------------


def test_the_launcher_runs_it_before_the_server(project: tuple[Site, Path], home: Path, tmp_path: Path) -> None:
    """The text is the same whatever is fetched, and what is fetched is never text of the shell."""
    site, work = project
    choice = request(site, str(work))
    spec: dict[str, Any] = {
        "image": {"path": "", "runtime": "none", "entry": "exec", "binds": []},
        "environment": {"kind": "none", "conda": "", "prefix": "", "name": "base"},
        "gpu": "",
    }
    server = tmp_path / "server"
    server.write_text('#!/bin/sh\necho "$JUPYTERHUB_DEFAULT_URL"; cat labs/lab1.ipynb\n')
    server.chmod(0o755)
    claim = {"cmd": [str(server)], "shell": repository.FETCH}
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "JUPYTERHUB_DEFAULT_URL": choice.lab_path(),
        **repository.variables(choice),
    }
    command = launcher.server_command(spec, claim, "", "/tmp", "")
    assert not any(str(work) in word for word in command)
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{LAB}\none", "")
    assert launcher.server_command(spec, {"cmd": ["x"]}, "", "/tmp", "")[4] == launcher.INNER


def test_a_root_of_the_hub_s_goes_in_front(snowy: Site) -> None:
    found = repository.variables(request(snowy, "https://git.example/labs"), "work/here")
    assert found["SNOWYSPAWNER_DIRECTORY"] == "work/here/labs"
    assert found["SNOWYSPAWNER_NOTE"] == "/lab/tree/labs-not-fetched.txt"
    assert "urlpath=lab%2Ftree%2Flabs%2Flab1.ipynb" in found["SNOWYSPAWNER_PULL"]
    assert request(snowy, "https://git.example/labs", "").lab_path("work/here") == "/lab/tree/labs"
