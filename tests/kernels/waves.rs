//! How full a card's multiprocessors are, by a discrete model without a clock: CTAs draw tickets in the order that the
//! kernel has, a tile takes as long as its steps, a leader longer by its ranks, and a follower waits at its border until its
//! row's leader has published. The table is `waves.txt`; `FUSED_LORA_WAVES_BLESS=1` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;

use fused_lora::{Capabilities, Choice, CudaCapabilities, DType, Launch, Plan, Problem, Strategy};

#[path = "../../kernels/abi.rs"]
#[allow(dead_code, unreachable_pub)]
mod abi;

/// Tokens, in and out features.
const LAYERS: [(&str, [usize; 3]); 6] = [
    ("8192 x 4096²", [8192, 4096, 4096]),
    ("4096 x 1280²", [4096, 1280, 1280]),
    ("Llama k, v", [8192, 4096, 1024]),
    ("Llama gate, up", [8192, 4096, 14336]),
    ("Llama down", [8192, 14336, 4096]),
    ("Llama q, o, 512 tokens", [512, 4096, 4096]),
];
const RANKS: [usize; 2] = [16, 64];
/// Compute capability, multiprocessors, shared bytes a block and a multiprocessor, of which there are cards.
const CARDS: [((u32, u32), u32, u32, u32); 3] = [
    ((8, 0), 108, 166_912, 167_936),
    ((8, 9), 128, 101_376, 102_400),
    ((9, 0), 132, 232_448, 233_472),
];

/// A launch of tiles, in units of the steps of its sum.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    rows: usize,
    columns: usize,
    band: usize,
    ctas: usize,
    /// Of a tile's main loop, and of its border behind it.
    main: f64,
    border: f64,
    /// What a leader's main loop takes for its ranks, in parts of the main loop.
    ranks: f64,
}

/// What a model of a launch comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Filled {
    /// Time at work over CTAs · time of the launch.
    share: f64,
    /// The longest wait of the first wave, over the time of the launch.
    wait: f64,
}

impl Tiles {
    /// Of a launch of leaders.
    fn of(launch: &Launch, [_, _, n]: [usize; 3], rank: usize) -> Tiles {
        let word = |at: usize| {
            let bytes = launch.params[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes) as usize
        };
        let main = word(offset_of!(abi::Linear, main_steps)) as f64;
        let tile_columns = word(offset_of!(abi::Linear, tile_columns));
        // Tiles are 64 or 256 columns wide.
        let wide = if n.div_ceil(256) == tile_columns { 256 } else { 64 };
        Tiles {
            rows: word(offset_of!(abi::Linear, tile_rows)),
            columns: tile_columns,
            band: word(offset_of!(abi::Linear, band)),
            ctas: launch.grid[0] as usize,
            main,
            border: word(offset_of!(abi::Linear, border_steps)) as f64,
            ranks: rank.next_multiple_of(16) as f64 / f64::from(wide),
        }
    }

    /// Row and column of each ticket, as `parts/ticket.ptx` numbers them: leaders of band 0, of band 1, the rest of band 0, …
    fn tickets(&self) -> Vec<[usize; 2]> {
        let bands = self.rows.div_ceil(self.band);
        let rows = |band: usize| band * self.band..self.rows.min((band + 1) * self.band);
        let leaders = |band: usize| rows(band).map(|row| [row, 0]);
        let rest = |band: usize| {
            (1..self.columns).flat_map(move |column| rows(band).map(move |row| [row, column]))
        };
        let mut tickets: Vec<[usize; 2]> = leaders(0).collect();
        for band in 0..bands {
            if band + 1 < bands {
                tickets.extend(leaders(band + 1));
            }
            tickets.extend(rest(band));
        }
        tickets
    }

