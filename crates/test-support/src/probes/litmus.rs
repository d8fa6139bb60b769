//! Texts that a card is brought up with beside the probes: they leave no vectors, because what they show is
//! order, or nothing.

/// A text that keeps a multiprocessor busy; its entry is `busy(words, turns)`.
pub const BUSY: &str = include_str!("busy.ptx");

/// Turns of a poll after which a flag is not coming any more.
const TURNS: u32 = 1 << 26;
/// Forms of raising a flag, and of waiting for one.
const RAISES: [(&str, &str); 2] = [
    ("st.release", "fence.acq_rel.gpu;\n    st.release.gpu.global.u32 [AT], round;"),
    ("fence and st.relaxed", "fence.acq_rel.gpu;\n    st.relaxed.gpu.global.u32 [AT], round;"),
];
const POLLS: [(&str, &str, &str); 2] = [
    ("ld.acquire", "ld.acquire", ""),
    ("ld.relaxed and fence", "ld.relaxed", "fence.acq_rel.gpu;"),
];

/// The text with one form of each.
fn text(raise: &str, poll: (&str, &str)) -> String {
    let mut text = include_str!("litmus.ptx").to_owned();
    for at in ["flag", "answer"] {
        let (load, fence) = poll;
        let wait = format!(
            "mov.u32 turns, 0;
TURN_{at}:
    {load}.gpu.global.u32 seen, [{at}];
    setp.eq.u32 p, seen, round;
    @p bra SEEN_{at};
    nanosleep.u32 20;
    add.u32 turns, turns, 1;
    setp.lt.u32 p, turns, {TURNS};
    @p bra TURN_{at};
    trap;
SEEN_{at}:
    {fence}"
        );
        text = text.replace(&format!("RAISE({at})"), &raise.replace("AT", at));
        text = text.replace(&format!("POLL({at})"), &wait);
    }
    for words in ["got0, got1, got2, got3", "got4, got5, got6, got7"] {
        let count: Vec<String> = words
            .split(", ")
            .map(|word| format!("setp.ne.u32 p, {word}, value;\n    @p add.u32 bad, bad, 1;"))
            .collect();
        text = text.replace(&format!("COUNT({words})"), &count.join("\n    "));
    }
    text
}

/// `litmus.ptx` with every form of raising a flag and of waiting for it, in words. The entry is
/// `litmus(mail, flags, wrong, rounds)`.
pub fn litmus() -> Vec<(String, String)> {
    let forms = RAISES.into_iter().flat_map(|raise| POLLS.map(|poll| (raise, poll)));
    let of =
        |((raise, by), (poll, load, fence))| (format!("{raise}, {poll}"), text(by, (load, fence)));
    forms.map(of).collect()
}
