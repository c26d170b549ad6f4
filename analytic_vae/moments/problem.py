"""What expectations are of: a source, a layer, atoms and an encoder that fit together; checked once, at the door."""

from dataclasses import replace

import equinox as eqx
from jax.sharding import Mesh

from .._sharding import check_mesh
from ..model.carried_encoder import CarriedEncoder, learnt_part
from ..model.compatibility import check_encoder, check_vectors
from ..model.conditioning import Clusters, clusters_of
from ..model.encoder import AbstractEncoder
from ..model.feature_model import FeatureModel
from ..model.layer import AbstractLayer
from ..spectral.resolution import Resolution
from ..types import Array, Float
from .budget import check_memory, check_units_memory
from .plan import Plan, check_plan
from .units import DenseMoments, check_moments


class Problem(eqx.Module):
    """The arguments of `expectations`, known to fit together, and the clusters of the source (`model/conditioning.py`).

    `atoms: [m2, K]` are the target's. Below the public face nothing checks them again.
    """

    source: FeatureModel
    layer: AbstractLayer
    atoms: Float[Array, "m2 K"]
    encoder: AbstractEncoder
    resolution: Resolution
    plan: Plan | None = None
    moments: DenseMoments | None = None
    mesh: Mesh | None = eqx.field(static=True, default=None)
    vectors: bool = eqx.field(static=True, default=False)
    clusters: Clusters | None = eqx.field(static=True, default=None)

    def checked(self, named: str) -> "Problem":
        """The same, or an error that names the argument; source, layer and the atoms, those of `named`, are known.

        With the clusters of the source.
        """
        source, layer, atoms, resolution = self.source, self.layer, self.atoms, self.resolution
        check_encoder(layer, self.encoder, atoms, named, source)
        check_vectors(self.vectors, atoms.shape[1], named)
        check_moments(self.moments, source, layer, resolution)
        check_mesh(self.mesh)
        if self.learnt is not None:
            check_plan(self.plan, layer, self.learnt, resolution)
            shape = self.learnt.statistics_read, *atoms.shape
            check_memory(source, layer, shape, resolution, self.mesh, self.vectors)
        elif self.plan is not None:
            raise ValueError("plan: expected none, as carried features have no boxes, got one.")
        if self.moments is None and layer.reads_input:
            check_units_memory(source, layer, resolution)
        return replace(self, vectors=bool(self.vectors), clusters=clusters_of(source))

    @property
    def carried(self) -> int:
        """How many features are handed on."""
        return self.encoder.carried if isinstance(self.encoder, CarriedEncoder) else 0

    @property
    def learnt(self) -> AbstractEncoder | None:
        """The encoder of the others."""
        return learnt_part(self.encoder)

    @property
    def learnt_shape(self) -> tuple[int, int, int]:
        """`t`, `m2` and `K` of the others."""
        return self.learnt.statistics_read, len(self.atoms) - self.carried, self.atoms.shape[1]
