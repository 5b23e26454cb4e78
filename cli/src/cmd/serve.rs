//! `pponnx serve`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pponnx_node::{RequestCost, edge_a, edge_b};
use serde_json::{Value, json};

use crate::args::Serve;
use crate::config::EdgeRole;
use crate::config::edge::EdgeConfig;
use crate::console::{Console, things};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::foreign::node_failure;
use crate::isa;
use crate::output::write_beside;
use crate::progress::Progress;
use crate::record::recorder;
use crate::roles::{block_on, edge};

/// How long requests under way get to finish after a signal.
const GRACE: Duration = Duration::from_secs(30);

/// Runs the command.
pub fn run(console: &Console, args: &Serve) -> Outcome<Value> {
    let config = EdgeConfig::read(&args.config)?;
    let role = config.role;
    if args.edge_a.is_some() && config.edge_a.is_none() {
        return Err(Box::new(
            Failure::new(Exit::Usage, "pponnx::usage::edge-a", "this edge does not dial edge A")
                .help("--edge-a is for edge B under scheme relay"),
        ));
    }
    let observer = args.record.as_deref().map(recorder).transpose()?;
    if let Some(path) = &args.record {
        console.warn(format!("recording received messages to `{}`", path.display()));
    }
    let listen = args.listen.unwrap_or(config.listen).to_string();
    let settings = {
        let _progress = Progress::start(console, "loading plans");
        edge(
            console,
            &config,
            isa::kernels()?.with_threads(args.threads.into()),
            listen,
            args.edge_a.as_ref(),
            observer,
        )?
    };
    let plans = things(settings.plans.len() as u64, "plan");
    let devices = things(settings.devices.len() as u64, "device");
    block_on(async {
        let mut stop = Signals::start()?;
        let started = match role {
            EdgeRole::EdgeA => edge_a::serve(settings).await,
            EdgeRole::EdgeB => edge_b::serve(settings).await,
        };
        let mut running = started.map_err(node_failure)?;
        let meter = Arc::clone(running.meter());
        if args.costs.is_some() {
            meter.keep();
        }
        let address = running.address.to_string();
        if let Some(path) = &args.ready_file {
            write_beside(path, format!("{address}\n").as_bytes())?;
        }
        console.event(&json!({ "event": "ready", "role": role.name(), "address": address }));
        console.say(format!("{} listens at {address}: {plans}, {devices}", role.name()));
        tokio::select! {
            ended = running.wait() => ended.map_err(node_failure)?,
            () = stdin_closed(args.until_stdin_closes) => running.stop(GRACE).await.map_err(node_failure)?,
            () = stop.wait() => {
                console.note("stopping; requests under way are finished first (press again to stop at once)");
                tokio::select! {
                    ended = running.stop(GRACE) => ended.map_err(node_failure)?,
                    () = stop.wait() => {}
                }
            }
        }
        if let Some(path) = &args.costs {
            write_costs(path, &meter.take())?;
        }
        Ok(json!({ "event": "stopped", "role": role.name(), "address": address }))
    })
}

/// One line of JSON a request, times in milliseconds.
fn write_costs(path: &Path, costs: &[RequestCost]) -> Outcome<()> {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let mut text = String::new();
    for cost in costs {
        let line = json!({
            "request": cost.request,
            "compute_ms": ms(cost.compute),
            "queue_ms": ms(cost.queue),
            "correction_ms": ms(cost.correction),
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    write_beside(path, text.as_bytes())
}

/// Ends when stdin does; never, if nobody asked.
async fn stdin_closed(asked: bool) {
    let (closed, told) = tokio::sync::oneshot::channel::<()>();
    if !asked {
        return std::future::pending().await;
    }
    // A thread and not a task: a read of stdin cannot be cancelled, and must not hold up the end.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(closed);
    });
    let _ = told.await;
}

/// SIGINT and SIGTERM, from the moment it is made.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn start() -> Outcome<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |e: std::io::Error| Box::new(Failure::internal(format!("cannot wait for signals: {e}")));
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    #[cfg(unix)]
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn start() -> Outcome<Signals> {
        Ok(Signals {})
    }

    #[cfg(not(unix))]
    async fn wait(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
