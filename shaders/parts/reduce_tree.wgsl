// reduce_tree · adds the sums that several threads have parts of
//
// needs: Tile, TILE_TOKENS, LANES_M, LANES_N, LANES_K
// gives: reduce_tree
//
// LANES_K threads, a power of two, have a part of each sum of the workgroup's tile, of four columns
// a token. Round by round the upper half of them hands its parts to the lower one; in the end lane
// 0 has the sums. The order is the tree's, whoever comes first. Every thread of the workgroup calls
// this.

const TREE_SUMS = TILE_TOKENS * LANES_M * LANES_N;
// So far apart that the lanes of eight neighbouring threads meet different banks.
const TREE_LANE = TREE_SUMS | LANES_N;
var<workgroup> tree_sums: array<vec4<f32>, TREE_LANE * LANES_K / 2u>;

fn reduce_tree(tile: ptr<function, Tile>, id: vec3<u32>) {
    let quad = id.z * TILE_TOKENS * LANES_N + id.x;
    for (var lower = LANES_K / 2u; lower > 0u; lower /= 2u) {
        if (id.y >= lower && id.y < 2u * lower) {
            for (var m = 0u; m < TILE_TOKENS; m++) {
                tree_sums[(id.y - lower) * TREE_LANE + quad + m * LANES_N] = (*tile)[m];
            }
        }
        workgroupBarrier();
        if (id.y < lower) {
            for (var m = 0u; m < TILE_TOKENS; m++) {
                (*tile)[m] += tree_sums[id.y * TREE_LANE + quad + m * LANES_N];
            }
        }
        workgroupBarrier();
    }
}
