"""A Site is checked as a whole when it is loaded; each mistake names the key, the value and what is allowed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from snowyspawner import site
from snowyspawner._share import share_dir
from snowyspawner.choice import request
from snowyspawner.choice.request import RequestError, from_options
from snowyspawner.session.script import Target, build, sbatch_options
from snowyspawner.site import Site, SiteError, loading
from snowyspawner.slurm import names
from snowyspawner.standalone import launcher

SITES = Path(__file__).resolve().parent.parent / "sites"

# Every one of these means something to a shell, to sbatch or to whoever reads a line.
HOSTILE = [
    "a b",
    "a\nb",
    "a;b",
    "a$(id)",
    "a`id`",
    "a'b",
    'a"b',
    "a\\b",
    "a&b",
    "a|b",
    "a>b",
    "a*b",
    "a#b",
    "a{b}",
    "a\0b",
    "a\x1bb",
    "å",
    "-a b",
]

BELOW_HOME = "must be a path below the home directory with %j (the job's number) in it, without .. and other %"


def nested(path: str, value: Any) -> dict[str, Any]:
    """Make ``{"a": {"b": value}}`` of ``a/b``."""
    for key in reversed(path.split("/")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(SiteError) as caught:
        site.load({"extends": "snowy", **changes})
    return str(caught.value).splitlines()


# -- what is shipped ---------------------------------------------------------------------------------------------


def test_every_shipped_site_can_be_loaded() -> None:
    assert "snowy" in site.shipped()
    for name in site.shipped():
        assert site.load(name).display_name


def test_snowy_is_the_course_s_cluster(snowy: Site) -> None:
    assert snowy.cluster == "snowy"
    assert list(snowy.partitions) == ["core", "node", "devcore", "devel"]
    assert list(snowy.environments) == ["tf-gpu", "tf-mkl", "tf-pip"]
    # The seed: -A g2021027 -t 0:59:00 -p core -n 4 -M snowy --gres=gpu:t4:1, container.sif
    assert snowy.accounts.default == "g2021027"
    assert snowy.defaults.model_dump(exclude_none=True) == {
        "environment": "tf-gpu",
        "image": "container.sif",
        "partition": "core",
        "cores": 4,
        "gpu": "t4:1",
        "time": "0:59:00",
    }
    assert snowy.partitions["core"].max_cores == 16
    assert snowy.partitions["devcore"].max_jobs == 1
    assert snowy.partitions["devcore"].gpus == ()
    assert snowy.zone.key == "Europe/Stockholm"


def test_pelle_is_the_cluster_that_has_snowy_s_gpus_now() -> None:
    pelle = site.load("pelle")
    assert (pelle.cluster, pelle.cores_option, pelle.memory_free) == ("", "cpus-per-task", True)
    assert {pelle.slurm_partition(key) for key in pelle.partitions} == {"pelle", "haswell", "gpu", "fat"}
    assert {key: gpu.max_count for key, gpu in pelle.gpus.items()} == {"t4": 1, "l40s": 10, "h100": 2}
    assert pelle.partitions["gpu"].max_time == "2-00:00:00"
    assert pelle.defaults.gpu == "t4:1"
    # A project is a must there, and nobody else's is offered.
    assert pelle.accounts.default == ""


@pytest.mark.parametrize("source", [*site.shipped(), *sorted(SITES.glob("*.yaml"))], ids=lambda s: Path(s).stem)
def test_a_site_takes_its_own_defaults_and_presets(source: str | Path) -> None:
    assert request.problems(site.load(source)) == []


def test_the_sites_of_others_share_nothing_with_snowy() -> None:
    """They are whole files: a default of Python's that only fits Snowy would show in them."""
    for path in SITES.glob("*.yaml"):
        assert "extends" not in yaml.safe_load(path.read_text())


