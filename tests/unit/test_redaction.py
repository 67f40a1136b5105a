"""What goes from a text that is shown to people who help, and what stays in it."""

from __future__ import annotations

import secrets
import time
import uuid

import pytest

from snowyspawner.session.record import new_job
from snowyspawner.session.redaction import REMOVED, redacted

OWN = {"alice", "alice.smith"}
HOME = "/domus/h1/alice"
# What each of the lines below has in it.
S = "q7WfZkX2-Lm0"
HEX = "0123456789abcdef0123456789abcdef"

#: What it was, and what becomes of it; None: S and nothing else is replaced.
SECRETS: dict[str, tuple[str, str | None]] = {
    "environment of a server": (f"JUPYTERHUB_API_TOKEN={S}", None),
    "exported": (f"export WANDB_API_KEY={S}", None),
    "declared": (f'declare -x HF_TOKEN="{S}"', f"declare -x HF_TOKEN={REMOVED}"),
    "ours": (f"SNOWYSPAWNER_SECRET={S}", None),
    "with spaces, as env prints it": (f"DB_PASSWORD={S} and more of it", f"DB_PASSWORD={REMOVED}"),
    "in quotes": (f"DB_PASSWORD='{S} and more'; run", f"DB_PASSWORD={REMOVED}; run"),
    "AWS": (f"AWS_SECRET_ACCESS_KEY={S}", None),
    "the hub's key": (f"JUPYTERHUB_CRYPT_KEY={S}", None),
    "MySQL": (f"MYSQL_PWD={S}", None),
    "lower case": (f"db_password={S}", None),
    "in an address": (f"GET /lab?token={S}&x=1 200", f"GET /lab?token={REMOVED}&x=1 200"),
    "OAuth": (f"GET /callback?code={S}&state=abc", f"GET /callback?code={REMOVED}&state={REMOVED}"),
    "JSON": (f'{{"token": "{S}", "n": 1}}', f'{{"token": {REMOVED}, "n": 1}}'),
    "a dict": (f"{{'api_token': '{S}', 'n': 1}}", f"{{'api_token': {REMOVED}, 'n': 1}}"),
    "YAML": (f"  password: {S}", None),
    "a trait": (f"c.ServerApp.token = '{S}'", f"c.ServerApp.token = {REMOVED}"),
    "an option": (f"jupyter lab --ServerApp.token={S}", None),
    "an option and its word": (f"wandb login --token {S} --relogin", f"wandb login --token {REMOVED} --relogin"),
    "curl's user": (f"curl -u alice:{S} https://example.org", f"curl -u {REMOVED} https://example.org"),
    "a header": (f"Authorization: token {S}", f"Authorization: {REMOVED}"),
    "a header in a command": (
        f'curl -H "Authorization: Bearer {S}" https://x.org',
        f'curl -H "Authorization: {REMOVED}" https://x.org',
    ),
    "a header in a dict": (
        f"{{'Authorization': 'token {S}', 'Accept': '*/*'}}",
        f"{{'Authorization': '{REMOVED}', 'Accept': '*/*'}}",
    ),
    "bearer": (f"sent Bearer {S} to it", f"sent Bearer {REMOVED} to it"),
    "a cookie": (f"Cookie: jupyterhub-session-id={S}; _xsrf=2|ab", f"Cookie: {REMOVED}"),
    "a cookie that is set": (f"Set-Cookie: a={S}; Path=/", f"Set-Cookie: {REMOVED}"),
    "a cookie alone": (f"got jupyterhub-session-id={S} back", f"got jupyterhub-session-id={REMOVED} back"),
    "XSRF": (f"_xsrf={S}", None),
    "an address with a password": (
        f"fetching https://bob:{S}@example.org/x",
        "fetching https://[removed]@example.org/x",
    ),
    "one with @ in it": (f"https://bob:p@{S}@example.org/x", f"https://{REMOVED}@example.org/x"),
    "a database": (f"postgresql://hub:{S}@db/hub", f"postgresql://{REMOVED}@db/hub"),
    "a password alone": (f"redis://:{S}@cache:6379/0", f"redis://{REMOVED}@cache:6379/0"),
    "a token as a user": (f"https://{S}@github.com/a/b.git", f"https://{REMOVED}@github.com/a/b.git"),
    "a token of JupyterHub's": (f"it is {HEX}, keep it", f"it is {REMOVED}, keep it"),
    "GitHub": ("remote: ghp_abcdefghijklmnopqrst0123", f"remote: {REMOVED}"),
    "GitLab": ("glpat-abcdefghijklmnopqrst", REMOVED),
    "Hugging Face": ("login hf_abcdefghijklmnopqrst", f"login {REMOVED}"),
    "OpenAI": ("key sk-proj-abcdefghijklmnopqrst", f"key {REMOVED}"),
    "AWS's id": ("id AKIAIOSFODNN7EXAMPLE", f"id {REMOVED}"),
    "a JSON Web Token": ("eyJhbGciOi.eyJzdWIiOi.SflKxwRJSM", REMOVED),
    "MUNGE": ("MUNGE:AwQFAAC3fVlx1:", f"MUNGE:{REMOVED}"),
    "a key": (
        f"a\n-----BEGIN OPENSSH PRIVATE KEY-----\n{S}\n-----END OPENSSH PRIVATE KEY-----\nb",
        f"a\n{REMOVED}\nb",
    ),
    "a key whose end is missing": (f"a\n-----BEGIN PRIVATE KEY-----\n{S}\nmore", f"a\n{REMOVED}"),
    "a key whose begin is missing": (
        "AAAAB3NzaC1yc2EAAAADAQAB\nAAAAB3NzaC1yc2EAAAADAQAB\n-----END RSA PRIVATE KEY-----\nb",
        f"{REMOVED}\nb",
    ),
}

