//! What `cargo xtask generate` makes of `proto/`.

pub mod apipb;