def test_a_partition_has_slurm_s_name_or_its_own(variant: Callable[..., Site]) -> None:
    mine = variant(partitions={"big": {"name": "core", "constraint": "mem256GB", "max_cores": 16, "max_time": "1-0"}})
    assert mine.slurm_partition("big") == "core"
    assert mine.slurm_partition("core") == "core"
    assert mine.partitions["core"].constraint == ""


def test_a_loaded_site_does_not_change(snowy: Site) -> None:
    with pytest.raises(ValueError, match="frozen"):
        snowy.cluster = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("template", "address"), [("{node}", "s12"), ("{node}.example.org", "s12.example.org"), ("127.0.0.1", "127.0.0.1")]
)
def test_a_node_s_name_becomes_an_address(variant: Callable[..., Site], template: str, address: str) -> None:
    assert variant(node_address=template).address("s12") == address


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        # YAML 1.1 reads colons between digits as base 60 (unless there is a leading zero): 1:00:00 is 3600.
        ("partitions: {core: {max_time: 1:00:00}}", "partitions.core.max_time", "3600"),
        ("defaults: {time: 2:30:00}", "defaults.time", "9000"),
        ("presets: {gpu: {choices: {time: 30}}}", "presets.gpu.choices.time", "30"),
        # A leading zero is octal: 022 is 18.
        ("umask: 022", "umask", "18"),
    ],
)
def test_a_time_without_quotes_is_explained(tmp_path: Path, text: str, key: str, value: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: snowy\n{text}\n")
    with pytest.raises(SiteError) as caught:
        site.load(file)
    assert str(caught.value) == f"{file}: {key}: {value}: must be text: put it in quotes"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"nonsense": 5}, "site: nonsense: 5: no such key"),
        ({"partitions": {"core": {"cores": 5}}}, "site: partitions.core.cores: 5: no such key"),
        ({"gpus": {"t4": {"gres": "x"}}}, "site: gpus.t4.gres: 'x': no such key"),
        ({"environments": {"tf-gpu": {"pip": "x"}}}, "site: environments.tf-gpu.pip: 'x': no such key"),
        ({"accounts": {"x": "y"}}, "site: accounts.x: 'y': no such key"),
        ({"defaults": {"core": 4}}, "site: defaults.core: 4: no such key"),
        (
            {"partitions": {"core": {"gpus": ["a100"]}}},
            "site: partitions.core.gpus: 'a100': no such GPU type; there is t4",
        ),
        (
            {"environments": {"tf-gpu": {"images": ["other.sif"]}}},
            "site: environments.tf-gpu.images: 'other.sif': no such image; there is container.sif",
        ),
        (
            {"defaults": {"environment": "torch"}},
            "site: defaults.environment: 'torch': no such environment; there is tf-gpu, tf-mkl, tf-pip",
        ),
        (
            {"defaults": {"partition": "gpu"}},
            "site: defaults.partition: 'gpu': no such partition; there is core, node, devcore, devel",
        ),
        ({"defaults": {"image": "x"}}, "site: defaults.image: 'x': no such image; there is container.sif"),
        ({"defaults": {"gpu": "v100:1"}}, "site: defaults.gpu: 'v100': no such GPU type; there is t4"),
        ({"defaults": {"gpu": "t4:0"}}, "site: defaults.gpu: 't4:0': must be none or TYPE:COUNT"),
        ({"defaults": {"cores": None}}, "site: defaults.cores: missing"),
        (
            {"presets": {"mkl": {"choices": {"partition": "gone"}}}},
            "site: presets.mkl.choices.partition: 'gone': no such partition; there is core, node, devcore, devel",
        ),
        ({"time_zone": "Stockholm"}, "site: time_zone: 'Stockholm': must be a time zone such as Europe/Stockholm"),
        ({"time_zone": "../etc"}, "site: time_zone: '../etc': must be a time zone such as Europe/Stockholm"),
        ({"time_zone": ""}, "site: time_zone: '': must be a time zone such as Europe/Stockholm"),
        ({"images": {"none": {}}}, "site: images.none: an image needs a path (or runtime: none)"),
        (
            {"environments": {"tf-gpu": {"prefix": "/opt/x"}}},
            "site: environments.tf-gpu: prefix goes with kind: prefix, and only with it",
        ),
        (
            {"environments": {"tf-gpu": {"kind": "prefix"}}},
            "site: environments.tf-gpu: prefix goes with kind: prefix, and only with it",
        ),
        ({"umask": "999"}, "site: umask: '999': must be three octal digits in quotes, such as '022'"),
        ({"log": "job.log"}, f"site: log: 'job.log': {BELOW_HOME}"),
        ({"log": "/tmp/%j.log"}, f"site: log: '/tmp/%j.log': {BELOW_HOME}"),
        ({"log": "../%j.log"}, f"site: log: '../%j.log': {BELOW_HOME}"),
        ({"log": "logs/../../%j.log"}, f"site: log: 'logs/../../%j.log': {BELOW_HOME}"),
        ({"log": "%u/%j.log"}, f"site: log: '%u/%j.log': {BELOW_HOME}"),
        ({"log": "%j-%x.log"}, f"site: log: '%j-%x.log': {BELOW_HOME}"),
        ({"log": "%4j.log"}, f"site: log: '%4j.log': {BELOW_HOME}"),
        ({"log": "%%j.log"}, f"site: log: '%%j.log': {BELOW_HOME}"),
        ({"log": "%j.log%"}, f"site: log: '%j.log%': {BELOW_HOME}"),
        (
            {"warn_before": "1-0"},
            "site: warn_before: '1-0': must be at most 18 hours, which is what Slurm takes",
        ),
        ({"keep_logs": {"age": 3}}, "site: keep_logs.age: 3: no such key"),
        ({"listen": "all"}, "site: listen: 'all': must be an IP address"),
        ({"listen": "face"}, "site: listen: 'face': must be an IP address"),
        ({"node_address": ""}, "site: node_address: '': must be a host name with {node} in it"),
        (
            {"gpus": {"t4": {"request": "--gres=gpu:t4:1"}}},
            "site: gpus.t4.request: '--gres=gpu:t4:1': must be an sbatch option such as --gres=gpu:t4:{count}, "
            "--gpus=t4:{count} or --gres=shard:{count}",
        ),
        (
            {"gpus": {"t4": {"request": "--wrap=gpu:{count}"}}},
            "site: gpus.t4.request: '--wrap=gpu:{count}': must be an sbatch option such as --gres=gpu:t4:{count}, "
            "--gpus=t4:{count} or --gres=shard:{count}",
        ),
        (
            {"partitions": {"devcore": {"gpu_required": True}}},
            "site: partitions.devcore.gpu_required: True: needs gpus to choose from",
        ),
    ],
)
def test_a_mistake_names_key_value_and_what_is_allowed(changes: dict[str, Any], line: str) -> None:
    assert line in mistakes(**changes)


