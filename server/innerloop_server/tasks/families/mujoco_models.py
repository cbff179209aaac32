"""Robots whose model is hidden: masses, inertia, damping and friction scaled, as in rand_param_envs and PEARL.

https://github.com/dennisl88/rand_param_envs
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.tasks.families.mujoco_tools import MujocoFamily, MujocoTask, gymnasium_terms

LIMIT = 3.0
"""Exponents are uniform on [-LIMIT, LIMIT], so multipliers are log-uniform."""
BASES: Mapping[str, tuple[str, float]] = {
    "mass_exponent": ("body_mass", 1.5),
    "inertia_exponent": ("body_inertia", 1.5),
    "damping_exponent": ("dof_damping", 1.3),
    "friction_exponent": ("geom_friction", 1.5),
}
"""Parameter -> the field of MuJoCo's model that it scales, and the base that it is an exponent of."""
SCALING = (
    "Hidden, each uniform on [-3, 3]: mass_exponent and inertia_exponent, one a body, which multiply its mass and "
    "inertia by 1.5 ** exponent; damping_exponent, one a joint, by 1.3 ** exponent; friction_exponent, one a geom and "
    "the floor, by 1.5 ** exponent: the ranges of rand_param_envs and PEARL, multipliers in [0.30, 3.38] and [0.46, "
    "2.20]. They draw one factor for each axis of an inertia and each kind of friction, of which only the pitch axis "
    "and sliding matter here, and leave what MuJoCo derives from masses (inverse weights) as it was; here it is "
    "computed anew."
)
"""For the families' descriptions."""


class ScaledModel(MujocoTask):
    """A robot with a model scaled by hidden factors and Gymnasium's own reward."""

    def __init__(self, env: gymnasium.Env[Array, Array], parameters: Arrays) -> None:
        """Args:
        env: freshly made: its model is what the factors multiply.
        parameters: see :data:`BASES`; each scales the last rows of its field, leaving out the world and free joints.
        """
        model: Any = env.unwrapped.model  # type: ignore[attr-defined]
        self._compiled = {field: getattr(model, field).copy() for field, _ in BASES.values()}
        super().__init__(env, parameters)

    def set_task(self, parameters: Arrays) -> None:
        """Scale the model as it was compiled, whatever it was scaled by before."""
        import mujoco

        model: Any = self.unwrapped.model  # type: ignore[attr-defined]
        for name, (field, base) in BASES.items():
            scaled = self._compiled[field].copy()
            exponents = np.asarray(parameters[name], np.float64)
            rows = scaled[len(scaled) - len(exponents) :]
            rows *= (base**exponents).reshape(-1, *(1,) * (scaled.ndim - 1))
            getattr(model, field)[:] = scaled
        mujoco.mj_setConst(model, mujoco.MjData(model))

    def terms(self, action: Array, info: Mapping[str, Any]) -> dict[str, float]:  # noqa: ARG002 - all is Gymnasium's
        """Gymnasium's: velocity, bonus, control cost."""
        return gymnasium_terms(info, "forward", "survive", "ctrl")


class ScaledModelFamily(MujocoFamily):
    """A robot whose model's factors are hidden."""

    bodies: ClassVar[int]
    """Without the world."""
    joints: ClassVar[int]
    """Those with damping."""
    geoms: ClassVar[int]
    """The floor included."""
    task_type = ScaledModel

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """The exponents, see :data:`BASES`."""
        sizes = (self.bodies, self.bodies, self.joints, self.geoms)
        return gymnasium.spaces.Dict(
            {
                name: gymnasium.spaces.Box(-LIMIT, LIMIT, (size,), np.float64)
                for name, size in zip(BASES, sizes, strict=True)
            }
        )
