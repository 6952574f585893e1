//! MetalLB, which the benches run beside ours: built from its Go module into `target/metallb`, unchanged.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::{kube, shell};

const MODULE: &str = "go.universe.tf/metallb";

/// Builds its controller and speaker, if that was not done yet; the directory with them and its definitions.
///
/// # Errors
/// There is no Go, or its module cannot be fetched or built: Go says why.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let module = shell::root().join("benches/peers/metallb");
    let manifest = fs::read_to_string(module.join("go.mod"))?;
    let wanted =
        kube::directive(&manifest, "go").context("benches/peers/metallb/go.mod names no version of Go")?;
    kube::check_go(&module, wanted, "MetalLB", "leave --with-peers out")?;
    let directory = shell::target_directory().join("metallb");
    let stamp = directory.join("stamp");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == manifest) {
        return Ok(directory);
    }
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let version =
        kube::directive(&manifest, MODULE).context("benches/peers/metallb/go.mod requires no MetalLB")?;
    println!("building MetalLB {version} from its Go module: minutes the first time");
    for program in ["controller", "speaker"] {
        let mut command = Command::new("go");
        command.current_dir(&module).env("CGO_ENABLED", "0");
        command.args(["build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-o"]);
        command.arg(directory.join(program)).arg(format!("{MODULE}/{program}"));
        shell::run(&mut command)?;
    }
    let source = shell::capture(Command::new("go").current_dir(&module).args([
        "list",
        "-mod=readonly",
        "-m",
        "-f",
        "{{.Dir}}",
        MODULE,
    ]))?;
    let definitions = directory.join("crds");
    fs::create_dir_all(&definitions)?;
    for entry in fs::read_dir(PathBuf::from(source.trim()).join("config/crd/bases"))? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        fs::write(definitions.join(entry.file_name()), text)?;
    }
    fs::write(stamp, manifest)?;
    Ok(directory)
}