@pytest.mark.parametrize(
    ("changes", "start", "allowed"),
    [
        ({"memory_per_core": 0}, "site: memory_per_core: 0: ", "greater than or equal to 1"),
        ({"memory_per_core": "8000"}, "site: memory_per_core: '8000': ", "valid integer"),
        ({"partitions": {"core": {"max_cores": 0}}}, "site: partitions.core.max_cores: 0: ", "greater than or equal"),
        ({"partitions": {"core": {"max_cores": True}}}, "site: partitions.core.max_cores: True: ", "valid integer"),
        ({"partitions": {"core": {"max_memory": 0}}}, "site: partitions.core.max_memory: 0: ", "greater than or equal"),
        ({"partitions": {"core": {"constraint": 2}}}, "site: partitions.core.constraint: 2: ", "put it in quotes"),
        ({"partitions": {"core": {"max_time": "2h"}}}, "site: partitions.core.max_time: '2h': ", "minutes:seconds"),
        ({"partitions": {"core": {"max_time": "0"}}}, "site: partitions.core.max_time: '0': ", "longer than nothing"),
        ({"warn_before": "ten"}, "site: warn_before: 'ten': ", "minutes:seconds"),
        ({"warn_before": 600}, "site: warn_before: 600: ", "put it in quotes"),
        ({"keep_logs": {"days": -1}}, "site: keep_logs.days: -1: ", "greater than or equal to 0"),
        ({"cores_option": "cores"}, "site: cores_option: 'cores': ", "'ntasks' or 'cpus-per-task'"),
        ({"single_node": "yes"}, "site: single_node: 'yes': ", "valid boolean"),
        ({"hub_wait": 0}, "site: hub_wait: 0: ", "greater than or equal to 1"),
        (
            {"images": {"container.sif": {"runtime": "docker"}}},
            "site: images.container.sif.runtime: 'docker': ",
            "'auto', 'apptainer', 'singularity' or 'none'",
        ),
        ({"images": {"container.sif": {"entry": "shell"}}}, "site: images.container.sif.entry: ", "'exec' or 'run'"),
        ({"accounts": {"pattern": "(g"}}, "site: accounts.pattern: '(g': ", "must be a regular expression"),
        ({"gpus": {"t4": {"max_count": 65}}}, "site: gpus.t4.max_count: 65: ", "less than or equal to 64"),
        ({"display_name": None}, "site: display_name: ", "required"),
        ({"partitions": None}, "site: partitions: ", "required"),
    ],
)
def test_a_value_of_the_wrong_kind_is_explained(changes: dict[str, Any], start: str, allowed: str) -> None:
    lines = [line for line in mistakes(**changes) if line.startswith(start)]
    assert lines
    assert allowed in lines[0]


