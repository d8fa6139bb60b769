// matrices_8 · a subgroup's cooperative matrices, 8 × 8: factors of f16, 2 × 2 of sums in f32
//
// gives: LeftMatrix, RightMatrix, Matrices

alias LeftMatrix = coop_mat8x8<f16, A>;
alias RightMatrix = coop_mat8x8<f16, B>;
alias Matrices = array<coop_mat8x8<f32, C>, 4>;
