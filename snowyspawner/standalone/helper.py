#!/usr/bin/python3 -IS
"""Reads, as one person, what the hub has to show to that person.

    snowyspawner-helper log JOBID     print the end of this job's log, at most 64 KiB, from a line's beginning
    snowyspawner-helper course KEY    print a course file, at most 64 KiB; with a project, where its path has {account}
    snowyspawner-helper image KEY     print readable, missing, forbidden or unknown
    snowyspawner-helper own KIND PATH   say whether a container or an environment of one's own can be used: a word of
                                        choice/own.py's, and on a second line what goes with it

It takes job numbers, keys and names of projects. Paths are in the table below, which `snowyspawner helper` fills
in and which is good for that Site as it was then; one's own software alone is named by its path, below the places that
the table has for it. It runs as the person (sudo -u, setpriv), and so reads nothing that the person could not read, and
starts nothing but the person's own container, as the person. Standard library only, Python 3.6 or newer; nothing
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
import subprocess
import sys

USAGE, MISSING, FORBIDDEN, REFUSED, FAILED = range(10, 15)

LIMIT = 64 * 1024  # bytes
SECONDS = 8  # for all of it: who waits in vain for a disk must not be left behind
CONTAINER_SECONDS = 6  # for a look into a container

# Filled in. The Site's: the log's name below the home, with Slurm's %j and %%; paths by key; places of what is one's
# own. And where container runtimes may be on this host.
TABLE = {"log": "", "courses": {}, "images": {}, "own": {}, "runtimes": []}  # see `snowyspawner helper`

# The name of a project in a path: no slash, and no dot in front.
ACCOUNT = r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,63}"
SERVER = "jupyterhub-singleuser"


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


def home_directory():
    """Return this person's. Raises Failure."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise Failure(FAILED, "Nobody has the user id %d." % os.getuid())


def log(job_id):
    """Return the end of a job's log. Raises Failure."""
    if not re.match(r"[0-9]{1,18}\Z", job_id):
        raise Failure(USAGE, "A job's number has 1 to 18 digits.")
    home = home_directory()
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
        # It stays within its place in the path.
        if not re.match(ACCOUNT + r"\Z", account):
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


def own(kind, path):
    """Return what is to be said of a person's own container or environment. Raises Failure for what is no question."""
    places, home = look_up("own", kind), home_directory().rstrip("/")
    if not re.match(r"(~|(/[A-Za-z0-9_.@%+=-]+)+)(/[A-Za-z0-9_.@%+=-]+)*\Z", path) or ".." in path.split("/"):
        raise Failure(USAGE, "That is not a path, from / or ~.")
    path = home + path[1:] if path.startswith("~") else path
    try:
        real = os.path.realpath(path)
        if not is_below(path, real, places, home):
            return answer("outside", real)
        os.stat(path)
        return (own_container if kind == "own_container" else own_environment)(path, home)
    except Failure:  # a socket, a device
        return answer("no_container")
    except OSError as error:
        return answer({MISSING: "missing", FORBIDDEN: "forbidden"}.get(failure_of(error, path).code, "unknown"))


def answer(word, detail=""):
    """Write an answer."""
    return ("%s\n%s\n" % (word, detail)).encode(errors="replace")


def is_below(path, real, places, home):
    """Tell whether *path* and what it leads to, *real*, are in *places*, whatever links lead to these themselves."""
    directories = []
    for place in places:
        place = home + place[1:] if place.startswith("~") else place
        pattern = re.escape(place).replace(re.escape("{account}"), ACCOUNT) + "(?=/.)"
        directories += [found.group() for found in (re.match(pattern, path), re.match(pattern, real)) if found]
        directories += [] if "{account}" in place else [place]
    inside = [directory for directory in directories if path.startswith(directory + "/")]
    return bool(inside) and any(real.startswith(os.path.realpath(each).rstrip("/") + "/") for each in directories)


def own_environment(path, home):
    """Return what there is in the directory of an environment. Raises OSError."""
    if not os.path.isdir(path):
        return answer("no_environment")
    if not os.access(path, os.R_OK | os.X_OK):
        return answer("forbidden")
    # Where it was made in a container, its Python is a link that leads nowhere here.
    programs = os.path.join(path, "bin")
    if not any(os.path.lexists(os.path.join(programs, name)) for name in ("python", "python3")):
        return answer("no_environment")
    kind = "conda" if os.path.isdir(os.path.join(path, "conda-meta")) else "venv"
    server = os.path.join(programs, SERVER)
    if not os.path.isfile(server):
        return answer("no_server", kind)
    if not os.access(server, os.R_OK | os.X_OK):
        return answer("forbidden")
    fd, _ = open_file(server)
    first = re.match(rb"#! *(/[^\s\0]+)", read(fd, 4096))
    python = os.fsdecode(first.group(1)) if first else ""
    if os.path.basename(os.path.dirname(python)) == "bin" and re.match("python", os.path.basename(python)):
        made = os.path.dirname(os.path.dirname(python))
        if made not in (path, os.path.realpath(path)) and not os.path.lexists(python):
            return answer("moved", made)
    return answer("ready", kind)


def own_container(path, home):
    """Return what there is in a container, which its own runtime opens if this host has one. Raises OSError."""
    if os.path.isdir(path):
        if not os.access(path, os.R_OK | os.X_OK):
            return answer("forbidden")
        if not os.path.lexists(os.path.join(path, "bin", "sh")):
            return answer("no_container")
    else:
        fd, _ = open_file(path)
        # A SIF, what Singularity 2 made (a line for the shell may come first), a file system of ext3.
        start = read(fd, 2048)
        if b"SIF_MAGIC" not in start[:64] and b"hsqs" not in start[:64] and start[1080:1082] != b"\x53\xef":
            return answer("no_container")
    runtime = next((program for program in TABLE["runtimes"] if os.access(program, os.X_OK)), "")
    if not runtime:
        return answer("unknown")
    look = ["/bin/sh", "-c", 'command -v "$1" >/dev/null', "sh", SERVER]
    child = subprocess.Popen(
        ["/usr/bin/timeout", "-k", "1", str(CONTAINER_SECONDS), runtime, "-q", "exec", "--pwd", "/", path, *look],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said = child.stderr.read(8192)
    child.stderr.close()  # who still writes gets SIGPIPE
    code = child.wait()
    if code == 0:
        return answer("ready")
    lines = said.decode(errors="replace").strip().split("\n")
    if code in (1, 127) and not said.strip():
        return answer("no_server")
    if re.search("image format not recognized|SIF partition|corrupted|not a valid", lines[-1], re.I):
        return answer("broken", lines[-1])
    # What else went wrong may be this host's alone.
    return answer("unknown", lines[-1])


def look_up(table, key):
    """Return the path that *key* stands for. Raises Failure."""
    try:
        return TABLE[table][key]
    except KeyError:
        raise Failure(USAGE, "No such key in %s." % table)


VERBS = {"log": (log, 1, 1), "course": (course, 1, 2), "image": (image, 1, 1), "own": (own, 2, 2)}
USE = "snowyspawner-helper log JOBID | course KEY [ACCOUNT] | image KEY | own KIND PATH"


def main(words):
    """Do what *words* say; return the exit code."""
    signal.alarm(SECONDS)
    try:
        verb, least, most = VERBS.get(words[0] if words else "", (None, 0, 0))
        if not least <= len(words) - 1 <= most or verb is None:
            raise Failure(USAGE, "Usage: " + USE)
        data = verb(*words[1:])
    except Failure as failure:
        print(str(failure), file=sys.stderr)
        return failure.code
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
