"""Checkpoints: only those of the recipe asked for, and only whole ones."""

import _codecs
import io
import shutil
import zipfile
from itertools import count
from pathlib import Path

import pytest
import torch

import anomaly_lab
from anomaly_lab.errors import ConfigError, RunError
from anomaly_lab.methods.nearest import Nearest
from anomaly_lab.runs import checkpoints
from anomaly_lab.runs.checkpoints import built_for, read_checkpoint
from tests.runs.small_runs import tiny_draem
from tests.support.runs import ran
from tests.support.trees import mvtec_tree


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_named(tmp_path):
    tree = mvtec_tree(tmp_path / "data", size=(64, 64))
    _, first = ran(tmp_path, *tiny_draem(tree))
    _, other = ran(tmp_path, *tiny_draem(tree), "model.learning_rate=1e-3")
    shutil.copy(other / "model.ckpt", first / "model.ckpt")
    with pytest.raises(RunError, match=r"model\.ckpt: was trained with another recipe"):
        anomaly_lab.load(first)
    (first / "model.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"model\.ckpt: is no readable checkpoint"):
        anomaly_lab.load(first)


def test_a_checkpoint_of_the_right_hash_with_other_content_is_one_line(tmp_path):
    tree = mvtec_tree(tmp_path / "data", size=(64, 64))
    _, path = ran(tmp_path, *tiny_draem(tree))
    file = path / "model.ckpt"
    good = torch.load(file, weights_only=True)
    name, weight = next((name, value) for name, value in good["state_dict"].items() if value.dim() == 4)
    for content, said in (
        ([1], "is no checkpoint, but a list"),
        ({"training_hash": good["training_hash"]}, "has no state_dict"),
        (good | {"state_dict": [1]}, "has no state_dict"),
        (good | {"state_dict": good["state_dict"] | {name: 1}}, f"{name} is no tensor"),
        (
            good | {"state_dict": good["state_dict"] | {name: weight * float("nan")}},
            f"{name} has values that are not finite",
        ),
        (
            good | {"state_dict": good["state_dict"] | {name: weight[:1]}},
            rf"does not fit the method \(size mismatch for {name}: .*\)",
        ),
        (good | {"state_dict": {}}, r"does not fit the method \(.*\)"),
        (
            good | {"state_dict": good["state_dict"] | {"no.such_": weight}},
            r"does not fit the method \(.*\)",
        ),
        (good | {"training_hash": ["a", "b"]}, r"was trained with another recipe .*"),
    ):
        torch.save(content, file)
        with pytest.raises(RunError, match=rf"^{file}: {said}; remove it to train again$") as caught:
            anomaly_lab.load(path)
        assert "\n" not in str(caught.value)
    (path / "manifest.json").write_text((path / "manifest.json").read_text().replace('"done"', '"running"'))
    torch.save(good | {"loops": []}, path / "resume.ckpt")
    file.unlink()
    with pytest.raises(RunError, match=r"resume\.ckpt: does not say how far the training was; remove it"):
        ran(tmp_path, *tiny_draem(tree))


def packed(file: Path) -> None:
    """Write the records again, deflated, so that they take more when read than the file has bytes."""
    with zipfile.ZipFile(file) as kept:
        records = {name: kept.read(name) for name in kept.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as again:
        for name, data in records.items():
            again.writestr(name, data)


def test_a_checkpoint_takes_no_more_memory_than_it_has_bytes(tmp_path):
    file = tmp_path / "model.ckpt"
    one = torch.zeros(1)
    for state, said in (
        ({"a": one.expand(10**7, 10**7)}, r"says more numbers than its \d+ bytes hold"),
        (dict.fromkeys("ab", torch.zeros(9000)), ""),  # one weight by two names
        (dict.fromkeys("abcdef", torch.zeros(9000)), r"says more numbers than its \d+ bytes hold"),
        ({"a": torch.zeros(10**6, device="meta")}, "a does not hold its numbers"),
        ({"a": torch.zeros(9).to_sparse()}, "a does not hold its numbers"),
    ):
        torch.save({"training_hash": "h", "state_dict": state}, file)
        if said:
            with pytest.raises(RunError, match=rf"^{file}: {said}; remove it to train again$"):
                read_checkpoint(file, "h")
        else:
            assert read_checkpoint(file, "h")["state_dict"].keys() == state.keys()
    torch.save({"training_hash": "h", "state_dict": {"a": torch.zeros(9000)}}, file)
    packed(file)
    with pytest.raises(RunError, match=rf"^{file}: is packed, so no run wrote it; remove it"):
        read_checkpoint(file, "h")


def test_a_network_that_is_not_that_of_the_weights_takes_no_memory(tmp_path):
    tree = mvtec_tree(tmp_path / "data", size=(64, 64))
    _, path = ran(tmp_path, *tiny_draem(tree))
    text = (path / "config.yaml").read_text()
    for width in (10**5, 10**9):  # of which one convolution alone would take 360 GB and more than can be said
        (path / "config.yaml").write_text(
            text.replace("reconstructive_width: 8", f"reconstructive_width: {width}")
        )
        with pytest.raises(RunError, match=f"size mismatch .*{width}|overflow.*{width}") as caught:
            anomaly_lab.load(path)
        assert "\n" not in str(caught.value)


def no_more(method: object) -> None:
    """Ask nothing of a method that was built without memory, but that the weights fit."""


def saved(file: Path, **state: torch.Tensor) -> Path:
    torch.save({"training_hash": "h", "state_dict": state}, file)
    return file


def test_a_network_of_too_many_parts_is_not_built_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MOST_PARTS", 5)
    file = saved(tmp_path / "model.ckpt", bank_=torch.zeros(2, 3))
    assert torch.equal(built_for(Nearest, file, "h", outline=no_more).bank_, torch.zeros(2, 3))
    with pytest.raises(
        RunError, match=rf"^{file}: does not fit the method \(its config asks for over 5 layers"
    ):
        built_for(
            lambda: torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in count())), file, "h", outline=no_more
        )
    assert len(torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(9)))) == 9  # built elsewhere


