// reduce_lanes · adds the sums that several threads have parts of
//
// needs: Tile, TILE_TOKENS, LANES_M, LANES_N, LANES_K
// gives: reduce_lanes, QUADS, lane_sums
//
// LANES_K threads have a part of each sum of the workgroup's tile. The parts go through workgroup
// memory; afterwards the first QUADS threads have four columns of one token each. Every thread of
// the workgroup calls this. Parts are added in the order of the lanes. Where a sum is shared,
// TILE_FOURS is 1.

const QUADS = TILE_TOKENS * LANES_M * LANES_N;
var<workgroup> lane_sums: array<vec4<f32>, QUADS * LANES_K>;

fn reduce_lanes(tile: ptr<function, Tile>, id: vec3<u32>) -> vec4<f32> {
    for (var m = 0u; m < TILE_TOKENS; m++) {
        lane_sums[((id.z * TILE_TOKENS + m) * LANES_N + id.x) * LANES_K + id.y] = (*tile)[m];
    }
    workgroupBarrier();
    // Threads behind the last sum add the first one again, and nobody asks them.
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x;
    let first = select(0u, quad, quad < QUADS) * LANES_K;
    var sum = lane_sums[first];
    for (var i = 1u; i < LANES_K; i++) { sum += lane_sums[first + i]; }
    return sum;
}