def test_all_mistakes_are_reported_together() -> None:
    lines = mistakes(memory_per_core=0, nonsense=1, time_zone="Nowhere")
    assert {line.split(":")[1].strip() for line in lines} == {"memory_per_core", "nonsense", "time_zone"}


def test_an_empty_table_is_a_mistake() -> None:
    for table in ("partitions", "images", "environments"):
        raw = yaml.safe_load((share_dir() / "sites" / "snowy.yaml").read_text())
        raw[table] = {}
        with pytest.raises(SiteError, match=rf"(?m)^site: {table}: .*at least 1 item"):
            site.load(raw)


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("cluster", "{}"),
        ("slurm_conf", "/{}"),
        ("node_address", "{}"),
        ("listen", "{}"),
        ("python", "/{}"),
        ("umask", "{}"),
        ("log", "{}-%j"),
        ("scratch", ["{}"]),
        ("accounts/default", "{}"),
        ("images/container.sif/path", "/{}"),
        ("images/container.sif/binds", ["/{}"]),
        ("environments/tf-gpu/conda", "/{}"),
        ("environments/new", {"kind": "prefix", "prefix": "/{}"}),
        ("gpus/t4/request", "--gres=gpu:{}:{{count}}"),
        ("partitions/core/name", "{}"),
        ("partitions/core/constraint", "{}"),
        # Names are keys, and go into the script, too.
        ("partitions", {"{}": {"max_cores": 1, "max_time": "1"}}),
        ("environments", {"{}": {}}),
        ("images", {"{}": {"path": "/x.sif"}}),
        ("gpus", {"{}": {"request": "--gpus={{count}}"}}),
    ],
    ids=lambda value: value if isinstance(value, str) and "{" not in value else "",
)
def test_nothing_that_a_shell_could_read_gets_into_what_reaches_a_script(path: str, shape: Any, value: str) -> None:
    def fill(part: Any) -> Any:
        if isinstance(part, str):
            return part.format(value) if "{" in part else part
        if isinstance(part, list):
            return [fill(item) for item in part]
        if isinstance(part, dict):
            return {fill(key): fill(item) for key, item in part.items()}
        return part

    if path.endswith("constraint") and value in ("a&b", "a|b"):
        return  # of Slurm's own language; it is in no shell's text
    lines = mistakes(**nested(path, fill(shape)))
    assert lines[0].startswith(f"site: {path.replace('/', '.')}")
    assert any("must be" in line for line in lines)


