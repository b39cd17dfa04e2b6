"""The projections as pure functions, for libraries that want no objects.

Each is that of the set of its name, with the parameters of the set, as in
``project_max_norm(w, max_value, *, axis)``. They check the array but not the parameters, which may
be arrays that are traced: radii that are learned, or come from a schedule inside compiled code.
"""

from normconstraints.sets.affine import project_affine
from normconstraints.sets.birkhoff import project_birkhoff
from normconstraints.sets.box import project_box
from normconstraints.sets.capped_simplex import project_capped_simplex
from normconstraints.sets.circulant import project_circulant
from normconstraints.sets.conv_operator_ball import project_conv_operator_ball
from normconstraints.sets.correlation import project_correlation
from normconstraints.sets.fixed_norm import project_fixed_norm
from normconstraints.sets.fixed_sum import project_fixed_sum
from normconstraints.sets.group_l1_ball import project_group_l1_ball
from normconstraints.sets.group_top_k import project_group_top_k
from normconstraints.sets.half_space import project_half_space
from normconstraints.sets.hyperplane import project_hyperplane
from normconstraints.sets.l1_ball import project_l1_ball
from normconstraints.sets.l1_inf_ball import project_l1_inf_ball
from normconstraints.sets.l1_sphere import project_l1_sphere
from normconstraints.sets.linf_ball import project_linf_ball
from normconstraints.sets.mask import project_mask
from normconstraints.sets.max_norm import project_max_norm
from normconstraints.sets.max_rank import project_max_rank
from normconstraints.sets.min_max_norm import project_min_max_norm
from normconstraints.sets.min_norm import project_min_norm
from normconstraints.sets.monotone import project_monotone
from normconstraints.sets.n_of_m import project_n_of_m
from normconstraints.sets.non_neg import project_non_neg
from normconstraints.sets.non_neg_unit_norm import project_non_neg_unit_norm
from normconstraints.sets.non_pos import project_non_pos
from normconstraints.sets.nuclear_ball import project_nuclear_ball
from normconstraints.sets.orthogonal import project_orthogonal
from normconstraints.sets.positive_semidefinite import project_positive_semidefinite
from normconstraints.sets.second_order_cone import project_second_order_cone
from normconstraints.sets.sign_pattern import project_sign_pattern
from normconstraints.sets.simplex import project_simplex
from normconstraints.sets.singular_values import project_singular_values
from normconstraints.sets.skew_symmetric import project_skew_symmetric
from normconstraints.sets.slab import project_slab
from normconstraints.sets.solid_simplex import project_solid_simplex
from normconstraints.sets.sparse_simplex import project_sparse_simplex
from normconstraints.sets.special_orthogonal import project_special_orthogonal
from normconstraints.sets.spectral_ball import project_spectral_ball
from normconstraints.sets.spectral_sphere import project_spectral_sphere
from normconstraints.sets.spectraplex import project_spectraplex
from normconstraints.sets.symmetric import project_symmetric
from normconstraints.sets.tied import project_tied
from normconstraints.sets.toeplitz import project_toeplitz
from normconstraints.sets.top_k import project_top_k
from normconstraints.sets.transport import project_transport
from normconstraints.sets.triangular import project_triangular
from normconstraints.sets.unit_norm import project_unit_norm
from normconstraints.sets.unit_rms import project_unit_rms
from normconstraints.sets.weighted_l1_ball import project_weighted_l1_ball
from normconstraints.sets.zero_mean import project_zero_mean

__all__ = [
    "project_affine",
    "project_birkhoff",
    "project_box",
    "project_capped_simplex",
    "project_circulant",
    "project_conv_operator_ball",
    "project_correlation",
    "project_fixed_norm",
    "project_fixed_sum",
    "project_group_l1_ball",
    "project_group_top_k",
    "project_half_space",
    "project_hyperplane",
    "project_l1_ball",
    "project_l1_inf_ball",
    "project_l1_sphere",
    "project_linf_ball",
    "project_mask",
    "project_max_norm",
    "project_max_rank",
    "project_min_max_norm",
    "project_min_norm",
    "project_monotone",
    "project_n_of_m",
    "project_non_neg",
    "project_non_neg_unit_norm",
    "project_non_pos",
    "project_nuclear_ball",
    "project_orthogonal",
    "project_positive_semidefinite",
    "project_second_order_cone",
    "project_sign_pattern",
    "project_simplex",
    "project_singular_values",
    "project_skew_symmetric",
    "project_slab",
    "project_solid_simplex",
    "project_sparse_simplex",
    "project_special_orthogonal",
    "project_spectral_ball",
    "project_spectral_sphere",
    "project_spectraplex",
    "project_symmetric",
    "project_tied",
    "project_toeplitz",
    "project_top_k",
    "project_transport",
    "project_triangular",
    "project_unit_norm",
    "project_unit_rms",
    "project_weighted_l1_ball",
    "project_zero_mean",
]