    /// `ahead`: leaders of band 0 work out shrunk before their own tile, from x and the ranks alone.
    fn filled(&self, ahead: bool) -> Filled {
        let mut free = vec![0.0f64; self.ctas];
        let mut published = BTreeMap::new();
        let (mut work, mut wait) = (0.0, 0.0f64);
        for (ticket, [row, column]) in self.tickets().into_iter().enumerate() {
            let cta = (0..free.len()).min_by(|a, b| free[*a].total_cmp(&free[*b])).expect("some");
            let start = free[cta];
            let ranks = self.main * self.ranks;
            if column == 0 {
                let alone = ahead && row < self.band;
                let at = if alone { start + ranks } else { start + self.main + ranks };
                published.insert(row, at);
                free[cta] = start + self.main + ranks + self.border;
                work += self.main + ranks + self.border;
            } else {
                let there: f64 = published[&row];
                let meets = (start + self.main).max(there);
                if ticket < self.ctas {
                    wait = wait.max(meets - start - self.main);
                }
                free[cta] = meets + self.border;
                work += self.main + self.border;
            }
        }
        let end = free.iter().copied().fold(0.0, f64::max);
        Filled { share: work / (self.ctas as f64 * end), wait: wait / end }
    }
}

/// Every tile once, and no follower before its leader: nobody can wait for a ticket that nobody has drawn.
#[test]
fn a_leader_is_drawn_before_who_waits_for_it() {
    for (rows, columns, band) in [(1, 1, 1), (7, 5, 2), (8, 3, 8), (64, 16, 16), (33, 2, 7)] {
        let (ctas, main, border, ranks) = (4, 8.0, 1.0, 0.1);
        let tiles = Tiles { rows, columns, band, ctas, main, border, ranks };
        let tickets = tiles.tickets();
        let mut sorted = tickets.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((tickets.len(), sorted.len()), (rows * columns, rows * columns));
        for (at, [row, _]) in tickets.iter().enumerate() {
            assert!(tickets[..=at].contains(&[*row, 0]), "{row} of {tiles:?}");
        }
    }
    // One wave of a leader and followers: those wait for its ranks.
    let one = Tiles { rows: 1, columns: 4, band: 1, ctas: 4, main: 10.0, border: 2.0, ranks: 0.5 };
    let filled = one.filled(false);
    assert_eq!(filled.wait, 5.0 / 17.0);
    assert_eq!(filled.share, (3.0 * 12.0 + 17.0) / (4.0 * 17.0));
    assert_eq!(one.filled(true).wait, 0.0);
}

/// What the plans of real layers come to on real cards.
#[test]
fn waves_are_those_of_the_table() {
    let mut table = "layer, rank, multiprocessors: leaders' preset, tiles on CTAs; share of CTAs' time at work, first wave's \
         wait over the launch; the same if band 0's leaders worked out shrunk alone first\n\n"
        .to_owned();
    for (name, [tokens, k, n]) in LAYERS {
        for rank in RANKS {
            for (compute_capability, multiprocessors, shared, of_multiprocessor) in CARDS {
                let mut card = CudaCapabilities::default();
                card.compute_capability = compute_capability;
                card.multiprocessors = multiprocessors;
                card.shared_bytes = shared;
                card.shared_bytes_per_multiprocessor = of_multiprocessor;
                let problem = Problem::forward(tokens, k, n, rank).with_dtype(DType::Bf16);
                let card = Capabilities::Cuda(card);
                let chosen = Plan::new(&problem, &card).unwrap();
                let leader = Choice { strategy: Some(Strategy::Leader), preset: None };
                let plan = Plan::choose(&problem, &card, &leader).unwrap();
                let tiles = Tiles::of(&plan.launches()[0], [tokens, k, n], rank);
                let (now, ahead) = (tiles.filled(false), tiles.filled(true));
                writeln!(
                    table,
                    "{name:<24} r{rank:<3} {multiprocessors}: {}{}, {} on {}; {:.3} {:.3}; {:.3} {:.3}",
                    plan.choice(),
                    if chosen.choice() == plan.choice() { "" } else { " (not chosen)" },
                    tiles.rows * tiles.columns,
                    tiles.ctas,
                    now.share,
                    now.wait,
                    ahead.share,
                    ahead.wait,
                )
                .unwrap();
                assert!(now.share > 0.0 && now.share <= 1.0 && now.wait < 1.0);
                assert!(ahead.wait <= now.wait);
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/waves.txt");
    if std::env::var_os("FUSED_LORA_WAVES_BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    assert_eq!(table, std::fs::read_to_string(path).unwrap(), "FUSED_LORA_WAVES_BLESS=1 writes it");
}
