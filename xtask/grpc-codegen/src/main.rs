//! Prints the Rust code of the `.proto` files in the directory that is its argument. It needs no `protoc`.

use std::path::Path;

use anyhow::Context as _;

const FILES: [&str; 3] = ["gobgp.proto", "attribute.proto", "capability.proto"];
/// The file that the package `apipb` becomes.
const OUTPUT: &str = "apipb.rs";

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os().nth(1).context("which directory are the .proto files in?")?;
    print!("{}", generate(Path::new(&directory))?);
    Ok(())
}

fn generate(protos: &Path) -> anyhow::Result<String> {
    let descriptors = protox::compile(FILES, [protos])
        .with_context(|| format!("{} cannot be compiled", protos.display()))?;
    let out = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut config = prost_build::Config::new();
    // Names for google.protobuf.Any.
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    // Their `Debug` is written by hand: it does not show the password.
    config.skip_debug([".apipb.PeerConf", ".apipb.PeerState"]);
    tonic_prost_build::configure()
        .out_dir(out.path())
        // Clients are for tests, and for whoever embeds the speaker.
        .build_client(true)
        .build_transport(false)
        .compile_fds_with_config(descriptors, config)
        .context("the code cannot be generated")?;
    let file = out.path().join(OUTPUT);
    std::fs::read_to_string(&file).with_context(|| format!("nothing was written to {}", file.display()))
}
