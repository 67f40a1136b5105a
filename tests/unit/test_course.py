"""The course's container and exercise, as far as they go without building or training: demo/course.py, share/course."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from demo import DemoError, course
from demo.cluster import Cluster
from snowyspawner.site import Site, load

LOCKS = {name: course.RECIPE / "locks" / f"{name}.txt" for name in course.ENVIRONMENTS}
SHARED = course.RECIPE / "locks" / "common.in"


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[a-z,-]+\])?==([^ \\]+)", lock, re.MULTILINE))


@pytest.mark.parametrize("name", course.ENVIRONMENTS)
def test_a_lock_file_pins_all_that_is_asked_for_with_hashes(name: str) -> None:
    lock = LOCKS[name].read_text(encoding="utf-8")
    found = pins("\n".join(course.paragraphs(lock)))
    asked = SHARED.read_text(encoding="utf-8") + (LOCKS[name].with_suffix(".in")).read_text(encoding="utf-8")
    for wanted in re.findall(r"^([a-z][a-z0-9-]*)", asked, re.MULTILINE):
        assert wanted in found, wanted
    assert found["jupyterhub"].startswith("6.")
    # Nothing of where it was made: no address, no path.
    assert not re.search(r"https?:|file:|^-|/(?:opt|root|home)/", lock, re.MULTILINE)


def test_the_environments_differ_as_the_exercise_says() -> None:
    gpu, mkl, pip = (pins(LOCKS[name].read_text(encoding="utf-8")) for name in course.ENVIRONMENTS)
    assert "tensorflow" in gpu
    assert any(name.startswith("nvidia-cudnn") for name in gpu)
    assert mkl["intel-tensorflow"] == "2.14.0"
    assert mkl["numpy"].startswith("1.")
    assert "tensorflow-cpu" in pip
    assert not any(name.startswith("nvidia") for name in (*mkl, *pip))


@pytest.mark.parametrize(
    "lock",
    ["", "a==1\n", "a==1 \\\n    --hash=sha256:" + "0" * 64 + "\nb==2\n", "a==1 \\\n    --hash=sha256:00\n"],
    ids=["empty", "none", "one of two", "short"],
)
def test_a_package_without_a_hash_is_refused(lock: str) -> None:
    with pytest.raises(DemoError, match="with hashes"):
        course.paragraphs(lock)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", course.ENVIRONMENTS),
        ("tf-pip tf-mkl", ("tf-mkl", "tf-pip")),
        ("tf-mkl,tf-mkl", ("tf-mkl",)),
        (" tf-gpu ", ("tf-gpu",)),
    ],
)
def test_a_part_is_asked_for_by_name(words: str, found: tuple[str, ...]) -> None:
    assert course.environments_of(words) == found


def test_an_environment_that_the_recipe_does_not_have_is_named() -> None:
    with pytest.raises(DemoError, match="'torch' is not in the recipe; it has tf-gpu, tf-mkl, tf-pip"):
        course.environments_of("tf-mkl torch")


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say that an image with these environments was built."""

    def made(*environments: str) -> None:
        directory = tmp_path / "course"
        directory.mkdir()
        (directory / "container.sif").touch()
        (directory / "environments").write_text(" ".join(environments))
        monkeypatch.setattr(course, "IMAGE", directory / "container.sif")

    return made


def laid_over(site: Site) -> Site:
    return load({"extends": "snowy", **course.over(site)})


def test_a_site_gets_the_places_of_the_image(image: Any) -> None:
    image(*course.ENVIRONMENTS)
    mine = laid_over(load("snowy"))
    assert {name: (entry.kind, entry.prefix) for name, entry in mine.environments.items()} == {
        name: ("prefix", f"/opt/envs/{name}") for name in course.ENVIRONMENTS
    }
    assert mine.environments["tf-gpu"].gpu
    assert mine.defaults == load("snowy").defaults


def test_what_a_part_does_not_have_is_not_offered(image: Any) -> None:
    image("tf-mkl", "tf-pip")
    mine = laid_over(load("snowy"))
    assert list(mine.environments) == ["tf-mkl", "tf-pip"]
    assert (mine.defaults.environment, mine.defaults.gpu) == ("tf-mkl", "none")
    assert list(mine.presets) == ["mkl", "pip"]  # the card for the GPU is one for tf-gpu, by default


