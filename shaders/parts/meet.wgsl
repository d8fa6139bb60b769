// The sums of a workgroup's tile, of which LANES_K threads have a part each, meet in workgroup
// memory: afterwards the first threads have four columns of one token each. Every thread
// of the workgroup calls this. Parts are added in the order of the lanes. Where a sum is shared,
// TILE_FOURS is 1.
alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;
const TILE_M = TILE_TOKENS * LANES_M;
const QUADS = TILE_M * LANES_N;
var<workgroup> room: array<vec4<f32>, QUADS * LANES_K>;

fn meet(tile: ptr<function, Tile>, id: vec3<u32>) -> vec4<f32> {
    for (var m = 0u; m < TILE_TOKENS; m++) {
        room[((id.z * TILE_TOKENS + m) * LANES_N + id.x) * LANES_K + id.y] = (*tile)[m];
    }
    workgroupBarrier();
    // Threads behind the last sum add the first one again, and nobody asks them.
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x;
    let first = select(0u, quad, quad < QUADS) * LANES_K;
    var sum = room[first];
    for (var i = 1u; i < LANES_K; i++) { sum += room[first + i]; }
    return sum;
}
