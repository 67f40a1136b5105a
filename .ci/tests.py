"""Run pytest, then judge coverage and what was skipped, and end with pytest's own closing line.

python .ci/tests.py [--workers N] [--coverage] [--no-skips] PYTEST-ARGUMENTS…
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LOWEST_COVERAGE = 90  # percent
#: Such as ``==== 1 failed, 3 passed in 2.01s ====``, without the signs with -q. Anything may follow it.
CLOSING = re.compile(r"=* ?(\d+ \w+(, )?)+ in [\d.]+s|=+ no tests ran in ")
# A test waits half of its time: for Slurm, for a server, for a page.
WORKERS = 2 * len(os.sched_getaffinity(0))
#: Tests that .ci/run may find skipped, as FILE-WITH-DOTS.NAME. Each needs a reason here.
MAY_BE_SKIPPED: frozenset[str] = frozenset()


def run_pytest(argv: list[str]) -> tuple[int, str]:
    """Run pytest, show its output as it comes, and return its exit code and closing line."""
    closing = ""
    with subprocess.Popen(
        argv, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101 for the type checker
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            closing = line.rstrip() if CLOSING.match(line) else closing
    return process.returncode, closing


def skipped(report: Path) -> list[str]:
    """Return the tests that were skipped and must not be."""
    cases = ElementTree.parse(report).iter("testcase")  # noqa: S314 our own file
    names = [f"{case.get('classname')}.{case.get('name')}" for case in cases if case.find("skipped") is not None]
    return [name for name in names if name not in MAY_BE_SKIPPED]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. What it does not know is pytest's."""
    made = argparse.ArgumentParser(
        prog=".ci/tests.py", usage="%(prog)s [options] PYTEST-ARGUMENTS…", allow_abbrev=False
    )
    made.add_argument("--workers", type=int, default=WORKERS, help="tests side by side, each on a cluster of its own")
    made.add_argument("--coverage", action="store_true", help=f"fail below {LOWEST_COVERAGE} %%")
    made.add_argument("--no-skips", action="store_true", help="fail if a test is skipped")
    return made


def main(words: list[str]) -> int:
    """Run what was asked for; return the exit code."""
    options, rest = parser().parse_known_args(words)
    coverage, no_skips = options.coverage, options.no_skips
    rest = [f"--numprocesses={options.workers}", *rest]
    python = [sys.executable, "-m"]
    problems = []
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        if coverage:
            subprocess.run([*python, "coverage", "erase"], cwd=CHECKOUT, check=False)
        runner = [*python, "coverage", "run", "-m", "pytest"] if coverage else [*python, "pytest"]
        code, closing = run_pytest([*runner, f"--junitxml={report}", *rest])
        if no_skips and report.exists() and (names := skipped(report)):
            problems += [f"skipped, and nothing may be: {name}" for name in names]
    if coverage:
        subprocess.run([*python, "coverage", "combine", "--quiet"], cwd=CHECKOUT, check=False)
        judge = [*python, "coverage", "report", "--skip-covered", f"--fail-under={LOWEST_COVERAGE}"]
        if subprocess.run(judge, cwd=CHECKOUT, check=False).returncode:
            problems.append(f"coverage is below {LOWEST_COVERAGE} %")
    sys.stdout.writelines(f"FAILED: {problem}\n" for problem in problems)
    sys.stdout.write(f"{closing}\n")
    sys.stdout.flush()
    return code or bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
