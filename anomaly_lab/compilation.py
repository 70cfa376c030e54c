"""torch.compile, where it works."""

import logging

import torch
from torch import nn

log = logging.getLogger(__name__)


def compile_networks(method: nn.Module, device: str) -> None:
    """Have kernels made for each network of a method at its first call, or say why not and leave them as they are."""
    try:
        torch.compile(torch.sin)(torch.ones(4, device=device))
    except Exception as error:  # a missing compiler, library or header: each raises its own
        log.warning("trainer.compile: torch.compile does not work here (%s); runs uncompiled", type(error).__name__)
        return
    torch._dynamo.config.suppress_errors = True  # a network that cannot be compiled runs as it is
    for network in method.children():
        network.compile()
