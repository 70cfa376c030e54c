"""Files that hold many images are unpacked once, into PNG files that lie by class."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from anomaly_lab.data.content import content_hashes
from anomaly_lab.data.sets.one_class.containers import Labelled
from anomaly_lab.errors import DataError


class Container(NamedTuple):
    """A part of a data set, as it is published."""

    name: str  # of the data set and its part, such as mnist/train
    files: Sequence[Path]  # that hold it
    classes: Sequence[str]  # their names, by their numbers
    read: Callable[[], Labelled]  # gives all of its images


def unpacked(written: str, container: Container, wanted: Sequence[str]) -> list[Path]:
    """Return the folder of each class that is wanted, after it was written if it was not there.

    It is WRITTEN/NAME-HASH/CLASS, with HASH of what the files hold, so that other files have other folders;
    an image is called by its place among all of them. A folder is written whole or not at all.

    Raises:
        DataError: a file is missing, cannot be read or holds something else, or nothing can be written.
    """
    digest = hashlib.blake2b("".join(content_hashes(container.files)).encode(), digest_size=4).hexdigest()
    top = Path(written).expanduser() / f"{container.name}-{digest}"
    folders = [top / name for name in wanted]
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        images, classes = container.read()
        if not 0 <= classes.min(initial=0) <= classes.max(initial=0) < len(container.classes):
            known = f"0 to {len(container.classes) - 1}"
            files = ", ".join(file.name for file in container.files)
            raise DataError(f"{container.files[0].parent}: {files}: a class is none of {known}; replace them")
        for folder in missing:
            of_class = np.flatnonzero(classes == container.classes.index(folder.name))
            _write(folder, {int(place): images[place] for place in of_class})
    return folders


def _write(folder: Path, images: dict[int, np.ndarray]) -> None:
    """Write uint8 images, (H, W) or (H, W, 3) RGB, into a folder that appears once all are there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            for place, image in images.items():
                content = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])[1]
                (draft / f"{place:05d}.png").write_bytes(content.tobytes())
            draft.chmod(0o755)
            if not folder.is_dir():  # of another run that was faster
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():
            way_out = "give data.written=FOLDER"
            raise DataError(f"{folder}: cannot be written ({error.strerror}); {way_out}") from error
