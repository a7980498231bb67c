//! Writes the seeds of every target to `corpus/NAME`, where `cargo fuzz run NAME` begins.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    for decoder in apiserver::decoders::ALL {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(decoder.name);
        fs::create_dir_all(&directory)?;
        for (at, seed) in decoder.seeds.iter().enumerate() {
            fs::write(directory.join(format!("seed-{at}")), seed)?;
        }
    }
    Ok(())
}