PEOPLE: dict[str, tuple[str, str]] = {
    "a home directory": ("cannot read /home/bob/x: no", f"cannot read /home/{REMOVED}/x: no"),
    "beside the person's own": ("/domus/h1/bob-2/.bashrc", f"/domus/h1/{REMOVED}/.bashrc"),
    "called like its place": ("/home/home/x", f"/home/{REMOVED}/x"),
    "of a Mac": ("/Users/bob/x", f"/Users/{REMOVED}/x"),
    "with a tilde": ("ls ~bob/data", f"ls ~{REMOVED}/data"),
    "a server": ("GET /user/bob/lab 200", f"GET /user/{REMOVED}/lab 200"),
    "scontrol": ("UserId=bob(1002) GroupId=users(100)", f"UserId={REMOVED}(1002) GroupId={REMOVED}(100)"),
    "id": ("uid=1002(bob) groups=1(root),7(bob)", f"uid=1002({REMOVED}) groups=1(root),7({REMOVED})"),
    "Slurm": (
        "*** JOB 7 ON s1 CANCELLED AT 2026-11-28T09:00:00 BY bob ***",
        f"*** JOB 7 ON s1 CANCELLED AT 2026-11-28T09:00:00 BY {REMOVED} ***",
    ),
    "sacct's state": ("CANCELLED by bob", f"CANCELLED by {REMOVED}"),
    "ls": ("-rw-r--r-- 1 bob users 12 Nov 28 a.txt", f"-rw-r--r-- 1 {REMOVED} users 12 Nov 28 a.txt"),
    "squeue": (
        "  JOBID PARTITION NAME USER ST TIME NODES NODELIST(REASON)\n"
        "     17 core x bob PD 0:00 1 (Priority)\n"
        "  18_[1] core y alice R 0:10 1 s1\n"
        "after it bob is a word",
        "  JOBID PARTITION NAME USER ST TIME NODES NODELIST(REASON)\n"
        f"     17 core x {REMOVED} PD 0:00 1 (Priority)\n"
        "  18_[1] core y alice R 0:10 1 s1\n"
        "after it bob is a word",
    ),
    "sacct": (
        "JobID|User|State|\n17|bob|FAILED|\n17.batch||FAILED|\n18|alice|RUNNING|",
        f"JobID|User|State|\n17|{REMOVED}|FAILED|\n17.batch||FAILED|\n18|alice|RUNNING|",
    ),
    "ps": (
        "USER PID %CPU COMMAND\nroot 1 0.0 init\nbob 4711 99.0 python\nalice 4712 1.0 python",
        f"USER PID %CPU COMMAND\nroot 1 0.0 init\n{REMOVED} 4711 99.0 python\nalice 4712 1.0 python",
    ),
}

