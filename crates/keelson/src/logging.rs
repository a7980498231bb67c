//! The log on standard error.

use tracing_subscriber::{
    Layer, filter::LevelFilter, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::cli::{LogFormat, LogLevel};

/// Sends log events to standard error from now on. Libraries log from one level further up, so that their
/// chatter does not hide ours.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let (ours, theirs) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    let mut targets = Targets::new().with_default(ours);
    for library in [
        "hyper",
        "hyper_util",
        "h2",
        "rustls",
        "tonic",
        "tower",
        "kube_client",
        "kube_runtime",
        "hickory_proto",
    ] {
        targets = targets.with_target(library, theirs);
    }
    // It logs what it also returns, and whoever gets that says it.
    targets = targets.with_target("kube_client::client::builder", LevelFilter::OFF);
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = match format {
        LogFormat::Text => {
            fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(true).boxed()
        }
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
}
