"""Take out of a text what nobody who helps needs: secrets, and other people's user names. Pure.

Rather too much than too little: a word that follows ``token=`` goes, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection

REMOVED = "[removed]"

# What the name of a secret ends in; ``max_tokens`` and ``PWD`` are none.
_NAMES = (
    r"(?:token|secret|passw(?:or)?d|passphrase|passwort|credentials?|_pwd|signature"
    r"|(?:api|access|secret|private|crypt|encryption|signing|auth|ssh)[_-]?key(?:[_-]?id)?)"
)
# A value in quotes with what is in them, else a word; not what has been removed already.
_VALUE = r"""(?!\[removed\])(?:"(?:\\.|[^"\\\n])+"?|'(?:\\.|[^'\\\n])+'?|[^\s"'&,;)\]}]+)"""

# Each with what stays of it. Those that take a whole block or line come first.
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), kept)
    for pattern, kept in (
        # A key whose begin or end the end of a log has not is still one.
        (r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[^-]{0,20}-----[^\x00]*?(?:-----END [^-\n]{0,60}-----|\Z)", REMOVED),
        (r"\A(?:[A-Za-z0-9+/=]{1,128}\n){1,400}-----END [A-Z0-9 ]{0,40}PRIVATE KEY[^-\n]{0,20}-----", REMOVED),
        (r"(?i)(\b(?:proxy-)?authorization\b[\"']?\s*[:=]\s*[\"']?)[^\"'\r\n]+", rf"\1{REMOVED}"),
        (r"(?i)(\b(?:set-)?cookies?\b[\"']?\s*[:=]\s*[\"']?)[^\"'\r\n]+", rf"\1{REMOVED}"),
        # env(1) quotes nothing: the value is the rest of the line.
        (rf"^((?:export\s+|declare -x )?[A-Z0-9_]{{0,100}}{_NAMES.upper()}=)(?![\"'\s])[^&\r\n]+", rf"\1{REMOVED}"),
        (rf"(?i)({_NAMES}[\"']?\s{{0,8}}(?:=>|:=|[=:])\s{{0,8}}){_VALUE}", rf"\1{REMOVED}"),
        (rf"(?i)((?<!\S)--?[a-z-]{{0,40}}{_NAMES}\s{{1,8}}(?!-)){_VALUE}", rf"\1{REMOVED}"),
        (r"((?<!\S)(?:-u|--user)\s{1,8}(?!\d+:\d+(?:\s|$)))[^\s:]{1,200}:\S+", rf"\1{REMOVED}"),
        # A port is no password, and the user of ssh:// no secret.
        (r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s/:@]{0,500}:[^\s/]{1,500}@", rf"\1{REMOVED}@"),
        (r"(\bhttps?://)[^\s/:@]{12,500}@", rf"\1{REMOVED}@"),
        (r"(?i)([?&](?:code|state|sig|key|ticket|password|x-amz-[a-z-]{1,30})=)[^\s&\"'#]+", rf"\1{REMOVED}"),
        # Cookies of JupyterHub's and of its servers.
        (r"(\b(?:jupyterhub-[\w-]{1,60}|username-[\w-]{1,60}|_xsrf|session-?id)=)[^\s;,\"']+", rf"\1{REMOVED}"),
        (r"(?i)(\bbearer\s{1,8})[\w.~+/=-]{8,}", rf"\1{REMOVED}"),
        (r"(\bMUNGE:)[A-Za-z0-9+/=]{8,}:?", rf"\1{REMOVED}"),
        # By their shape alone: those of JupyterHub's API (32 hexadecimal digits), ours and many others' (32 bytes in
        # Base64 for addresses), JSON Web Tokens, those of well-known services.
        (r"(?<![\w.:-])[0-9a-f]{32}(?![\w-])", REMOVED),
        (
            r"(?<![\w./+-])(?=[\w-]{0,42}[0-9])(?=[\w-]{0,42}[a-z])(?=[\w-]{0,42}[A-Z])[\w-]{43}(?![\w./+-])",
            REMOVED,
        ),
        (r"\beyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*", REMOVED),
        (r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abeoprs]-|npm_|pypi-)[\w-]{16,}", REMOVED),
        (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", REMOVED),
        (r"\bAIza[\w-]{35}", REMOVED),
    )
)

# They are on every machine, and nobody's.
_SYSTEM = frozenset({"root", "nobody", "slurm", "munge", "daemon"})
_USER = r"[A-Za-z_][\w.@+-]{0,63}\$?"
# Heads of the columns that say who it is, and which job or process, in the tables of squeue, sacct, ps and top.
_WHO = frozenset({"USER", "USERNAME", "OWNER"})
_WHICH = frozenset({"JOBID", "JOBIDRAW", "PID"})
_WIDEST = 2000  # characters of a row
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def redacted(text: str, own: Collection[str], home: str = "") -> str:
    """Return *text* without secrets and without other people's user names.

    *own* are the names of the session's owner; *home* is their home directory, whose parent holds other people's.
    """
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    for pattern, kept in _SECRETS:
        text = pattern.sub(kept, text)
    mine = _SYSTEM | set(own)

    def name(match: re.Match[str]) -> str:
        start, end = (at - match.start() for at in match.span("name"))
        return match[0] if match["name"] in mine else match[0][:start] + REMOVED + match[0][end:]

    for pattern in _people(home):
        text = pattern.sub(name, text)
    return _tables(text, mine)


def _people(home: str) -> list[re.Pattern[str]]:
    """Return where user names stand, apart from tables; each has a group ``name``."""
    parent = home.rstrip("/").rpartition("/")[0]
    homes = "|".join(dict.fromkeys(re.escape(place) for place in (parent, "/home", "/Users") if place))
    user = f"(?P<name>{_USER})"
    return [
        re.compile(pattern, re.MULTILINE)
        for pattern in (
            rf"(?<![\w.-])(?:{homes})/{user}(?<![.])",
            rf"(?<!/run)/user/{user}(?=/|\s|$|[\"'?])",  # a server's address
            rf"(?<![\w/~])~{user}(?=/|\s|$)",
            rf"\b(?:(?:User|Group)Id|User(?:Name)?|USER(?:NAME)?|LOGNAME|[Oo]wner)={user}",
            rf"[=,]\d{{1,10}}\({user}\)",  # id's
            rf"\bCANCELLED (?:by |AT \S+ BY ){user}",
            rf"^[-dlcbps][-rwxsStT]{{9}}[.+@]?\s+\d+\s+{user}(?=\s)",
        )
    ]


def _tables(text: str, mine: Collection[str]) -> str:
    """Take people out of tables with a head: of each row that has a number where the head says which job it is."""
    lines, columns = [], None
    for line in text.split("\n"):
        pattern = r"(?<![^|])[^|]*" if "|" in line else r"\S+"
        cells = list(re.finditer(pattern, line)) if len(line) < _WIDEST else []
        words = [cell[0].strip() for cell in cells]
        heads = [word.upper() for word in words]
        who, which = (next((at for at, head in enumerate(heads) if head in known), -1) for known in (_WHO, _WHICH))
        if who >= 0 and which >= 0:
            columns = who, which
        elif columns and len(words) > max(columns) and words[columns[1]][:1].isdigit():
            name = words[columns[0]]
            if name and name not in mine and not name.isdigit():
                start = line.index(name, cells[columns[0]].start())
                line = line[:start] + REMOVED + line[start + len(name) :]
        else:
            columns = None
        lines.append(line)
    return "\n".join(lines)