ORDINARY = [
    "[I 2026-11-28 09:32:10.123 SingleUserLabApp] Serving notebooks from local directory: /home/alice",
    "Jupyter Server 2.14.2 is running at: http://s12:41873/user/alice/lab",
    "[I] 302 GET /user/alice.smith/ -> /user/alice.smith/lab? (@130.238.1.2) 0.51ms",
    "Kernel started: 5f0d1c9e-3b0a-4b52-9c0e-0d6a6b7d3a11",
    "epoch 3/10 loss=0.1234 tokens=128000 max_tokens=512 num_tokens: 7",
    "TOKENIZERS_PARALLELISM=false",
    "PWD=/home/alice/work",
    "OLDPWD=/domus/h1/alice",
    "TMPDIR=/scratch/4711 USER=alice",
    "    time.sleep(600); seeds = range(1000)",
    "PRIMARY_KEY=id sort_key=name",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "HEAD is now at da39a3ee5e6b4b0d3255bfef95601890afd80709 Fix a typo",
    "fatal: password authentication failed for this host",
    "KeyError: 'token'",
    "TypeError: login() got an unexpected keyword argument 'password'",
    "Enter your password: ",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=4711.batch. Some of the step tasks have been OOM Killed.",
    "#SBATCH --gres=gpu:t4:1",
    "#SBATCH --output=/home/alice/.snowyspawner-%j.log",
    "docker run --user 1000:1000 -u 0:0 image",
    "Cloning ssh://git@github.com/org/labs.git, git@github.com:org/labs.git",
    "http://127.0.0.1:8888/files/me@example.org",
    "/proj/g2021027/nobackup/data /run/user/1000/bus /user-guide/x",
    "drwxr-xr-x 2 root root 4096 Nov 28 09:00 /opt",
    "GPU 0: Tesla T4 (UUID: GPU-2f1c9a3b-77de-4c20-8a01-9b1e5f3c7d20)",
    "Write to support@uppmax.uu.se about cookies.",
    "conda 24.1.2 py311h06a4308_0 tensorflow-2.15.0-gpu_py311h1a2b3c4d_0 libcublas-12.3.4.1-0",
    "/opt/conda/envs/tf-gpu/lib/python3.11/site-packages/tensorflow_estimator/python/estimator/api/_v1/x.py",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_goes(name: str) -> None:
    line, expected = SECRETS[name]
    assert redacted(line, OWN, HOME) == (expected or line.replace(S, REMOVED))
    assert S not in redacted(f"before {line}\n{line} after", OWN, HOME)


@pytest.mark.parametrize("name", PEOPLE)
def test_another_person_s_name_goes(name: str) -> None:
    text, expected = PEOPLE[name]
    assert redacted(text, OWN, HOME) == expected


@pytest.mark.parametrize("line", ORDINARY)
def test_an_ordinary_line_stays(line: str) -> None:
    assert redacted(line, OWN, HOME) == line


def test_there_are_as_many_as_the_documentation_says() -> None:
    assert len(SECRETS) + len(PEOPLE) >= 20
    assert len(ORDINARY) >= 15


def test_what_is_random_goes_by_its_shape() -> None:
    """Those that are really made: the job's one-time secret, a token of JupyterHub's, cookies of 32 bytes."""
    for _ in range(50):
        for made in (new_job("lab", {})[1], uuid.uuid4().hex, secrets.token_hex(16)):
            # One in 2,000 of the first has no digit: by its shape alone it is a word.
            if any(map(str.isdigit, made)):
                assert made not in redacted(f"claim: {made} refused", OWN, HOME)


def test_controls_are_not_passed_on() -> None:
    assert redacted("a\x1b[31mb\x00\u202ec\td\r\ne", OWN) == "a\ufffd[31mb\ufffd\ufffdc\td\ne"


@pytest.mark.parametrize(
    "hostile",
    [
        "token" * 12_000,
        "token=" * 10_000,
        "A" * 60_000,
        "-----BEGIN PRIVATE KEY-----" * 2_000,
        ("A" * 64 + "\n") * 900,
        "http://" * 8_000,
        "https://" + "a" * 60_000,
        "a_" * 30_000,
        " " * 60_000,
        "|" * 60_000,
        "JOBID USER\n" * 5_000,
        "--" + "a-" * 30_000,
        "/home/" * 10_000,
        "'" * 60_000,
        "eyJaaaaaa." * 6_000,
        "token='" * 9_000,
        'secret="\\\\' * 9_000,
    ],
    ids=range(17),
)
def test_a_hostile_log_takes_no_long_time(hostile: str) -> None:
    began = time.process_time()
    redacted(hostile, OWN, HOME)
    assert time.process_time() - began < 1
