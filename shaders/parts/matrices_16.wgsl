// matrices_16 · a subgroup's cooperative matrices, 16 × 16: factors of f16, 2 × 2 of sums in f32
//
// gives: LeftMatrix, RightMatrix, Matrices

alias LeftMatrix = coop_mat16x16<f16, A>;
alias RightMatrix = coop_mat16x16<f16, B>;
alias Matrices = array<coop_mat16x16<f32, C>, 4>;
