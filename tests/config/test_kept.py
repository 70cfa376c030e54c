"""The config that a run directory keeps: what would run away, or read from elsewhere, is refused."""

import pytest
from omegaconf import OmegaConf

from anomaly_lab.config.kept import read_kept
from anomaly_lab.errors import RunError
from tests.support.runs import composed

BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


def test_what_a_run_writes_is_read_back(tmp_path):
    written = OmegaConf.to_yaml(composed("model=prff_small", "data.category=x"), resolve=True)
    (tmp_path / "config.yaml").write_text(written)
    assert OmegaConf.to_yaml(read_kept(tmp_path / "config.yaml")) == written


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "has an anchor or alias, a0, so"),
        ("a: &self [*self]", "has an anchor or alias, self, so"),
        ("a: {<<: *b}", "has an anchor or alias, b, so"),
        ("seed: 1\nx: ${oc.env:HOME}", r"has \$\{oc\.env:HOME\}, where"),
        ('x: [{y: "a \\x24{seed}"}]', r"has a \$\{seed\}, where"),
        ("${seed}: 1", r"has \$\{seed\}, where"),
        ("x: " + "[" * 50_000, "is nested deeper than 32,"),
        ("x: {" * 50_000, "is nested deeper than 32,"),
        ("x: " + "9" * 5000, r"cannot be read as a config \("),
        ("x: !!python/object/apply:os.system [ls]", r"cannot be read as a config \("),
        ("x: [1", r"cannot be read as a config \("),
        ("- 1", r"cannot be read as a config \(holds no mapping\)"),
        (b"x: \xff\xfe", r"cannot be read \("),
        ("x: " + "y" * 2**18, r"is no file of at most \d+ bytes"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_no_run_writes_is_one_line(content, said, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunError, match=rf"^{file}: {said}") as caught:
        read_kept(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_config_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(RunError, match=r"config\.yaml: is no file"):
        read_kept(tmp_path / "config.yaml")
