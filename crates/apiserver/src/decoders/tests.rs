use meta::{Random as _, Seeded};

use super::*;

/// Mutated inputs for each decoder: a second or two of a debug build for all.
const INPUTS: u64 = 400;
/// Longest input that is made.
const BYTES_MAX: usize = 4096;
/// What often is where decoders err.
const ODD: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\\",
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"$",
    b"~",
    b"%",
    b"/../",
    b"*a",
    b"&a ",
    b"null",
    b"-1",
    b"9223372036854775808",
    b"1e999",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b"\n",
    b"  ",
    b"((((",
    b"[[[[",
    b"{{{{",
];

fn world() -> World {
    World { types: kinds::types(), kinds: KINDS }
}

fn below(random: &Seeded, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap()
}

/// One change of an input, or several.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &Seeded) {
    for _ in 0..=random.below(4) {
        let at = below(random, bytes.len() + 1);
        let end = (at + below(random, 16)).min(bytes.len());
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next().to_le_bytes()[0],
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[at..end].repeat(1 + below(random, 8));
                drop(bytes.splice(at..at, again));
            }
            5 => {
                let from = below(random, other.len() + 1);
                drop(bytes.splice(at..end, other[from..].iter().copied().take(64)));
            }
            _ => drop(bytes.splice(at..end, ODD[below(random, ODD.len())].iter().copied())),
        }
    }
    bytes.truncate(BYTES_MAX);
}

fn check(decoder: &Decoder, world: &World, seed: u64) {
    let random = Seeded::new(seed);
    let seeds: Vec<&[u8]> = decoder.seeds.iter().map(|seed| seed.as_bytes()).collect();
    let mut bytes = seeds[below(&random, seeds.len())].to_vec();
    mutate(&mut bytes, seeds[below(&random, seeds.len())], &random);
    let ran = std::panic::catch_unwind(|| (decoder.run)(world, &bytes));
    assert!(ran.is_ok(), "{} seed {seed}: {:?}", decoder.name, String::from_utf8_lossy(&bytes));
}

#[test]
fn mutations_break_no_decoder() {
    let world = world();
    // More of them, for who looks for something: DECODER_INPUTS=100000.
    let inputs = std::env::var("DECODER_INPUTS").map_or(INPUTS, |count| count.parse().unwrap());
    for decoder in ALL {
        for seed in decoder.seeds {
            (decoder.run)(&world, seed.as_bytes());
        }
        (0..inputs).for_each(|seed| check(decoder, &world, seed));
    }
}

#[test]
fn every_decoder_has_a_fuzz_target() {
    let manifest = include_str!("../../../../fuzz/Cargo.toml");
    for decoder in ALL {
        assert!(manifest.contains(&format!("name = \"{}\"", decoder.name)), "{}", decoder.name);
        assert!(!decoder.seeds.is_empty(), "{}", decoder.name);
    }
    assert_eq!(manifest.matches("[[bin]]").count(), ALL.len());
}

/// What a few bytes must not blow up: depth, references of references, numbers, and names without end.
#[test]
fn bombs_stay_small() {
    let world = world();
    let laughs = |levels: usize| {
        let level = |n: usize| format!("a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 9].join(","));
        format!("a0: &a0 [x]\n{}", (0..levels).map(level).collect::<String>())
    };
    let bombs = [
        "[".repeat(10_000),
        "{\"a\":".repeat(10_000),
        laughs(3),
        "(".repeat(8_000),
        format!("{}1{}", "(".repeat(240), ")".repeat(240)),
        format!("1{}", "+1".repeat(4_000)),
        format!("self{}", ".a".repeat(4_000)),
        "true?1:".repeat(2_000),
        "self.a.map(x, ".repeat(200),
        "!".repeat(10_000),
        "1e".to_owned() + &"9".repeat(5_000),
        "-".repeat(10_000),
        "a=b,".repeat(5_000),
        format!(
            "{{\"target\":[[0]],\"patch\":[{}]}}",
            vec![r#"{"op":"copy","from":"","path":"/-"}"#; 60].join(",")
        ),
    ];
    // More than the reader of bodies takes.
    http::yaml(&world, laughs(7).as_bytes());
    for decoder in ALL {
        for bomb in &bombs {
            (decoder.run)(&world, bomb.as_bytes());
        }
    }
}