@pytest.mark.parametrize("name", ["-core", "", "a" * 65, ".hidden", "--help"])
def test_no_name_can_be_taken_for_an_option_or_be_endless(name: str) -> None:
    lines = mistakes(partitions={name: {"max_cores": 1, "max_time": "1"}})
    assert any(f"{name!r}: must be letters" in line for line in lines)


# -- extends -----------------------------------------------------------------------------------------------------


def test_extends_merges_tables_and_replaces_the_rest(variant: Callable[..., Site]) -> None:
    mine = variant(
        cluster="",
        partitions={"core": {"max_cores": 20}, "long": {"max_cores": 4, "max_time": "30-0"}},
        images={"container.sif": {"binds": ["/data"]}},
    )
    assert mine.cluster == ""
    assert mine.partitions["core"].max_cores == 20
    assert mine.partitions["core"].max_time == "10-00:00:00"  # from below
    assert list(mine.partitions) == ["core", "node", "devcore", "devel", "long"]
    assert mine.images["container.sif"].binds == ("/data",)  # a list is not a table


def test_null_removes_a_key(variant: Callable[..., Site]) -> None:
    mine = variant(partitions={"devel": None, "devcore": {"max_jobs": None}}, presets=None)
    assert list(mine.partitions) == ["core", "node", "devcore"]
    assert mine.partitions["devcore"].max_jobs is None
    assert mine.presets == {}


def test_null_for_what_is_not_there_is_no_mistake(variant: Callable[..., Site]) -> None:
    assert "gone" not in variant(partitions={"gone": None}).partitions


def test_extending_does_not_change_what_was_given() -> None:
    given = {"extends": "snowy", "partitions": {"core": {"max_cores": 8}}}
    site.load(given)
    assert given == {"extends": "snowy", "partitions": {"core": {"max_cores": 8}}}


def test_files_extend_files(tmp_path: Path) -> None:
    below, above = tmp_path / "below.yaml", tmp_path / "above.yaml"
    below.write_text("extends: snowy\ncluster: below\nhub_wait: 5\n")
    above.write_text(f"extends: {below}\ncluster: above\n")
    mine = site.load(str(above))
    assert (mine.cluster, mine.hub_wait, mine.display_name) == ("above", 5, "Snowy")


def test_a_relative_path_is_looked_for_beside_the_file_that_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below.yaml").write_text("extends: snowy\ncluster: below\n")
    (tmp_path / "above.yaml").write_text("extends: below.yaml\n")
    # A hub started by systemd has another working directory than the administrator who tried the file.
    monkeypatch.chdir("/")
    assert site.load(tmp_path / "above.yaml").cluster == "below"


def test_a_file_is_read_again_only_when_it_or_one_below_has_changed(tmp_path: Path) -> None:
    below, above = tmp_path / "below.yaml", tmp_path / "above.yaml"
    below.write_text("extends: snowy\nhub_wait: 5\n")
    above.write_text("extends: below.yaml\ncluster: above\n")
    first = site.load(above)
    assert site.load(above) is first
    below.write_text("extends: snowy\nhub_wait: 65\n")
    assert (first.hub_wait, site.load(above).hub_wait) == (5, 65)
    above.write_text("extends: below.yaml\ncluster: 5\n")
    with pytest.raises(SiteError, match="cluster: 5"):
        site.load(above)
    above.unlink()
    with pytest.raises(SiteError, match="cannot be read"):
        site.load(above)


