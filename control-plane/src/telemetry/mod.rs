//! What the process tells about itself while it runs: the log, structured events on standard error, and [`traces`].

pub mod traces;

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use self::traces::{Traces, TracesConfig, TracesError};

/// `KEYPOST_LOG`: a format, then filter directives, such as `json,info,keypost=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How events are written.
    pub format: LogFormat,
    /// Which events are written, in the syntax of [`EnvFilter`].
    pub directives: String,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// A text that does not say how to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be json or pretty, and then levels, such as json,info or pretty,info,keypost=debug")]
pub struct LogConfigError;

impl LogConfig {
    /// Reads the value of `KEYPOST_LOG`. Without levels, everything from `info` on is written.
    pub fn parse(text: &str) -> Result<Self, LogConfigError> {
        let (format, directives) = text.split_once(',').unwrap_or((text, "info"));
        let format = match format.trim() {
            "json" => LogFormat::Json,
            "pretty" => LogFormat::Pretty,
            _ => return Err(LogConfigError),
        };
        EnvFilter::try_new(directives).map_err(|_| LogConfigError)?;
        // A word alone would be taken for a module, and a mistyped level would silence the log.
        let names_a_level =
            |directive: &str| directive.contains('=') || directive.trim().parse::<LevelFilter>().is_ok();
        if !directives.split(',').all(names_a_level) {
            return Err(LogConfigError);
        }
        Ok(Self { format, directives: directives.to_owned() })
    }
}

/// Starts logging for the whole process, panics included. A second call changes nothing.
pub fn start(config: &LogConfig) {
    install(Registry::default().with(log(config, io::stderr)));
}

/// Starts logging, and traces where they are wanted. They must be stopped before the process ends.
pub fn start_with_traces(config: &LogConfig, traces: Option<&TracesConfig>) -> Result<Traces, TracesError> {
    let (traces, layer) = traces::start(traces)?;
    install(Registry::default().with(log(config, io::stderr)).with(layer));
    Ok(traces)
}

fn install(subscriber: impl SubscriberInitExt) {
    // Fails only where a logger has been set already, which then goes on logging.
    if subscriber.try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    }
}

/// Writes events to `writer`, as [`start`] does to standard error.
fn log<W>(config: &LogConfig, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // PostgreSQL's notices tell at every start that the migrations' table exists. Who wants them can ask for them.
    // What is there for traces alone says nothing new.
    let directives = format!("sqlx::postgres::notice=warn,{}=off,{}", traces::TARGET, config.directives);
    let filter = EnvFilter::new(directives);
    let layer = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(writer);
    match config.format {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
        LogFormat::Pretty => layer.with_filter(filter).boxed(),
    }
}
