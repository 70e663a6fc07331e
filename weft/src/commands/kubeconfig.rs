//! `weft kubeconfig`: print the kubeconfig of the cluster on this machine.

use std::io::Write as _;
use std::path::PathBuf;

use crate::data_dir;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data folder of the server [default: /var/lib/weft as root, else ~/.local/share/weft]
    #[arg(long, env = "WEFT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print the path of the file, not its contents
    #[arg(long)]
    path: bool,
}

/// # Errors
/// When there is no readable kubeconfig in the data folder.
pub fn run(args: Args) -> anyhow::Result<()> {
    let dir = args.data_dir.unwrap_or_else(data_dir::default);
    let path = data_dir::kubeconfig(&dir);
    let contents = std::fs::read(&path).map_err(|error| {
        Failure::new(
            format!("cannot read the kubeconfig {}", path.display()),
            error,
            "start a cluster with `weft up`, or name its folder with --data-dir",
        )
    })?;
    let mut out = std::io::stdout().lock();
    if args.path {
        writeln!(out, "{}", path.display())?;
    } else {
        out.write_all(&contents)?;
    }
    Ok(())
}
