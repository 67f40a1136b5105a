#!/usr/bin/python3 -IS
"""Reads, as one person, what the hub has to show to that person.

    snowyspawner-helper log JOBID     print the end of this job's log, at most 64 KiB, from a line's beginning
    snowyspawner-helper course KEY    print a course file, at most 64 KiB; with a project, where its path has {account}
    snowyspawner-helper image KEY     print readable, missing, forbidden or unknown

It takes job numbers, keys and names of projects, never a path: the paths are in the table below, which
`snowyspawner helper SITE` fills in and which is good for that Site as it was then. It runs as the person (sudo -u,
setpriv), and so reads nothing that the person could not read. Standard library only, Python 3.6 or newer; nothing
imports it.

Exit codes: 0 done; 10 usage, or a key that is not in the table; 11 there is no such file; 12 this person may not read
it; 13 it is not what it should be (no file, somebody else's, too large); 14 it could not be read for another reason.
Then a sentence is on standard error.
"""

import errno
import os
import pwd
import re
import signal
import stat
import sys

USAGE, MISSING, FORBIDDEN, REFUSED, FAILED = range(10, 15)

LIMIT = 64 * 1024  # bytes
SECONDS = 8  # for all of it: who waits in vain for a disk must not be left behind

# The Site's: the log's name below the home, with Slurm's %j and %%; paths by key.
TABLE = {"log": "", "courses": {}, "images": {}}  # filled in by `snowyspawner helper`


class Failure(Exception):
    """An exit code and a sentence."""

    def __init__(self, code, sentence):
        Exception.__init__(self, sentence)
        self.code = code


def failure_of(error, path):
    """Return the Failure that an OSError amounts to."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Failure(MISSING, "%s does not exist." % path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure(FORBIDDEN, "You may not read %s." % path)
    if error.errno == errno.ELOOP:
        return Failure(REFUSED, "%s is a symbolic link." % path)
    return Failure(FAILED, "%s cannot be read: %s." % (path, error.strerror))


def open_file(path, flags=0):
    """Open a regular file; return its descriptor and stat. Raises Failure, OSError. A FIFO does not keep it waiting."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | flags)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise Failure(REFUSED, "%s is not a file." % path)
    return fd, found


def read(fd, size):
    """Return *size* bytes, or less at the file's end."""
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            break
        data += part
    return data


def log(job_id):
    """Return the end of a job's log. Raises Failure."""
    if not re.match(r"[0-9]{1,18}\Z", job_id):
        raise Failure(USAGE, "A job's number has 1 to 18 digits.")
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise Failure(FAILED, "Nobody has the user id %d." % os.getuid())
    name = re.sub("%[%j]", lambda found: job_id if found.group() == "%j" else "%", TABLE["log"])
    path = os.path.join(home, name)
    try:
        fd, found = open_file(path, os.O_NOFOLLOW)
        # Slurm makes it theirs; anything else was put there for another purpose.
        if found.st_uid != os.getuid():
            raise Failure(REFUSED, "%s is somebody else's." % path)
        start = max(0, found.st_size - LIMIT)
        # The byte before tells whether what follows begins a line.
        os.lseek(fd, max(0, start - 1), os.SEEK_SET)
        data = read(fd, LIMIT + 1 if start else LIMIT)
    except OSError as error:
        raise failure_of(error, path)
    if start:
        # One line that is longer than all of it is shown cut.
        data = data[1 + data[:-1].find(b"\n") :] if b"\n" in data[:-1] else data[1:]
    return data


def course(key, account=""):
    """Return a course file; where its path has {account}, that of the project *account*. Raises Failure."""
    path = look_up("courses", key)
    if ("{account}" in path) != bool(account):
        raise Failure(USAGE, "A project is named where the path has one, and nowhere else.")
    if account:
        # No slash, and no dot in front: it stays within its place in the path.
        if not re.match(r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,63}\Z", account):
            raise Failure(USAGE, "That is not the name of a project.")
        path = path.replace("{account}", account)
    try:
        # The file itself is no link. What leads to it may be: a disk's place is often one.
        fd, _ = open_file(path, os.O_NOFOLLOW)
        data = read(fd, LIMIT + 1)
    except OSError as error:
        raise failure_of(error, path)
    if len(data) > LIMIT:
        raise Failure(REFUSED, "%s is longer than %d bytes." % (path, LIMIT))
    return data


def image(key):
    """Return whether an image (a file, or a directory) can be read. Raises Failure for an unknown key only."""
    path = look_up("images", key)
    try:
        # Opened, not asked for its mode: what counts is what the disk's server says.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(fd).st_mode) and not os.access(path, os.X_OK):
            return b"forbidden\n"
    except OSError as error:
        return {MISSING: b"missing\n", FORBIDDEN: b"forbidden\n"}.get(failure_of(error, path).code, b"unknown\n")
    return b"readable\n"


def look_up(table, key):
    """Return the path that *key* stands for. Raises Failure."""
    try:
        return TABLE[table][key]
    except KeyError:
        raise Failure(USAGE, "No such key in %s." % table)


VERBS = {"log": log, "course": course, "image": image}


def main(words):
    """Do what *words* say; return the exit code."""
    signal.alarm(SECONDS)
    try:
        if (words[:1] != ["course"] and len(words) != 2) or len(words) not in (2, 3) or words[0] not in VERBS:
            raise Failure(USAGE, "Usage: snowyspawner-helper log JOBID | course KEY [ACCOUNT] | image KEY")
        data = VERBS[words[0]](*words[1:])
    except Failure as failure:
        print(str(failure), file=sys.stderr)
        return failure.code
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
