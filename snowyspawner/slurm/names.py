"""What Slurm lets things be called: one pattern for each kind of name, for `re.fullmatch` with re.ASCII. Pure.

They keep a name in one word of an argv or of an ``#SBATCH`` line (no blanks, quotes, backslashes and ``#``, which
sbatch reads in its own way), and nothing more: safety comes from argv lists, and from no value in shell text.
Sources: Slurm's own code and manual pages, 20.02 to 25.05.
"""

from __future__ import annotations

#: A node: slurm.conf(5), NodeName, is what ``hostname -s`` prints on it, or any name where NodeHostname differs. In
#: Slurm's lists of nodes (src/common/hostlist.c) a name ends at a comma, a blank or a bracket.
NODE = r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?"

#: A cluster: slurm.conf(5), ClusterName; it becomes part of names of tables (as_mysql), in lower case.
CLUSTER = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"

#: A partition: slurm.conf(5), PartitionName. sbatch(1) takes several, parted by commas.
PARTITION = r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,63}"

#: A project: sacctmgr(1), account. It is kept in lower case; commas and blanks part several, quotes are stripped, and
#: ``+=`` and ``-=`` change lists (src/sacctmgr/common.c). Sites use ``@``, as in abc@v100.
ACCOUNT = r"[A-Za-z0-9_][A-Za-z0-9_.+@:/-]{0,63}"

#: The same where it becomes part of a path: no slash, and no dot in front.
ACCOUNT_IN_PATH = r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,63}"

#: A reservation: scontrol(1), ReservationName; commas part several.
RESERVATION = r"[A-Za-z0-9_][A-Za-z0-9_.+@:/-]{0,63}"

#: A feature of a node: slurm.conf(5), Feature.
_FEATURE = r"[A-Za-z0-9_][A-Za-z0-9_.+=/:-]*"

#: What --constraint takes: sbatch(1), features with the operators & | * ( ) [ ] and counts. Without blanks.
CONSTRAINT = rf"(?=.{{1,200}}$)[\[(]*{_FEATURE}(\*[0-9]+)?[\])]*([&|,][\[(]*{_FEATURE}(\*[0-9]+)?[\])]*)*"

#: The type of a GPU: gres.conf(5), Type; in a Gres it stands between colons, before a parenthesis.
GPU_TYPE = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}"

#: A QOS: sacctmgr(1), qos. It is kept in lower case; commas part several (src/sacctmgr/qos_functions.c).
QOS = r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,63}"