def test_a_file_that_goes_wrong_while_the_hub_runs_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, log = tmp_path / "site.yaml", logging.getLogger("hub")
    file.write_text("extends: snowy\ncluster: 5\n")
    with pytest.raises(SiteError, match="cluster: 5"):
        site.load_or_keep(file, log)
    file.write_text("extends: snowy\ncluster: one\n")
    first = site.load_or_keep(file, log)
    file.write_text("extends: snowy\ncluster: 57\n")
    for _ in range(3):
        assert site.load_or_keep(file, log) is first
    assert [record.getMessage() for record in caplog.records] == [
        "The site was changed and cannot be used; the hub goes on with the one before:\n"
        f"{file}: cluster: 57: must be text: put it in quotes"
    ]
    file.unlink()
    assert site.load_or_keep(file, log) is first
    file.write_text("extends: snowy\ncluster: two\n")
    assert site.load_or_keep(file, log).cluster == "two"
    assert len(caplog.records) == 2
    with pytest.raises(SiteError, match="no such key"):
        site.load_or_keep({"extends": "snowy", "nosuch": 1}, log)


def test_the_same_relative_path_is_another_file_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.yaml").write_text(f"extends: snowy\ncluster: {name}\n")
        monkeypatch.chdir(tmp_path / name)
        loaded.append(site.load("site.yaml").cluster)
    assert loaded == ["one", "two"]


def test_a_cycle_of_extends_ends_with_an_error(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"extends: {two}\n")
    two.write_text(f"extends: {one}\n")
    with pytest.raises(SiteError, match="extends"):
        site.load(one)


def test_a_file_that_extends_itself_ends_with_an_error(tmp_path: Path) -> None:
    one = tmp_path / "one.yaml"
    one.write_text(f"extends: {one}\n")
    with pytest.raises(SiteError, match="extends"):
        site.load(one)


@pytest.mark.parametrize("base", [5, ["snowy"], {"snowy": 1}, True])
def test_extends_must_be_a_name_or_path(base: Any) -> None:
    with pytest.raises(SiteError, match=r"extends: .*must be the name or path of another site"):
        site.load({"extends": base})


def test_extending_an_unknown_site_names_those_there_are() -> None:
    with pytest.raises(SiteError, match=r"nosuch: no such site; there is .*snowy"):
        site.load({"extends": "nosuch"})


# -- files -------------------------------------------------------------------------------------------------------


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"mine\.yaml: cannot be read: .*No such file"):
        site.load(tmp_path / "mine.yaml")


