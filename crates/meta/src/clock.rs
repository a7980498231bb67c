//! Time and chance, passed in (design principle 7). Layers 0-3 hold an `Arc<dyn Clock>` and a
//! `Arc<dyn Random>`; only adapters and programs make real ones. Waiting is `tokio::time`, which
//! virtual time can pause.

use std::sync::Mutex;

/// An instant in UTC. Wire forms: [`format_second`] (`metadata.creationTimestamp`) and
/// [`format_micro`] (Lease and Event times).
pub type Timestamp = jiff::Timestamp;

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// The current instant. May step backwards when the machine's clock is set.
    fn now(&self) -> Timestamp;
}

/// A source of random bits; seeded in simulation and tests.
pub trait Random: Send + Sync + 'static {
    /// The next 64 bits. Need not be secret: keys and tokens come from the TLS library's generator.
    fn next(&self) -> u64;

    /// A number in `0..bound`; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// `length` characters of upstream's name-suffix alphabet (no vowels, no look-alikes), as used
    /// by `generateName` (apimachinery `util/rand`).
    fn suffix(&self, length: usize) -> String {
        const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length)
            .map(|_| {
                let at = usize::try_from(self.below(ALPHABET.len() as u64)).unwrap_or(0);
                char::from(*ALPHABET.get(at).unwrap_or(&b'x'))
            })
            .collect()
    }

    /// A version-4 UUID.
    fn uuid(&self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}

/// A clock that stands where it was put; for tests and pure plans.
#[derive(Debug)]
pub struct Fixed(Mutex<Timestamp>);

impl Fixed {
    /// A clock that shows `at` until [`Fixed::set`].
    pub fn new(at: Timestamp) -> Self {
        Self(Mutex::new(at))
    }

    /// Moves the clock.
    pub fn set(&self, to: Timestamp) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = to;
    }
}

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// SplitMix64 from a seed: the same seed gives the same sequence.
#[derive(Debug)]
pub struct Seeded(Mutex<u64>);

impl Seeded {
    /// A source that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Random for Seeded {
    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// RFC 3339 with whole seconds and `Z`, the form of `metav1.Time`.
pub fn format_second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 with six fractional digits and `Z`, the form of `metav1.MicroTime`.
pub fn format_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A span of whole seconds as kubectl shows it: two units at most, coarser the longer it is (apimachinery
/// `util/duration.HumanDuration`).
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let pair = |big: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{part}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(days, "d", hours % 24, "h"),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}
