//! The log: structured events on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

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
    // Fails only where a logger has been set already, which then goes on logging.
    if subscriber(config, io::stderr).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    }
}

/// The logger that [`start`] installs, writing to `writer`.
pub fn subscriber<W>(config: &LogConfig, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // PostgreSQL's notices tell at every start that the migrations' table exists. Who wants them can ask for them.
    let directives = format!("sqlx::postgres::notice=warn,{}", config.directives);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(writer);
    match config.format {
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
        LogFormat::Pretty => Box::new(builder.finish()),
    }
}
