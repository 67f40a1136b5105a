"""What the launcher does beside serving: it tells JupyterLab when the session ends, and removes old logs.

The job script carries this file's text as it does launcher.py's, on file descriptor 5; the extension for JupyterLab
(share/labextension/) comes with the claim. Standard library only, Python 3.6 or newer. Nothing imports it.
"""

import contextlib
import json
import os
import re
import select
import signal
import stat
import subprocess
import threading
import time

# A prebuilt extension, as JupyterLab 3 and 4 look for them in labextensions/ of each directory of JUPYTER_PATH.
PACKAGE = {
    "name": "snowyspawner",
    "version": "1.0.0",
    "description": "Shows what this session uses, and warns before its job ends.",
    "jupyterlab": {"_build": {"load": "static/session.js", "extension": "./extension"}},
}

LOOK_AHEAD = 20  # seconds: the end is asked for before JupyterLab warns, so that it knows of one that was moved
EARLY = 90  # seconds: sbatch(1) allows for 60 of them between Slurm's signal and when that is due
LAST_WARNING = 120  # seconds before the end; the same in session.js


def ask_slurm(job_id):
    """Return when Slurm is going to end the job, in epoch seconds; 0 when it does not say."""
    env = {name: value for name, value in os.environ.items() if not re.match("SQUEUE_|SLURM_CLUSTERS$", name)}
    env.update(SLURM_TIME_FORMAT="%s", LC_ALL="C")
    command = ["squeue", "--noheader", "--jobs=" + job_id, "--format=%e"]
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30
        )
    except (OSError, subprocess.SubprocessError):  # a node may be without Slurm's commands
        return 0
    text = done.stdout.decode(errors="replace").strip()
    return int(text) if re.fullmatch("[0-9]{1,11}", text) else 0


def in_words(seconds):
    """Say a time that is left, in minutes: nobody's work depends on less."""
    minutes = max(1, round(seconds / 60))
    return "%d minute%s" % (minutes, "" if minutes == 1 else "s")


class Clock(object):
    """When the session ends, as far as is known; and the warning before that, in the log and in JupyterLab.

    Slurm is asked at the start (unless it has said so by itself, as it does from 23.02), when it sends its warning,
    SIGUSR1, before JupyterLab gives one, and at the end. SIGUSR1 sent by hand warns, too; it never ends anything.
    """

    def __init__(self, say):
        self.say = say
        self.end = self.warn = self.notice = self.stage = 0
        self.told = -EARLY
        self.page = ""  # session.json
        self.usage = None
        self.writing = threading.Lock()
        # Locks are not for signal handlers; a byte in a pipe wakes the thread.
        self.called, self.call = os.pipe()
        os.set_blocking(self.call, False)
        signal.signal(signal.SIGUSR1, self.on_signal)

    def on_signal(self, number, frame):
        """Wake the thread."""
        with contextlib.suppress(OSError):  # full: it has much to do already
            os.write(self.call, b"!")

    def start(self, limit, warn):
        """Begin to count: *limit* is the job's, *warn* when to warn before its end (0: never), both in seconds."""
        said = os.environ.get("SLURM_JOB_END_TIME", "")
        said = int(said) if re.fullmatch("[0-9]{1,11}", said) else 0
        self.end = said or int(time.time()) + limit
        self.warn = warn
        threading.Thread(target=self.run, args=(not said,), daemon=True).start()

    def run(self, ask):
        """Warn when it is time; never returns."""
        if ask:
            self.ask()
        while True:
            due = self.due()
            wait = None if due is None else max(0, due - time.time())
            signalled = bool(select.select([self.called], [], [], wait)[0]) and bool(os.read(self.called, 4096))
            self.look(signalled)

    def due(self):
        """Return when to look the next time, in epoch seconds; None: when a signal comes."""
        # The last one is for an end that was put off in the last moment.
        before = [self.warn + LOOK_AHEAD, min(LAST_WARNING, self.warn // 2) + LOOK_AHEAD, -5]
        return self.end - before[self.stage] if self.warn and self.stage < len(before) else None

    def look(self, signalled):
        """Ask Slurm, and warn if it is time to."""
        self.ask()
        now = time.time()
        left, near = self.end - now, self.end - now <= self.warn + EARLY
        if signalled:
            self.notice = int(now)
        # Slurm's signal and our own look may fall close together.
        if (signalled and now - self.told >= EARLY) or (near and self.stage == 0):
            self.told = now
            hour = time.strftime("%H:%M", time.localtime(self.end))
            self.say("this session ends at %s, in %s: save your work" % (hour, in_words(left)))
        if not near:
            self.stage = 0  # an end that was put off is warned of again
        elif not signalled or self.stage == 0:
            self.stage += 1
        self.publish()

    def ask(self):
        """Learn the end from Slurm, which may have moved it since."""
        self.end = ask_slurm(os.environ.get("SLURM_JOB_ID", "")) or self.end
        self.publish()

    def publish(self):
        """Write down for JupyterLab what is known."""
        with self.writing, contextlib.suppress(OSError):
            if self.page:
                with open(self.page + ".part", "w") as out:
                    facts = {"end": self.end, "warn": self.warn, "notice": self.notice, "usage": self.usage}
                    json.dump(facts, out)
                os.rename(self.page + ".part", self.page)

    def use(self, usage):
        """Write down what the session uses, too."""
        self.usage = usage
        self.publish()

    def close(self):
        """Write nothing more: the directory is about to go."""
        with self.writing:
            self.page = ""

    def add_to_lab(self, directory, script):
        """Put the extension, whose JavaScript is *script*, below *directory*; return the entry for JUPYTER_PATH.

        Without a script, or if the disk is full, the entry is empty: JupyterLab starts without the extension.
        """
        if not script:
            return ""
        root = os.path.join(directory, "share")
        extension = os.path.join(root, "labextensions", PACKAGE["name"])
        try:
            os.makedirs(os.path.join(extension, "static"))
            with open(os.path.join(extension, "package.json"), "w") as out:
                json.dump(PACKAGE, out)
            with open(os.path.join(extension, PACKAGE["jupyterlab"]["_build"]["load"]), "w", encoding="utf-8") as out:
                out.write(script)
        except OSError as error:
            self.say("nothing of this session is shown in JupyterLab: %s" % error)
            return ""
        self.page = os.path.join(extension, "static", "session.json")
        self.publish()
        return root


def prune(home, keep, job_id, say):
    """Remove the logs of earlier jobs below *home* that are too many or too old.

    *keep* has their "directory", the "pattern" of their names (a regular expression with the job's number as its
    group "job") and the limits, "days" and "number"; 0 is none. Only plain files of this account's are removed, and
    never this job's own. Raises nothing.
    """
    own = os.fstat(2)
    pattern, logs = re.compile(keep["pattern"]), []
    try:
        with os.scandir(os.path.join(home, keep["directory"])) as entries:
            for entry in entries:
                match = pattern.fullmatch(entry.name)
                if not match or match.group("job") == job_id:
                    continue
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not os.path.samestat(found, own):
                    logs.append((found.st_mtime, entry.path))
        logs.sort(reverse=True)
        # This job's own is the newest.
        many = keep["number"] - 1 if keep["number"] else len(logs)
        old = time.time() - keep["days"] * 86400 if keep["days"] else 0
        unwanted = [path for number, (written, path) in enumerate(logs) if number >= many or written < old]
        for path in unwanted:
            with contextlib.suppress(FileNotFoundError):  # another job of this person's does the same
                os.unlink(path)
        if unwanted:
            say("removed %d old logs" % len(unwanted))
    except OSError as error:
        say("old logs could not be removed: %s" % error)
