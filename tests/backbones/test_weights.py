"""Where weights come from: the bundled ones, a file, the hub; what misfits, and what a file is known by."""

from pathlib import Path

import pytest
import skimage
import timm
import torch
from safetensors.torch import save_file

from anomaly_lab.backbones import weights
from anomaly_lab.backbones.extractor import FeatureExtractor
from anomaly_lab.backbones.weights import BUNDLED, bundled, bundled_weights, weights_identity
from anomaly_lab.errors import ConfigError
from tests.support.features import extractor, noise

IMAGE = noise(0, 3, 64, 48)


def test_the_bundled_weights_know_a_cat():
    """Classes 281 to 285 of ImageNet-1k are the domestic cats; the photograph is of one."""
    network = timm.create_model(BUNDLED)
    network.load_state_dict(bundled())
    cat = torch.from_numpy(skimage.data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None].float() / 255
    cat = torch.nn.functional.interpolate(cat, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        best = network.eval()((cat - 0.5) / 0.5)[0].topk(3).indices.tolist()
    assert set(best) <= {281, 282, 283, 284, 285}


def test_a_file_of_weights_is_read_and_its_first_misfit_named(tmp_path: Path):
    source = timm.create_model("resnet18").state_dict()
    save_file(source, tmp_path / "good.safetensors")
    ours = extractor("resnet18", str(tmp_path / "good.safetensors"), ("layer1",))
    network = timm.create_model("resnet18", features_only=True, out_indices=[1])
    network.load_state_dict(source, strict=False)
    with torch.no_grad():
        (wanted,) = network.eval()((IMAGE - ours.mean) / ours.std)
    torch.testing.assert_close(ours(IMAGE)[0], wanted, rtol=1e-4, atol=1e-4)
    torch.save({k: v for k, v in source.items() if k != "layer1.1.bn1.bias"}, tmp_path / "missing.pth")
    torch.save(source | {"layer1.0.conv1.weight": torch.zeros(64, 64, 5, 5)}, tmp_path / "shape.pth")
    (tmp_path / "no.pth").write_bytes(b"no weights")
    for file, said in (
        ("missing", r"no value for layer1\.1\.bn1\.bias"),
        ("shape", r"size mismatch for layer1\.0\.conv1"),
        ("no", ""),
    ):
        message = rf"{file}\.pth cannot be used \(.*{said}.*model\.safetensors"
        with pytest.raises(ConfigError, match=message) as caught:
            extractor("resnet18", str(tmp_path / f"{file}.pth"), ("layer1",))
        assert "\n" not in str(caught.value)
        assert "weights=bundled" in str(caught.value)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (float("nan"), r"conv1\.weight has values that are not finite"),
        (float("inf"), r"conv1\.weight has values that are not finite"),
        (0.0, "all of its values are 0"),
    ],
)
def test_weights_that_compute_nothing_are_one_line(factor, said, tmp_path):
    source = timm.create_model("resnet18").state_dict()
    spoilt = {key: value * factor if value.is_floating_point() else value for key, value in source.items()}
    torch.save(spoilt, tmp_path / "spoilt.pth")
    with pytest.raises(ConfigError, match=rf"spoilt\.pth cannot be used \({said}\)") as caught:
        extractor("resnet18", str(tmp_path / "spoilt.pth"), ("layer1",))
    assert "\n" not in str(caught.value)


def test_one_value_that_is_not_finite_is_named(tmp_path):
    source = timm.create_model("resnet18").state_dict()
    source["layer1.0.bn2.running_var"][3] = float("inf")
    torch.save(source, tmp_path / "spoilt.pth")
    with pytest.raises(ConfigError, match=r"layer1\.0\.bn2\.running_var has values that are not finite"):
        extractor("resnet18", str(tmp_path / "spoilt.pth"), ("layer1",))


class Running:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return Path.mkdir, (self.folder,)


def test_a_file_of_weights_runs_nothing(tmp_path):
    torch.save({"state_dict": Running(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"weights\.pth"):
        extractor("resnet18", str(tmp_path / "weights.pth"), ("layer1",))
    assert not (tmp_path / "ran").exists()


def test_a_download_that_fails_says_what_to_fetch_and_that_bundled_exists(monkeypatch):
    def closed(*_, **__):
        raise OSError("no route to the hub")

    ours = FeatureExtractor("resnet18.a1_in1k", "imagenet", ("layer1",), "none")
    monkeypatch.setattr(timm, "create_model", closed)
    said = r"no route to the hub.*timm/resnet18\.a1_in1k: model\.safetensors.*bundled"
    with pytest.raises(ConfigError, match=said):
        ours.load_pretrained()


def test_weights_are_named_by_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (weights_identity(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert [weights_identity(word) for word in ("imagenet", "random")] == ["imagenet", "random"]
    assert weights_identity("bundled") == weights_identity(str(bundled_weights()))


def test_no_random_number_hangs_on_whether_a_file_was_looked_at_before(tmp_path, monkeypatch):
    file = tmp_path / "good.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), file)
    monkeypatch.setattr(weights, "_lacking", {})
    drawn = []
    for layers in (("layer1",), ("layer1",), ("layer2",)):
        torch.manual_seed(0)
        extractor("resnet18", str(file), layers)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert len(weights._lacking) == 2  # another choice of layers is another question
