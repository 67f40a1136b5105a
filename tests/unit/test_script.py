"""The job script: the seed's options and no others, and nothing in it that a shell could read as a person's words."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from snowyspawner.choice.request import from_options
from snowyspawner.session import script
from snowyspawner.session.script import Target
from snowyspawner.site import Site, load
from snowyspawner.slurm.client import SCRIPT_LIMIT
from snowyspawner.standalone import end_warning, launcher, sampler

BIN = Path(sys.executable).parent

# Everything in a script that varies, at its most unusual.
FULL: dict[str, Any] = {
    "environment": "tf-mkl",
    "partition": "devcore",
    "cores": 16,
    "gpu": "none",
    "time": "1:00:00",
    "begin": "15:00",
    "account": "uppmax2023-2-11",
    "reservation": "g2021027_1",
    "email_on_start": True,
    "open": "a b/$(id) 'å' \" `x` {{y}} #.ipynb",
}
PROLOGUE = """
module() { :; }
module load tools
export SITE="it's $HOME"
"""


def options_of(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


def built(site: Site, target: Target, **options: Any) -> str:
    return script.build(site, from_options(options, site), target)


@pytest.fixture(scope="session")
def rich(variant: Callable[..., Site]) -> Site:
    return variant(prologue=PROLOGUE, memory_free=True)


# -- options -----------------------------------------------------------------------------------------------------


def test_the_default_asks_for_exactly_what_the_seed_asked_for(snowy: Site, target: Target) -> None:
    options = dict(option.removeprefix("--").partition("=")[::2] for option in options_of(built(snowy, target)))
    ours = {
        "job-name": "jupyter-lab-0123abcd",
        "no-requeue": "",
        "chdir": "/home/you",
        "output": "/home/you/.snowyspawner-%j.log",
        "export": "ALL",
        "signal": "B:USR1@600",
    }
    # notebookjob.sh: -A g2021027 -t 0:59:00 -p core -n 4 --gres=gpu:t4:1; -M snowy is an argument of sbatch's.
    seed = {"account": "g2021027", "time": "0:59:00", "partition": "core", "ntasks": "4", "gres": "gpu:t4:1"}
    assert options == ours | seed


def test_every_choice_has_its_option(variant: Callable[..., Site], target: Target) -> None:
    site = variant(memory_free=True, single_node=True)
    now = 1790848800.0  # 2026-10-01 12:00 in Stockholm
    text = script.build(site, from_options(FULL | {"memory": 9000}, site, now), target)
    assert options_of(text) == [
        "--job-name=jupyter-lab-0123abcd",
        "--account=uppmax2023-2-11",
        "--time=1:00:00",
        "--partition=devcore",
        "--nodes=1",
        "--ntasks=16",
        "--mem=9000M",
        "--reservation=g2021027_1",
        "--begin=uts1790859600",  # 15:00 there; seconds of the epoch, because sbatch has a zone of its own
        "--mail-type=BEGIN",
        "--signal=B:USR1@600",
        "--no-requeue",
        "--chdir=/home/you",
        "--output=/home/you/.snowyspawner-%j.log",
        "--export=ALL",
    ]


def test_a_site_may_ask_for_cores_by_cpus_per_task(variant: Callable[..., Site], target: Target) -> None:
    # Pelle's way (reference: a task with many cores, so that one kernel may use them all).
    site = variant(cores_option="cpus-per-task", gpus={"t4": {"request": "--gpus=t4:{count}"}}, single_node=True)
    options = options_of(built(site, target, cores=8))
    assert [option for option in options if "task" in option] == ["--ntasks=1", "--cpus-per-task=8"]
    assert "--gpus=t4:1" in options
    assert "--nodes=1" in options


def test_pelle_s_default_is_the_course_s_session_in_pelle_s_words(target: Target) -> None:
    options = options_of(built(load("pelle"), target, account="uppmax2025-2-1"))
    assert options[1:8] == [
        "--account=uppmax2025-2-1",
        "--time=0:59:00",
        "--partition=haswell",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=4",
        "--gpus=t4:1",
    ]


def test_a_part_of_a_partition_is_its_slurm_name_and_a_constraint(target: Target) -> None:
    options = options_of(built(load("pelle"), target, partition="fat-3TB", gpu="none", memory="3000000"))
    assert "--partition=fat" in options
    assert "--constraint=3TB" in options
    assert "--mem=3000000M" in options
    assert not [o for o in options_of(built(load("pelle"), target)) if o.startswith("--constraint")]


def test_a_time_is_always_sent(target: Target) -> None:
    # On Pelle, a job that does not say is given a minute.
    assert "--time=0:59:00" in options_of(built(load("pelle"), target, time=""))


@pytest.mark.parametrize(
    ("time", "warn_before", "option", "warn"),
    [
        ("0:59:00", "10:00", "B:USR1@600", 600),
        ("0:59:00", "0:30", "B:USR1@30", 30),
        ("10-00:00:00", "18:00:00", "B:USR1@64800", 64800),
        # A short session is warned half way.
        ("20", "10:00", "B:USR1@600", 600),
        ("19", "10:00", "B:USR1@570", 570),
        ("5", "10:00", "B:USR1@150", 150),
        # Slurm counts in minutes, and rounds up.
        ("2:30", "10:00", "B:USR1@90", 90),
        # Slurm's signal may come a minute early, which would be at the start: JupyterLab warns by its own clock.
        ("2", "10:00", "", 60),
        ("1", "10:00", "", 30),
        ("0:59:00", "", "", 0),
        ("0:59:00", "0", "", 0),
    ],
)
def test_slurm_is_asked_to_warn_before_the_end(
    variant: Callable[..., Site], target: Target, time: str, warn_before: str, option: str, warn: int
) -> None:
    text = built(variant(warn_before=warn_before), target, time=time)
    assert [o for o in options_of(text) if o.startswith("--signal")] == ([f"--signal={option}"] if option else [])
    assert json.loads(text.splitlines()[-2])["warn"] == warn


def test_the_warning_s_signal_is_ignored_before_anything_runs(rich: Site, target: Target) -> None:
    commands = [line for line in built(rich, target).splitlines() if line and not line.startswith("#")]
    assert commands[0] == "trap '' USR1"


def test_the_signal_kills_neither_bash_nor_what_the_prologue_runs(
    tmp_path: Path, variant: Callable[..., Site], target: Target, executable: Callable[..., Path]
) -> None:
    # The prologue signals its own shell and a child's; what takes the launcher's place shows that it was reached.
    prologue = 'kill -USR1 $$; sh -c "kill -USR1 \\$\\$; :" && touch "$REACHED/prologue"'
    python = executable("python", '#!/bin/sh\nkill -USR1 $$; touch "$REACHED/launcher"\n')
    text = built(variant(python=str(python), prologue=prologue), target)
    subprocess.run(
        ["/bin/bash", "-s"], input=text.encode(), check=True, timeout=30, env={**os.environ, "REACHED": str(tmp_path)}
    )
    assert {"prologue", "launcher"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("log", "directory", "ours", "others"),
    [
        (".snowyspawner-%j.log", "", [".snowyspawner-17.log"], ["x.snowyspawner-17.log", ".snowyspawner-17xlog"]),
        ("logs/s%j", "logs", ["s1", "s0123456789"], ["s", "s1a", "s-1", "s1\n", "s\N{ARABIC-INDIC DIGIT ONE}"]),
        ("%j-%j.100%%", "", ["5-5.100%"], ["5-6.100%", "5-5.100%%"]),
    ],
)
def test_logs_of_earlier_jobs_are_told_by_their_whole_name(
    variant: Callable[..., Site], target: Target, log: str, directory: str, ours: list[str], others: list[str]
) -> None:
    text = built(variant(log=log, keep_logs={"days": 7, "number": 0}), target)
    logs = json.loads(text.splitlines()[-2])["logs"]
    assert (logs["directory"], logs["days"], logs["number"]) == (directory, 7, 0)
    assert [name for name in ours if not re.fullmatch(logs["pattern"], name)] == []
    assert [name for name in others if re.fullmatch(logs["pattern"], name)] == []


@pytest.mark.parametrize(
    "changes",
    [
        # Which file of such a name is a log, and whose, is not certain.
        {"log": "logs/%j/out.log"},
        {"keep_logs": {"days": 0, "number": 0}},
    ],
    ids=str,
)
def test_logs_that_cannot_be_told_for_certain_are_kept(
    variant: Callable[..., Site], target: Target, changes: dict[str, Any]
) -> None:
    assert json.loads(built(variant(**changes), target).splitlines()[-2])["logs"] == {}


def test_without_an_account_there_is_no_account_option(variant: Callable[..., Site], target: Target) -> None:
    text = built(variant(accounts={"default": ""}), target)
    assert "--account" not in text
    assert "#SBATCH \n" not in text


@pytest.mark.parametrize(
    ("home", "log"),
    [
        ("/", "/.snowyspawner-%j.log"),
        ("/home/you/", "/home/you/.snowyspawner-%j.log"),
        # In sbatch(1)'s file names % begins a pattern and %% is the character.
        ("/home/50%you", "/home/50%%you/.snowyspawner-%j.log"),
    ],
)
def test_the_log_is_in_the_person_s_home(snowy: Site, target: Target, home: str, log: str) -> None:
    assert f"--output={log}" in options_of(built(snowy, replace(target, home=home)))


@pytest.mark.parametrize(
    "home", ["/home/a b", "/home/a'b", '/home/a"b', "/home/$(id)", "/home/a\nb", "/home/å", "home/you", "", "/a\0b"]
)
def test_a_home_that_sbatch_cannot_be_given_is_refused(snowy: Site, target: Target, home: str) -> None:
    with pytest.raises(ValueError, match="home directory"):
        built(snowy, replace(target, home=home))


@pytest.mark.parametrize("name", ["a\nb", "å", "\x1b[0m"])
def test_a_job_name_that_is_no_plain_word_is_refused(snowy: Site, target: Target, name: str) -> None:
    with pytest.raises(ValueError, match="characters"):
        built(snowy, replace(target, name=name))


# -- the script as a whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, FULL], ids=["default", "full"])
@pytest.mark.parametrize(
    "command", [["/bin/bash", "-n"], [str(BIN / "shellcheck"), "--norc", "--shell=bash"]], ids=" ".join
)
def test_bash_and_shellcheck_have_nothing_to_say(
    tmp_path: Path, rich: Site, target: Target, command: list[str], options: dict[str, Any]
) -> None:
    file = tmp_path / "job.sh"
    file.write_text(built(rich, target, **options))
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_one_write_to_a_pipe_delivers_it_whole(rich: Site, target: Target) -> None:
    size = len(built(rich, target, **FULL).encode())
    assert size <= SCRIPT_LIMIT < 64 * 1024
    # Room for a site's prologue.
    assert size < 38 * 1024


def test_the_site_s_prologue_runs_before_the_launcher(rich: Site, target: Target) -> None:
    text = built(rich, target)
    assert text.index("module load tools") < text.index("\nexec /usr/bin/python3 -I /dev/fd/3")
    # sbatch stops reading options at the first command: none may come later.
    assert text.rindex("\n#SBATCH ") < text.index("module()")


def test_what_ends_the_heredocs_is_nowhere_else(rich: Site, target: Target) -> None:
    lines = built(rich, target, **FULL).splitlines()
    for word in ("LAUNCHER", "END_WARNING", "SPEC"):
        word = f"SNOWYSPAWNER_{word}"
        having = [line for line in lines if word in line]
        assert len(having) == 2
        assert having[0].startswith("exec ")
        assert f"<<'{word}'" in having[0]  # quoted: the shell expands nothing in it
        assert having[1] == word


def test_what_reaches_the_node_s_python_is_what_we_have(
    tmp_path: Path, variant: Callable[..., Site], target: Target, executable: Callable[..., Path]
) -> None:
    # A python that says what it was given: bash itself does the rest, as on a node.
    python = executable(
        "python",
        f'#!/bin/sh\necho "$@" > {tmp_path}/argv\n' + "".join(f"cat <&{n} > {tmp_path}/{n}\n" for n in range(3, 6)),
    )
    site = variant(python=str(python))
    text = built(site, target, **FULL)
    subprocess.run(["/bin/bash", "-s"], input=text.encode(), check=True, timeout=30)
    assert (tmp_path / "argv").read_text() == "-I /dev/fd/3\n"
    assert (tmp_path / "3").read_bytes() == Path(launcher.__file__).read_bytes()
    assert (tmp_path / "5").read_bytes() == Path(end_warning.__file__).read_bytes()
    assert json.loads((tmp_path / "4").read_text()) == json.loads(script.spec(site, from_options(FULL, site), target))


def test_no_text_of_a_person_s_is_in_the_script(rich: Site, target: Target) -> None:
    text = built(rich, target, **FULL)
    text = text.replace(Path(launcher.__file__).read_text(), "")
    for part in ("$(id)", "{{y}}", "`x`", "ipynb"):
        assert part not in text


# -- the spec ----------------------------------------------------------------------------------------------------


def test_the_spec_is_one_line_of_json_with_what_the_launcher_reads(snowy: Site, target: Target) -> None:
    line = script.spec(snowy, from_options({}, snowy), target)
    assert "\n" not in line
    assert json.loads(line) == {
        "hub_url": "http://hub.example:8081/hub/api/snowyspawner/",
        "hub_wait": 600,
        "server": 7,
        "name": "jupyter-lab-0123abcd",
        "image": {
            "path": "/proj/g2020014/nobackup/private/container.sif",
            "runtime": "auto",
            "entry": "exec",
            "binds": ["/proj", "/sw", "/crex", "/domus"],
        },
        "environment": {"kind": "conda", "conda": "", "prefix": "", "name": "tf-gpu"},
        "gpu": "nvidia",
        "limit": 59 * 60,
        "warn": 600,
        "logs": {"directory": "", "pattern": r"\.snowyspawner\-(?P<job>[0-9]+)\.log", "days": 30, "number": 50},
        "umask": "022",
        "listen": "0.0.0.0",  # noqa: S104
        "ports": "",
        "scratch": ["SNIC_TMP", "TMPDIR"],
    }


@pytest.mark.parametrize("url", ["http://h/\nSNOWYSPAWNER_SPEC\n", "http://h/'$(id)'", "http://h/å"])
def test_the_hub_s_address_stays_inside_the_json(snowy: Site, target: Target, url: str) -> None:
    text = built(snowy, replace(target, hub_url=url))
    assert text.isascii() or "å" not in text
    assert text.splitlines().count("SNOWYSPAWNER_SPEC") == 1
    assert json.loads(text.splitlines()[-2])["hub_url"] == url


@pytest.mark.parametrize("vendor", ["nvidia", "amd", "intel"])
def test_the_launcher_is_told_whose_gpus_they_are(variant: Callable[..., Site], target: Target, vendor: str) -> None:
    site = variant(gpus={"t4": {"vendor": vendor}})
    assert json.loads(script.spec(site, from_options({}, site), target))["gpu"] == vendor


def test_a_cpu_session_asks_the_launcher_for_no_gpu(snowy: Site, target: Target) -> None:
    request = from_options({"gpu": "none"}, snowy)
    assert json.loads(script.spec(snowy, request, target))["gpu"] == ""
    assert "--gres" not in script.build(snowy, request, target)


# -- the job's environment ---------------------------------------------------------------------------------------


def test_the_job_inherits_who_it_runs_as_and_the_one_time_secret() -> None:
    account = pwd.struct_passwd(("you", "x", 1000, 1000, "You", "/home/you", "/bin/zsh"))
    assert script.variables(account, "s3cret") == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/home/you",
        "USER": "you",
        "LOGNAME": "you",
        "SHELL": "/bin/zsh",
        "SNOWYSPAWNER_SECRET": "s3cret",
    }


def test_an_account_without_a_shell_gets_one() -> None:
    account = pwd.struct_passwd(("you", "x", 1000, 1000, "", "/home/you", ""))
    assert script.variables(account, "")["SHELL"] == "/bin/sh"


# -- the launcher's text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("carried", [launcher, end_warning, sampler], ids=lambda module: str(module.__name__))
def test_what_the_script_carries_runs_on_python_3_6(carried: ModuleType) -> None:
    assert carried.__file__
    done = subprocess.run(
        [str(BIN / "vermin"), "-t=3.6-", "--violations", "--no-tips", carried.__file__],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_options_in_the_prologue_are_read_by_sbatch(variant: Callable[..., Site], target: Target) -> None:
    # sbatch stops reading at the first line that is neither empty nor a comment.
    text = built(variant(prologue="#SBATCH --qos=short\nmodule load apptainer\n"), target)
    lines = text.splitlines()
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines.index("#SBATCH --qos=short") < first_command < lines.index("module load apptainer")


@pytest.mark.parametrize(("login", "first"), [(False, "#!/bin/bash"), (True, "#!/bin/bash -l")])
def test_a_site_may_want_what_a_login_defines(
    variant: Callable[..., Site], target: Target, login: bool, first: str
) -> None:
    made = variant(login_shell=login)
    assert built(made, target).splitlines()[0] == first


@pytest.mark.parametrize(
    ("own", "chosen", "expected"),
    [
        ("", "", None),
        ("2TB", "", "2TB"),
        ("", "gpu&hbm80g", "gpu&hbm80g"),
        ("2TB", "bigmem", "2TB&bigmem"),
        # sbatch(1): & and | have the same rank, from left to right.
        ("2TB", "a|b", "2TB&(a|b)"),
        ("[rack1|rack2]", "bigmem", "[rack1|rack2]&bigmem"),
    ],
)
def test_a_constraint_comes_together_with_the_partition_s(
    variant: Callable[..., Site], target: Target, own: str, chosen: str, expected: str | None
) -> None:
    site = variant(partitions={"core": {"constraint": own}}, constraints={chosen: {}} if chosen else {})
    options = script.sbatch_options(site, from_options({"constraint": chosen}, site), target)
    said = [option for option in options if option.startswith("--constraint")]
    assert said == ([f"--constraint={expected}"] if expected else [])
