//! Log lines on stderr.

use tracing_subscriber::EnvFilter;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Environment variable with a tracing filter, such as `debug` or `pponnx_node=trace`.
pub const VARIABLE: &str = "PPONNX_LOG";

/// Starts logging: the filter in `PPONNX_LOG` if set, else by the number of `-v`.
pub fn start(verbose: u8) -> Outcome<()> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) => EnvFilter::try_new(&text).map_err(|e| {
            Failure::new(Exit::Usage, "pponnx::usage::log", format!("{VARIABLE}=`{text}` is no filter: {e}"))
                .help("for example PPONNX_LOG=debug or PPONNX_LOG=pponnx_node=trace")
        })?,
        Err(_) => EnvFilter::new(match verbose {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        }),
    };
    // tract reports every rewrite at debug level; nobody who debugs a session wants that.
    let filter = if std::env::var(VARIABLE).is_err() { with(filter, "tract_core=warn") } else { filter };
    // A second start in one process (tests) keeps the first subscriber.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
    Ok(())
}

fn with(filter: EnvFilter, directive: &str) -> EnvFilter {
    match directive.parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}
