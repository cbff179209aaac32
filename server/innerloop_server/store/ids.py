"""Names nobody can guess."""

from __future__ import annotations

import secrets


def new_id(prefix: str) -> str:
    """A resource id: one letter (``s`` session, ``p`` policy, ``e`` evaluation, ``t`` training) and 80 random bits in
    hexadecimal, such as ``s3f9a0c41d27be8065a1c``. Knowing one id tells nothing about another.
    """
    return prefix + secrets.token_hex(10)