def test_weights_of_another_type_are_refused(tmp_path):
    for other in (torch.float64, torch.int64, torch.complex64, torch.bfloat16):
        file = saved(tmp_path / "model.ckpt", bank_=torch.zeros(2, 3, dtype=other))
        with pytest.raises(
            RunError, match=rf"does not fit the method \(bank_ of {other}, not torch.float32\)"
        ):
            built_for(Nearest, file, "h", outline=no_more)


def test_it_says_which_weight_is_missing(tmp_path):
    file = saved(tmp_path / "model.ckpt")
    with pytest.raises(RunError, match=r'does not fit the method \(Missing key\(s\) .*"bank_"'):
        built_for(Nearest, file, "h", outline=no_more)


class Called:
    """Makes a file that calls a function of a number."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, (2**20,)


def hostile(file, function=bytearray, **how):
    torch.save({"training_hash": "h", "state_dict": {}, "more": Called(function)}, file, **how)
    return file


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (bytearray, "__builtin__ bytearray"),
        (torch.FloatTensor, "torch FloatTensor"),
        (torch.Tensor, "torch._tensor Tensor|torch Tensor"),
        (torch.UntypedStorage, "torch.storage UntypedStorage"),
        (_codecs.encode, "_codecs encode"),  # of "hex" in itself it doubles without end
    ],
)
def test_a_file_that_makes_memory_of_a_number_is_refused_before_it_is_read(
    function, said, tmp_path, monkeypatch
):
    """Four bytes can ask for any number, of functions that torch itself lets a file call."""
    file = hostile(tmp_path / "model.ckpt", function)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(RunError, match=rf"^{file}: names ({said}), so no run wrote it"):
        read_checkpoint(file, "h")


def in_capitals(file):
    """torch finds the record all the same."""
    hostile(file)
    file.write_bytes(file.read_bytes().replace(b"data.pkl", b"DATA.PKL"))
    assert len(torch.load(file, weights_only=True)["more"]) == 2**20


def in_the_old_form(file):
    """torch reads its head, and Python's zipfile its tail."""
    hostile(file, _use_new_zipfile_serialization=False)
    harmless = io.BytesIO()
    torch.save({}, harmless)
    file.write_bytes(file.read_bytes() + harmless.getvalue())
    assert len(torch.load(file, weights_only=True)["more"]) == 2**20


def twice(file):
    hostile(file)
    with zipfile.ZipFile(file, "a") as records:
        records.writestr("more/data.pkl", records.read("model/data.pkl"))


def listed_twice(file):
    """zipfile takes the list before the end, torch the one at the place that the end names."""
    hostile(file)
    harmless = io.BytesIO()
    torch.save({}, harmless)
    file.write_bytes(file.read_bytes() + harmless.getvalue())


def by_two_names(file):
    torch.save({"training_hash": "h", "state_dict": {}, "more": torch.zeros(4)}, file)
    file.write_bytes(file.read_bytes().replace(b"/data/0", b"/data/a"))


@pytest.mark.parametrize("made", [in_capitals, in_the_old_form, twice, listed_twice, by_two_names])
def test_a_form_that_torch_reads_otherwise_than_it_is_looked_at_is_refused(made, tmp_path, monkeypatch):
    file = tmp_path / "model.ckpt"
    made(file)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(
        RunError,
        match=rf"^{file}: (has not one record|is no readable checkpoint|has a record that).*, so no run",
    ):
        read_checkpoint(file, "h")


def test_plain_things_that_a_method_of_ones_own_keeps_are_read(tmp_path):
    file = tmp_path / "model.ckpt"
    more = {
        "set": {1, 2},
        "complex": 1j,
        "dtype": torch.bfloat16,
        "size": torch.Size([2]),
    }
    torch.save({"training_hash": "h", "state_dict": {}} | more, file)
    assert read_checkpoint(file, "h").items() >= more.items()


def test_what_the_outline_of_a_method_refuses_is_not_built_in_earnest(tmp_path):
    file = saved(tmp_path / "model.ckpt", bank_=torch.zeros(2, 3))
    built = []

    def build():
        built.append(torch.empty(0).device.type)
        return Nearest()

    def outline(method):
        raise ConfigError("data.image_size: too large")

    with pytest.raises(ConfigError, match="too large"):
        built_for(build, file, "h", outline=outline)
    assert built == ["meta"]
