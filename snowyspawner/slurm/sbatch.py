"""What sbatch says: a job's number, when it would start, and what leaves in doubt whether there is a job. Pure."""

from __future__ import annotations

import re

# "17" and "17;snowy" of --parsable; "Submitted batch job 17 on cluster snowy" where a wrapper of sbatch's dropped that.
_JOB_ID = re.compile(
    r"(?:sbatch: )?(?:(?P<words>Submitted batch job )|)(?P<id>0*[1-9]\d{0,17})"
    r"(?(words)(?: on cluster (?P<on>\S+?))?|(?:;(?P<cluster>[^\s;|]+))?)\.?"
)


def parse_job_id(output: str, said: str = "") -> tuple[str, str]:
    """Read ``sbatch --parsable``: *job id* and *cluster* (empty unless ``-M`` was given).

    *output* is its standard output, *said* its standard error. A site's own plugins and wrappers write to both, before
    the answer and after it. Raises `ValueError` when there is no number, or more than one that it could be.
    """
    for stream in (output, said):
        found = [match for line in stream.splitlines() if (match := _JOB_ID.fullmatch(line.strip()))]
        # What says more than a number goes before one that stands alone.
        plain = [match for match in found if match["words"] or match["cluster"]] or found
        answers = {match["id"].lstrip("0"): match["on"] or match["cluster"] or "" for match in plain}
        if len(answers) == 1:
            return answers.popitem()
        if answers:
            break
    raise ValueError(f"sbatch printed no job id: {(output + said)[:200]!r}")


# slurmctld may have the job, and its answer was lost; or sbatch printed a number, and a wrapper failed after it.
IN_DOUBT = re.compile(
    r"timed out on send/recv|Zero Bytes were transmitted|Message receive failure|Communication shutdown failure"
    rf"|^{_JOB_ID.pattern}$",
    re.MULTILINE,
)


def parse_would_start(output: str) -> int | None:
    """Read ``sbatch --test-only`` under ``SLURM_TIME_FORMAT=%s``: epoch seconds, None when there is no such time.

    ``sbatch: Job 77 to start at 1795408771 using 4 processors on nodes s3 in partition core`` on stderr.
    """
    match = re.search(r"\bJob \d+ to start at (\d{9,11})\b", output)
    return int(match[1]) if match else None
