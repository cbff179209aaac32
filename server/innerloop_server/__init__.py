"""The innerloop server: task families, learners, sessions, scores and the processes they run in."""

import os as _os

# MKL picks kernels by batch size and by how arrays happen to lie in memory, so that a session's result would depend on
# its company. A fixed instruction set stops that (Intel: conditional numerical reproducibility). It is read at the
# first product, hence here, before anything computes (docs/decisions/0005).
_os.environ.setdefault("MKL_CBWR", "AVX2")
