"""The constraints of make lowest: the floors of pyproject.toml, all of them, as they stand there."""

import tomllib

import pytest
from packaging.requirements import Requirement

from tests.support.floors import PYPROJECT, floors


def test_each_direct_dependency_is_held_to_its_floor():
    told = tomllib.loads(PYPROJECT.read_text())["project"]
    wanted = [Requirement(one) for one in (*told["dependencies"], *told["optional-dependencies"]["dev"])]
    found = {one.name: one.specifier for one in map(Requirement, floors(PYPROJECT, ["dev"]))}
    assert found.keys() == {one.name for one in wanted}
    for one in wanted:
        (exact,) = found[one.name]
        assert exact.operator == "=="
        assert exact.version in one.specifier
        assert f">={exact.version}" in str(one.specifier)
    assert {*floors(PYPROJECT, [])} < {*floors(PYPROJECT, ["dev"])}


@pytest.mark.parametrize(
    ("dependencies", "extra", "problem"),
    [
        ("a", "", "a: give one floor"),
        ("a<2", "", "a<2: give one floor"),
        ("a>=1", "a>=2", "a>=2: give one floor, NAME>=VERSION, the same in each list"),
    ],
)
def test_what_has_no_floor_or_two_is_named(dependencies, extra, problem, tmp_path):
    project = tmp_path / "pyproject.toml"
    extras = f"[project.optional-dependencies]\ndev = ['{extra}']" if extra else ""
    project.write_text(f"[project]\ndependencies = ['{dependencies}']\n{extras}")
    with pytest.raises(ValueError, match=problem):
        list(floors(project, ["dev"] if extra else []))


def test_markers_and_extras_are_no_part_of_a_constraint(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text("""[project]
dependencies = ["a_b.c[x,y] >= 1.2, <2, !=1.5 ; python_version < '3.13'", "d>=3"]
optional-dependencies = {dev = ["d>=3", "e>=4.0.1"]}
""")
    assert list(floors(project, ["dev"])) == ["a_b.c==1.2", "d==3", "e==4.0.1"]
