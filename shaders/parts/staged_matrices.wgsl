// staged_matrices · LEFT·RIGHTᵀ by cooperative matrices, DEPTH steps at a time
//
// needs: SIZE, DEPTH, TILE_M, TILE_N, STEP_FOURS, COLUMN_FOURS, AT_COLUMNS, staged, Matrices
// needs: LeftMatrix, RightMatrix, stage_halves_LEFT, stage_halves_RIGHT, RIGHT_K_MAJOR
// gives: add_LEFT_RIGHT
//
// matrices += LEFT·RIGHTᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col`
// are the tile's first, `own` says which subgroup of the tile this is. All threads of a workgroup
// call this. Matrices are those of 2 × 2 places side by side, row by row.

fn add_LEFT_RIGHT(
    matrices: ptr<function, Matrices>, token: u32, col: u32, depth: u32, thread: u32,
    own: vec2<u32>,
) {
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_halves_LEFT(0u, token, TILE_M, first, depth, true, thread);
        stage_halves_RIGHT(AT_COLUMNS, col, TILE_N, first, depth, RIGHT_K_MAJOR, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let row = own.x * 2u * SIZE * STEP_FOURS + k / 4u;
            let next_row = row + SIZE * STEP_FOURS;
            let left = coopLoadT<LeftMatrix>(&staged[row], STEP_FOURS);
            let next_left = coopLoadT<LeftMatrix>(&staged[next_row], STEP_FOURS);
            // Indices and strides are named: naga 30 panics over a stride that is a sum.
            var right: RightMatrix;
            var next_right: RightMatrix;
            if (RIGHT_K_MAJOR) {
                let column = AT_COLUMNS + own.y * 2u * SIZE * STEP_FOURS + k / 4u;
                let next_column = column + SIZE * STEP_FOURS;
                right = coopLoad<RightMatrix>(&staged[column], STEP_FOURS);
                next_right = coopLoad<RightMatrix>(&staged[next_column], STEP_FOURS);
            } else {
                let column = AT_COLUMNS + k * COLUMN_FOURS + own.y * 2u * (SIZE / 4u);
                let next_column = column + SIZE / 4u;
                right = coopLoadT<RightMatrix>(&staged[column], COLUMN_FOURS);
                next_right = coopLoadT<RightMatrix>(&staged[next_column], COLUMN_FOURS);
            }
            (*matrices)[0] = coopMultiplyAdd(left, right, (*matrices)[0]);
            (*matrices)[1] = coopMultiplyAdd(left, next_right, (*matrices)[1]);
            (*matrices)[2] = coopMultiplyAdd(next_left, right, (*matrices)[2]);
            (*matrices)[3] = coopMultiplyAdd(next_left, next_right, (*matrices)[3]);
        }
        workgroupBarrier();
    }
}
