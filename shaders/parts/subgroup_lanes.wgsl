// subgroup_lanes · how the SUBGROUP threads of a subgroup share a tile
//
// needs: SUBGROUP, SLICES, TILE_TOKENS
// gives: ACROSS, SPREAD, SHARES
//
// ACROSS of them have columns of their own, and SLICES share a sum. Of a tile's words of x (four
// steps of one token, for each slice) each thread reads SHARES.

const ACROSS = SUBGROUP / SLICES;
const SPREAD = min(SUBGROUP, TILE_TOKENS * SLICES);
const SHARES = TILE_TOKENS * SLICES / SPREAD;
