// row_slab · words from one group of four steps of staged rows to the next
//
// needs: TILE_M
// gives: ROW_SLAB
//
// Two more than the rows: eight threads that store side by side, two rows of four groups, then meet
// eight different groups of banks.

const ROW_SLAB = TILE_M + 2u;
