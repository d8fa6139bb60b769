// SUBGROUP threads of which ACROSS have columns of their own, and SLICES share a sum. Of a tile's
// words of x (four steps of one token, for each slice) each thread reads SHARES.
alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;
const ACROSS = SUBGROUP / SLICES;
const SPREAD = min(SUBGROUP, TILE_TOKENS * SLICES);
const SHARES = TILE_TOKENS * SLICES / SPREAD;
