//! `keypost otp`

use clap::{Args, Subcommand};

use super::app::AppRef;
use super::body::Body;
use super::connection::ConnectionArgs;
use super::error::CommandError;
use super::place::InDevice;

#[derive(Debug, Args)]
pub(super) struct OtpArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a one-time password that activates an app of a device. It ends the one before.
    ///
    /// The password stands on standard output alone; until when it is valid goes to standard error.
    Create {
        #[command(flatten)]
        within: InDevice,
        /// The app, by its id or the client app's.
        #[arg(long, short, default_value = "client")]
        app: AppRef,
        /// How long it is valid.
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u32>,
    },
}

impl OtpArgs {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let (api, output) = self.connection.open()?;
        let Verb::Create { within, app, ttl } = self.verb;
        let place = within.place().then("app").then(app.as_str()).then("otp");
        let body = Body::default().with_some("ttlSeconds", ttl.as_ref())?;
        output.secret(&api.create(&place, body.to_bytes()?).await?, "otp")
    }
}
