//! What a user types, against the real program.

mod cluster;
mod control_plane;
mod databases;
