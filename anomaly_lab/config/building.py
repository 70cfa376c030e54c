"""What Hydra 1.3 and 1.4 do differently, and building what a node of the config names."""

from functools import partial
from typing import Any

import hydra.utils
from omegaconf import DictConfig

utils: Any = hydra.utils
SINCE_1_4 = hasattr(utils, "execution_whitelist")
# 1.4 warns of a version_base, 1.3 of none.
VERSION_BASE: dict[str, Any] = {} if SINCE_1_4 else {"version_base": "1.3"}
# 1.4 warns where a stored config is stored again.
AGAIN: dict[str, Any] = {"replace": True} if SINCE_1_4 else {}

# config/schema.py has looked at every _target_ before anything is built, more strictly than Hydra, which
# warns where it is given no list.
instantiate = (
    partial(utils.instantiate, _execution_whitelist_=utils.UNSAFE_DISABLE_EXECUTION_CHECKS)
    if SINCE_1_4
    else utils.instantiate
)


def built(node: DictConfig) -> Any:
    """Return what a node of the config names, built from plain lists and dicts."""
    return instantiate(node, _convert_="all")
