"""Revisions: from a resource name to weights on the device."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch

from innerloop_server.adaptation.inner_loop import LoadedRevision
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.errors import DataLoss
from innerloop_server.learners.registry import build


def load(ref: RevisionRef, device: torch.device) -> LoadedRevision:
    """Read a revision's weights and bind its learner.

    Raises:
        DataLoss: the file is gone, or its bytes do not match the hash.
        InvalidField: the spec names a method or settings that this version does not know.
    """
    try:
        data = Path(ref.path).read_bytes()
    except OSError as error:
        raise DataLoss(f"the weights of {ref.name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != ref.hash:
        raise DataLoss(f"the weights of {ref.name} do not match their hash")
    meta = {name: value.to(device) for name, value in safetensors.torch.load(data).items()}
    return LoadedRevision(ref, build(ref.spec), meta)