def test_a_name_that_is_not_shipped_says_which_are() -> None:
    with pytest.raises(SiteError, match=r"sno: no such site; there is .*snowy.*give a path"):
        site.load("sno")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"- a\n- b\n", "must hold keys and values, not list"),
        (b"just text", "must hold keys and values, not str"),
        (b"", "must hold keys and values, not NoneType"),
        # Plain YAML only: no tag may make an object.
        (b"a: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_file_that_is_no_table_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(SiteError, match=message) as caught:
        site.load(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_dict_is_a_site_too() -> None:
    tiny = site.load(
        {
            "display_name": "Tiny",
            "time_zone": "UTC",
            "memory_per_core": 1000,
            "partitions": {"all": {"max_cores": 2, "max_time": "60"}},
            "images": {"node": {"runtime": "none"}},
            "environments": {"base": {"kind": "none"}},
            "defaults": {"environment": "base", "partition": "all", "cores": 1, "time": "30"},
        }
    )
    assert tiny.images["node"].path == "/"
    assert tiny.gpus == {}


@pytest.mark.parametrize("log", ["%j", "logs/%j.out", "a..b/%j", "100%%-%j.log", "%j/%j.log", "%%%j"])
def test_a_log_that_can_be_found_again_is_taken(variant: Callable[..., Site], log: str) -> None:
    assert variant(log=log).log == log


def test_a_course_file_has_a_key_and_an_absolute_path(variant: Callable[..., Site]) -> None:
    made = variant(courses={"course": None, "ml-2021": "/proj/course/ml.yaml"})
    assert made.courses == {"ml-2021": "/proj/course/ml.yaml"}
    assert "site: courses.ml: 'ml.yaml': must be an absolute path" in mistakes(courses={"ml": "ml.yaml"})[0]
    assert "courses.a/b" in mistakes(courses={"a/b": "/a"})[0]
    assert "site: helper: 'helper': must be an absolute path" in mistakes(helper="helper")[0]


# -- the same key twice ------------------------------------------------------------------------------------------

TWICE = [
    ("extends: snowy\nmemory_per_core: 1\nmemory_per_core: 2\n", 3, "memory_per_core", 2),
    ("extends: snowy\npartitions:\n  core: {max_cores: 4}\n  'core': {max_cores: 8}\n", 4, "core", 3),
    ("extends: snowy\npartitions:\n  core: {max_cores: 4, max_time: '1',\n    max_cores: 8}\n", 4, "max_cores", 3),
    ("extends: snowy\nextends: pelle\n", 2, "extends", 1),
    ("extends: snowy\npresets:\n  a: &a {display_name: A}\n  b:\n    <<: *a\n    <<: *a\n", 6, "<<", 5),
    ("extends: snowy\npresets:\n  - {a: 1, b: 2, a: 3}\n", 3, "a", 3),
]


@pytest.mark.parametrize(("text", "line", "key", "first"), TWICE)
def test_a_key_that_is_there_twice_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, key: str, first: int
) -> None:
    """YAML's own readers keep the last value and say nothing."""
    wrong, on_top = tmp_path / "wrong.yaml", tmp_path / "top.yaml"
    wrong.write_text(text)
    on_top.write_text("extends: ./wrong.yaml\n")
    for path in (wrong, on_top):
        with pytest.raises(SiteError) as caught:
            site.load(path)
        assert str(caught.value).endswith(f"wrong.yaml: line {line}: the key {key!r} is in line {first} already")


def test_a_key_beside_a_merge_goes_before_it(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text(
        "extends: snowy\npresets:\n  a: &a {display_name: A, description: x}\n  b: {<<: *a, display_name: B}\n"
    )
    presets = site.load(path).presets
    assert (presets["b"].display_name, presets["b"].description) == ("B", "x")


@pytest.mark.parametrize("reader", [yaml.SafeLoader, loading._Loader])
def test_what_stands_in_itself_or_too_deep_is_a_mistake_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Any
) -> None:
    """With libyaml and without it, which a PyYAML from source may lack."""
    monkeypatch.setattr(loading, "_Loader", reader)
    wrong = tmp_path / "wrong.yaml"
    for text in ("a: " + "[" * 2_000, "a: " + "[" * 2_000 + "]" * 2_000, "display_name: &a [*a]\n"):
        wrong.write_text(text)
        with pytest.raises(SiteError, match=r"wrong\.yaml: "):
            site.load(wrong)
    for text, line, key, first in TWICE:
        wrong.write_text(text)
        with pytest.raises(SiteError, match=f"line {line}: the key {key!r} is in line {first} already"):
            site.load(wrong)


# -- names of Slurm's --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"partitions": {"core": {"name": "gpu_2024.a+b"}}}, "--partition=gpu_2024.a+b"),
        ({"partitions": {"core": {"constraint": "gpu&hbm80g"}}}, "--constraint=gpu&hbm80g"),
        ({"partitions": {"core": {"constraint": "[rack1|rack2]"}}}, "--constraint=[rack1|rack2]"),
        ({"partitions": {"core": {"constraint": "(knl&snc4&flat)*2"}}}, None),
        ({"partitions": {"core": {"constraint": "[rack1*2&rack2*4]"}}}, "--constraint=[rack1*2&rack2*4]"),
        ({"accounts": {"default": "abc@v100", "pattern": None}}, "--account=abc@v100"),
        ({"gpus": {"t4": {"request": "--gres=shard:{count}"}}}, "--gres=shard:1"),
        ({"gpus": {"t4": {"request": "--gres=gpu:a100_3g.20gb:{count}"}}}, "--gres=gpu:a100_3g.20gb:1"),
        ({"gpus": {"t4": {"request": "--gpus-per-node=nvidia_h100:{count}"}}}, "--gpus-per-node=nvidia_h100:1"),
    ],
)
def test_what_slurm_allows_is_allowed(
    variant: Callable[..., Site], target: Target, changes: dict[str, Any], option: str | None
) -> None:
    if option is None:
        with pytest.raises(SiteError, match="constraint"):
            variant(**changes)
        return
    made = variant(**changes)
    assert option in sbatch_options(made, from_options({}, made), target)
    assert f"#SBATCH {option}\n" in build(made, from_options({}, made), target)


