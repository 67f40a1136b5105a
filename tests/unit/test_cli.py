"""The ``snowyspawner`` command."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.admin import completion
from snowyspawner.choice.request import from_options
from snowyspawner.cli import main
from snowyspawner.config import site_of
from snowyspawner.session import script
from snowyspawner.site import Site, load
from snowyspawner.site.fields import FIELDS


def test_check_finds_nothing_wrong_with_snowy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "snowy: Snowy: fine; partitions core, node, devcore, devel; 3 presets\n"


def test_check_says_what_is_wrong_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: snowy\nnonsense: 1\numask: 022\n")
    assert main(["check", "--site", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(err.splitlines()) == [
        f"{file}: nonsense: 1: no such key",
        f"{file}: umask: 18: must be text: put it in quotes",
    ]


def test_check_tries_the_defaults_and_every_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: snowy\n"
        "defaults: {cores: 99}\n"
        "presets: {mkl: {choices: {cores: 4, time: '2:00:00'}}, gpu: null, pip: null}\n"
    )
    assert main(["check", "--site", str(file)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{file}: defaults: cores: a node of core has 16: ask for 16 or fewer"
    assert lines[1].startswith(f"{file}: presets.mkl: time: 2 hours is too long for devcore")
    assert len(lines) == 2


def test_check_of_a_site_that_is_not_there_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--site", "nosuch"]) == 1
    assert "no such site; there is" in capsys.readouterr().err


def test_script_prints_the_script_that_would_run(snowy: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["script"]) == 0
    target = script.Target("jupyter-lab-00000000", "/home/you", "http://hub.example/hub/api/snowyspawner/", 0)
    assert capsys.readouterr().out == script.build(snowy, from_options({}, snowy), target)


def test_script_takes_every_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: snowy\nmemory_free: true\nqos: {short: {}}\nconstraints: {bigmem: {}}\n")
    values = {
        "environment": "tf-mkl",
        "image": "container.sif",
        "own_container": "~/lab.sif",
        "own_environment": "~/envs/lab",
        "partition": "devcore",
        "cores": "16",
        "gpu": "none",
        "memory": "9000",
        "qos": "short",
        "constraint": "bigmem",
        "time": "1:00:00",
        "begin": "23:59",
        "account": "g2020014",
        "reservation": "course_1",
        "email_on_start": "1",
        "open": "course",
        "repository": "https://git.example/labs.git",
    }
    assert set(values) == set(FIELDS)
    arguments = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert main(["script", *arguments, "--site", str(file)]) == 0
    out = capsys.readouterr().out
    for option in (
        "--partition=devcore",
        "--ntasks=16",
        "--mem=9000M",
        "--time=1:00:00",
        "--account=g2020014",
        "--reservation=course_1",
        "--qos=short",
        "--constraint=bigmem",
        "--mail-type=BEGIN",
        "--begin=uts",
    ):
        assert f"#SBATCH {option}" in out
    assert "--gres" not in out


def test_a_refused_choice_names_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["script", "--cores", "17", "--email-on-start", "perhaps"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "--cores: a node of core has 16: ask for 16 or fewer\n" in err
    assert "--email-on-start: must be true or false\n" in err


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["script", "--colour", "red"], ["check", "--user", "x"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: snowyspawner" in capsys.readouterr().err


def test_the_command_is_installed() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "snowyspawner"), "--version"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, version("snowyspawner") + "\n")


def test_link_prints_a_link_for_the_flags_of_the_course_s_script(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["-n", "4", "-p", "devcore", "--gres=gpu:t4:0", "-t", "1:00:00", "--", "tf-mkl"]
    assert main(["link", "--hub", "https://hub.example/hub", *line]) == 0
    out, err = capsys.readouterr()
    choice = "opt-cores=4&opt-partition=devcore&opt-time=1%3A00%3A00&opt-environment=tf-mkl&opt-gpu=none"
    assert (out, err) == (f"https://hub.example/hub/snowy?{choice}\n", "")


def test_link_takes_a_list_for_several_sessions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["link", "-n", "1,4,8,16", "--", "tf-mkl"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("/hub/snowy?opt-cores=1,4,8,16&opt-environment=tf-mkl\n", "")
    assert main(["link", "-n", "1,17"]) == 1
    assert capsys.readouterr().err == "cores: for 17: a node of core has 16: ask for 16 or fewer\n"


def test_link_says_what_the_site_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """The link is printed all the same: the form names what has to change."""
    assert main(["link", "-n", "4", "-p", "devcore", "--gres=gpu:t4:0", "-t", "2:00:00", "--", "tf-mkl"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("/hub/snowy?opt-cores=4&")
    assert err == "time: 2 hours is too long for devcore: at most 1 hour, or choose core or node\n"


@pytest.mark.parametrize(
    ("words", "link"),
    [
        (["--server", "two", "-b", "15:00"], "/hub/snowy?opt-begin=15%3A00&server=two"),
        (["--site", "pelle", "-c", "2", "--mem=1G"], "/hub/snowy?opt-cores=2&opt-memory=1024"),
        (["--", "tf-pip"], "/hub/snowy?opt-environment=tf-pip"),
        ([], "/hub/snowy"),
    ],
)
def test_link_knows_its_own_flags_from_the_line_s(
    words: list[str], link: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["link", *words]) == 0
    assert capsys.readouterr().out == link + "\n"


@pytest.mark.parametrize("words", [["--colour"], ["-n"], ["--wrap=id"], ["-M", "rackham"], ["--", "a", "b", "c"]])
def test_a_line_that_cannot_be_read_gives_no_link(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["link", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("line: ")


def test_other_commands_take_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["script", "--colour"])
    assert "unrecognized arguments: --colour" in capsys.readouterr().err


# -- the site of a hub's configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "display_name"),
    [
        ('c.JupyterHub.spawner_class = "snowy"\nc.SnowySpawner.site = "pelle"\n', "pelle", "Pelle"),
        ('c.JupyterHub.spawner_class = "snowy"\n', "snowy", "Snowy"),
        (
            "import snowyspawner\n"
            "class Mine(snowyspawner.SnowySpawner):\n    pass\n"
            'c.JupyterHub.spawner_class = Mine\nc.SnowySpawner.site = "snowy"\nc.Mine.site = "pelle"\n',
            "pelle",
            "Pelle",
        ),
        (
            'import snowyspawner\nc.JupyterHub.spawner_class = "snowy"\n'
            'c.SnowySpawner.site = {"extends": "snowy", "display_name": "Ours"}\nsnowyspawner.set_config(c)\n',
            None,
            "Ours",
        ),
    ],
)
def test_the_site_of_a_hub_s_configuration(tmp_path: Path, text: str, name: str | None, display_name: str) -> None:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(text)
    found = site_of(str(file))
    assert (found if isinstance(found, str) else None) == name
    assert load(found).display_name == display_name
    assert main(["link", "--config", str(file), "-n", "2"]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no such file"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("c.JupyterHub.spawner_class =\n", "SyntaxError: "),
        (
            'c.JupyterHub.spawner_class = "simple"\n',
            "c.JupyterHub.spawner_class: SimpleLocalProcessSpawner: must be snowy",
        ),
        (
            'c.JupyterHub.spawner_class = "snowy"\nc.SnowySpawner.site = {"extends": "snowy", "x": 1}\n',
            "x: 1: no such key",
        ),
    ],
)
def test_what_is_wrong_in_a_hub_s_configuration_is_said(
    tmp_path: Path, text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jupyterhub_config.py"
    if text is not None:
        file.write_text(text)
    assert main(["helper", "-f", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_a_configuration_is_run_only_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's may lie in the directory that one happens to be in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jupyterhub_config.py").write_text("raise SystemExit(5)\n")
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("snowy: Snowy: fine; ")


@pytest.mark.parametrize("verb", ["check", "script", "helper", "link", "form"])
def test_every_verb_takes_the_site_in_the_same_way(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--site", "pelle"], ["--site=pelle"]):
        assert main([verb, *words]) == 0
    assert capsys.readouterr().out
    assert main([verb, "--site", "nosuch"]) == 1
    assert "no such site; there is" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--site SITE" in said
    assert "--config FILE" in said
    assert "Exit status: 0 " in said
    with pytest.raises(SystemExit) as caught:
        main([verb, "--site", "snowy", "-f", "x"])
    assert caught.value.code == 2


def test_examples_are_the_site_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: snowy\ndefaults: {cores: 7}\n")
    for words, example in ((["--site", str(file)], "-n 7 "), ([f"--site={file}"], "-n 7 "), ([], "-n 4 ")):
        with pytest.raises(SystemExit):
            main(["link", *words, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert example in said.partition("Example: snowyspawner link ")[2]


def test_help_says_what_the_site_allows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["script", "--site", "pelle", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--partition VALUE Partition. One of haswell, pelle, gpu, fat-2TB, fat-3TB. --cores" in said
    assert "One of none, t4:1, l40s:1," in said
    assert "--email-on-start VALUE Mail. One of 0, 1." in said


# -- completion: tests/cluster/test_completion.py has it in real shells -----------------------------------------------


@pytest.mark.parametrize(
    ("option", "line", "values"),
    [
        ("partition", {}, ["core", "node", "devcore", "devel"]),
        ("partition", {"site": "pelle", "config": ""}, ["haswell", "pelle", "gpu", "fat-2TB", "fat-3TB"]),
        ("gpu", {"site": "snowy"}, ["none", "t4:1"]),
        ("environment", {"site": None}, ["tf-gpu", "tf-mkl", "tf-pip"]),
        ("image", {}, ["container.sif"]),
        ("email_on_start", {}, ["0", "1"]),
        ("cores", {}, []),
        ("site", {}, ["pelle", "snowy"]),
        ("hub", {}, []),
        ("partition", {"site": "nosuch"}, []),
        ("partition", {"config": "jupyterhub_config.py"}, []),
    ],
)
def test_values_that_a_shell_can_offer(option: str, line: dict[str, Any], values: list[str]) -> None:
    assert completion.allowed(option, argparse.Namespace(**line), "snowy") == values


def test_without_argcomplete_the_command_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["check"]) == 0


def test_the_command_does_not_import_jupyterhub() -> None:
    """It takes longer than all else, at each press of Tab."""
    code = "import sys, snowyspawner.cli; print(sorted({'jupyterhub', 'tornado', 'traitlets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_the_package_has_what_it_offers() -> None:
    import snowyspawner

    for name in snowyspawner.__all__:
        assert getattr(snowyspawner, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        snowyspawner.nonsense  # noqa: B018


# -- for scripts -------------------------------------------------------------------------------------------------------


def test_check_says_the_same_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "mistakes": [],
        "site": "snowy",
        "display_name": "Snowy",
        "partitions": ["core", "node", "devcore", "devel"],
        "presets": ["gpu", "mkl", "pip"],
    }
    file = tmp_path / "mine.yaml"
    file.write_text("extends: snowy\nnonsense: 1\n")
    assert main(["check", "--json", "--site", str(file)]) == 1
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"ok": False, "mistakes": [f"{file}: nonsense: 1: no such key"]}, "")


def test_check_says_of_a_course_file_the_same_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "course.yaml"
    file.write_text("title: x\ncores: 2\n")
    assert main(["check", "--json", "--course", str(file), "--account", "g2021027"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["title"], said["account"]) == (True, "x", "g2021027")
    assert [card["options"]["cores"] for card in said["cards"]] == ["2"]
    file.write_text("title: x\ncores: 99\n")
    assert main(["check", "--json", "--course", str(file)]) == 1
    (mistake,) = json.loads(capsys.readouterr().out)["mistakes"]
    assert mistake == f"{file}:2: cores: '99': a node of core has 16: ask for 16 or fewer"
