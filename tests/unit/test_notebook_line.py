"""A notebook.py line: the flags of sbatch(1) that the course's script took, checked like any other choice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from snowyspawner import site as site_module
from snowyspawner.choice.notebook_line import from_line
from snowyspawner.choice.request import RequestError, from_options
from snowyspawner.site import Site
from snowyspawner.site.fields import FIELDS


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", {}),
        ("./notebook.py", {}),
        # design.md §4
        (
            "-n 4 -p devcore --gres=gpu:t4:0 -t 2:00:00 -b 15:00 -- tf-mkl",
            {
                "cores": "4",
                "partition": "devcore",
                "gpu": "t4:0",
                "time": "2:00:00",
                "begin": "15:00",
                "environment": "tf-mkl",
            },
        ),
        # The seed's own defaults, as flags
        (
            "notebook.py -A g2021027 -t 0:59:00 -p core -n 4 -M snowy --gres=gpu:t4:1 -- tf-gpu container.sif",
            {
                "account": "g2021027",
                "time": "0:59:00",
                "partition": "core",
                "cores": "4",
                "gpu": "t4:1",
                "environment": "tf-gpu",
                "image": "container.sif",
            },
        ),
        # sbatch(1): long names, with = and without
        (
            "sbatch --account=x --ntasks 8 --partition=core --time=30 --reservation=r --mail-type=BEGIN",
            {
                "account": "x",
                "cores": "8",
                "partition": "core",
                "time": "30",
                "reservation": "r",
                "email_on_start": "1",
            },
        ),
        ("-c 2 -G t4:1", {"cores": "2", "gpu": "t4:1"}),
        ("-n4 -pcore", {"cores": "4", "partition": "core"}),
        ("--gres=none --mail-type=none", {"gpu": "none", "email_on_start": "0"}),
        # sbatch(1), --mem: megabytes unless K, M, G or T follows
        ("--mem=9000", {"memory": "9000"}),
        ("--mem=9000M", {"memory": "9000"}),
        ("--mem=9g", {"memory": "9216"}),
        ("--mem=1T", {"memory": "1048576"}),
        ("--mem=1025K", {"memory": "2"}),
    ],
)
def test_a_line_sets_options(line: str, options: dict[str, str]) -> None:
    assert from_line(line, "snowy") == options
    assert set(options) <= set(FIELDS)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("-M rackham", "-M rackham: sessions run on snowy here"),
        ("--gres=license:1", "--gres=license:1: only a GPU is possible, such as gpu:t4:1"),
        ("--gres=gpu:t4:1,gpu:a100:1", "only a GPU is possible"),
        ("--mail-type=ALL", "--mail-type=ALL: BEGIN or NONE is possible"),
        ("--mem=lots", "--mem=lots: write a number and K, M, G or T"),
        ("--mem=", "write a number"),
        ("--mem=-1", "write a number"),
        # sbatch(1): all the memory of the node, which no number of megabytes can say
        ("--mem=0", "--mem=0"),
        ("-n", "expected one argument"),
        ("--wrap=id", "unrecognized arguments: --wrap=id"),
        ("--part core", "unrecognized arguments"),  # no abbreviations: Slurm's may change
        ("tf-mkl", "unrecognized arguments: tf-mkl; a line looks like -n 4 -p devcore"),
        ("-- a b c", "after -- come an environment and an image, not 3 words"),
        ("-A 'x", "cannot be read: No closing quotation"),
        ("--mem=" + "9" * 400 + "K", "--mem="),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        from_line(line, "snowy")


def test_a_field_counts_more_than_the_line(snowy: Site) -> None:
    request = from_options({"line": "-n 4 -p node", "cores": 8}, snowy)
    assert (request.cores, request.partition) == (8, "node")


def test_what_a_line_sets_is_checked_like_any_other_choice(snowy: Site) -> None:
    with pytest.raises(RequestError) as caught:
        from_options({"line": "-n 99 -p devcore -- torch"}, snowy)
    assert set(caught.value.errors) == {"cores", "gpu", "environment"}


@pytest.mark.parametrize(
    "value",
    [
        "-A 'a\nb' c\x1b[31m",
        "'\u202e' \u2028",
        "$(id)",
        "-n `id`",
        "\0",
        "😀",
        "-A '\ud800'",
        "--mem=" + "9" * 400 + "K",
        "x" * 100_000,
        ["-n", "4"],
        {"-n": 4},
        True,
        1.5,
        10**5000,
    ],
    ids=lambda value: "huge" if type(value) is int else ascii(value)[:24],
)
def test_a_hostile_line_is_refused_in_one_plain_line(snowy: Site, value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        from_options({"line": value}, snowy)
    for sentence in caught.value.errors.values():
        assert all(char.isprintable() for char in sentence)
        assert len(sentence) < 800


ALVIS = str(Path(__file__).resolve().parent.parent / "sites" / "alvis.yaml")


@pytest.mark.parametrize(
    ("source", "line", "partition"),
    [
        # What is one partition to Slurm may be several to the Site, told apart by the constraint or by the GPU.
        ("pelle", "-p fat -C 2TB --gres=none", "fat-2TB"),
        ("pelle", "--constraint=3TB --partition=fat --gres=none", "fat-3TB"),
        ("pelle", "-p fat-3TB --gres=none", "fat-3TB"),
        ("pelle", "-p fat-3TB -C 3TB --gres=none", "fat-3TB"),
        ("pelle", "-p gpu -G h100:1", "gpu"),
        ("pelle", "-c 2", "haswell"),
        (ALVIS, "-p alvis --gpus-per-node=A40:1", "icelake"),
        (ALVIS, "-p alvis --gpus-per-node=V100:1", "skylake"),
        (ALVIS, "-p alvis -C NOGPU --gres=none", "nogpu"),
    ],
)
def test_a_line_names_partitions_as_slurm_does(source: str, line: str, partition: str) -> None:
    assert from_options({"line": line}, site_module.load(source)).partition == partition


@pytest.mark.parametrize(
    ("line", "field", "sentence"),
    [
        ("-p fat -C 4TB", "line", "-C 4TB: partition fat has no such nodes here"),
        ("-C 2TB", "line", "-C 2TB: partition haswell has no such nodes here"),
        ("-p fat-2TB -C 3TB", "line", "-C 3TB: partition fat-2TB has no such nodes here"),
        ("-p fat", "partition", "'fat' is not offered here; choose haswell, pelle, gpu, fat-2TB or fat-3TB"),
        ("-p nosuch", "partition", "'nosuch' is not offered here"),
    ],
)
def test_what_a_line_names_has_to_be_there(line: str, field: str, sentence: str) -> None:
    with pytest.raises(RequestError) as refused:
        from_options({"line": line}, site_module.load("pelle"))
    assert sentence in refused.value.errors[field]


def test_a_field_beside_the_line_goes_first() -> None:
    options = {"line": "-p fat -C 2TB", "partition": "fat-3TB", "gpu": "none"}
    assert from_options(options, site_module.load("pelle")).partition == "fat-3TB"