def test_a_site_with_other_environments_is_refused(image: Any) -> None:
    image("tf-mkl")
    other = load({"extends": "snowy", "environments": {"tf-mkl": None}, "presets": {"mkl": None}})
    with pytest.raises(DemoError, match="--image course: it has tf-mkl, and the Site tf-gpu, tf-pip"):
        course.over(other)


def test_a_site_with_other_environments_gets_the_small_image_by_itself(image: Any, tmp_path: Path) -> None:
    image("tf-mkl")
    site = tmp_path / "other.yaml"
    site.write_text("extends: snowy\nenvironments: {tf-mkl: null}\npresets: {mkl: null}\n")
    for name, expected in (("snowy", course.IMAGE.parent.name), (str(site), "image-")):
        made = Cluster(tmp_path / "state", site=name, image="auto")
        assert made.image.parent.name.startswith(expected)


def test_a_link_in_place_of_what_was_built_is_not_followed(tmp_path: Path) -> None:
    secret, made, final = tmp_path / "secret", tmp_path / "container.sif", tmp_path / "final.sif"
    secret.write_text("root's")
    made.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        course._take(made, final)
    assert not final.exists()
    made.unlink()
    made.write_bytes(b"SIF")
    course._take(made, final)
    assert final.read_bytes() == b"SIF"


def test_without_an_image_nothing_is_said_to_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(course, "IMAGE", tmp_path / "container.sif")
    assert course.built() == ()


# The exercise.


@pytest.fixture
def lesson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The notebooks' module, in a student's directory. It sets a variable of TensorFlow's."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("lesson", course.EXERCISE / "lesson.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(lesson: ModuleType, **said: Any) -> dict[str, Any]:
    plain = {"environment": "tf-mkl", "gpu": "none", "cores": 1, "dense_layers": 3, "seconds_per_epoch": "2.000"}
    return {**dict.fromkeys(lesson.COLUMNS, ""), **plain, **said}


def test_rows_of_sessions_side_by_side_are_kept(lesson: ModuleType) -> None:
    for cores in (1, 2):
        lesson.add(row(lesson, cores=cores, gpu="NVIDIA T4, NVIDIA T4"))
    with open(lesson.TIMINGS, newline="") as lines:
        assert list(csv.DictReader(lines).fieldnames or ()) == list(lesson.COLUMNS)
    assert [(each["cores"], each["gpu"]) for each in lesson.timings()] == [
        (1, "NVIDIA T4, NVIDIA T4"),
        (2, "NVIDIA T4, NVIDIA T4"),
    ]


def test_a_row_that_is_no_timing_is_passed_over(lesson: ModuleType) -> None:
    lesson.add(row(lesson))
    with open(lesson.TIMINGS, "a") as out:
        out.write("a student's remark\n\n" + ",".join(["x"] * len(lesson.COLUMNS)) + "\n")
    lesson.add(row(lesson, cores=4))
    assert [each["cores"] for each in lesson.timings()] == [1, 4]


def test_without_timings_the_first_notebook_is_named(lesson: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"run 1-train\.ipynb first"):
        lesson.timings()


def test_the_quickest_of_the_same_counts(lesson: ModuleType) -> None:
    lesson.add(row(lesson, seconds_per_epoch="3.0"))
    lesson.add(row(lesson, seconds_per_epoch="2.5"))
    lesson.add(row(lesson, seconds_per_epoch="1.0", cores=4))
    lesson.add(row(lesson, seconds_per_epoch="9.0", gpu="NVIDIA T4"))
    lesson.add(row(lesson, seconds_per_epoch="1.5", dense_layers=2))
    assert lesson.best(lesson.timings()) == {
        ("tf-mkl", False, 3): {1: 2.5, 4: 1.0},
        ("tf-mkl", True, 3): {1: 9.0},
        ("tf-mkl", False, 2): {1: 1.5},
    }


@pytest.mark.parametrize("name", ["1-train.ipynb", "2-compare.ipynb"])
def test_notebooks_are_in_the_repository_without_output(name: str) -> None:
    notebook = json.loads((course.EXERCISE / name).read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        assert cell["source"]
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