def test_a_person_may_write_a_project_as_slurm_has_it(snowy: Site) -> None:
    open_site = site.load({"extends": "snowy", "accounts": {"pattern": ".*"}})
    for name in ("abc@v100", "a.b-c_d", "p:q", "dept/group", "_x"):
        assert from_options({"account": name}, open_site).account == name
    for name in ("-x", "a b", "a;b", "a\\b", "a'b", 'a"b', "a#b", "a,b", "a\u200bb", "x" * 65):
        with pytest.raises(RequestError, match="account"):
            from_options({"account": name}, open_site)


@pytest.mark.parametrize("name", ["s1", "gpu_node01", "GPU-01", "n001.cluster.example", "1a", "_n", "n" * 254])
def test_a_node_s_name(name: str) -> None:
    assert re.fullmatch(names.NODE, name, re.ASCII)


@pytest.mark.parametrize(
    "name",
    ["", "-n", ".n", "n.", "n-", "n,m", "n m", "n[1-2]", "n/m", "n:1", "n@m", "n\n", "\u00e5", "n" * 255, "127.0.0.1/"],
)
def test_what_is_no_node_s_name(name: str) -> None:
    assert not re.fullmatch(names.NODE, name, re.ASCII)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ("--gres=gpu:t4:{count}", "t4"),
        ("--gres=gpu:{count}", ""),
        ("--gpus={count}", ""),
        ("--gpus=nvidia_h100:{count}", "nvidia_h100"),
        ("--gpus-per-node=A40:{count}", "A40"),
        ("--gres=gpu:a100_3g.20gb:{count}", "a100_3g.20gb"),
        ("--gres=shard:{count}", None),
    ],
)
def test_slurm_s_name_of_a_gpu_is_in_what_is_asked_for(
    variant: Callable[..., Site], request_: str, kind: str | None
) -> None:
    assert variant(gpus={"t4": {"request": request_}}).slurm_gpu("t4") == kind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": "call us"}, "support: 'call us': must be an address such as support@example.org, or a link"),
        ({"support": "javascript:alert(1)"}, "support: 'javascript:alert(1)': must be an address"),
        ({"support": "https://a.example/<b>"}, "support: 'https://a.example/<b>': must be an address"),
        ({"qos": {"a b": {}}}, "qos.a b.[key]: 'a b': must be the name of a QOS"),
        (
            {"qos": {"short": {"partitions": ["gone"]}}},
            "qos.short.partitions: 'gone': no such partition; there is core",
        ),
        ({"constraints": {"": {}}}, "constraints..[key]: '': must be features for --constraint"),
        ({"constraints": {"a b": {}}}, "'a b': must be features for --constraint"),
        ({"constraints": {"x": {"colour": 1}}}, "constraints.x.colour: 1: no such key"),
    ],
)
def test_what_pages_show_or_offer_is_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SiteError) as caught:
        site.load({"extends": "snowy", **changes})
    assert message in str(caught.value)


def test_a_site_names_the_runtimes_that_the_launcher_has() -> None:
    named = get_args(site.model.Image.model_fields["runtime"].annotation)
    assert set(named) == {"auto", *launcher.RUNTIMES, "none"}
