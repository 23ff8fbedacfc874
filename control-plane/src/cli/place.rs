//! The options that say in which organization, environment and so on something is.

use clap::Args;
use keypost_shared::id::{DeviceId, EnvId, OrgId, PoolId};

use super::api::Place;

/// An organization.
#[derive(Debug, Args)]
pub(super) struct InOrg {
    /// The organization.
    #[arg(long, short, value_name = "ORG", env = "KEYPOST_ORG_ID", hide_env_values = true)]
    org: OrgId,
}

/// An environment.
#[derive(Debug, Args)]
pub(super) struct InEnv {
    #[command(flatten)]
    org: InOrg,
    /// The environment.
    #[arg(long, short, value_name = "ENV", env = "KEYPOST_ENV_ID", hide_env_values = true)]
    env: EnvId,
}

/// A device.
#[derive(Debug, Args)]
pub(super) struct InDevice {
    #[command(flatten)]
    env: InEnv,
    /// The device.
    #[arg(long, short, value_name = "DEVICE")]
    device: DeviceId,
}

/// A client pool.
#[derive(Debug, Args)]
pub(super) struct InPool {
    /// The client pool: `keypost pool get` shows its id.
    #[arg(long, short, value_name = "POOL", env = "KEYPOST_CLIENT_POOL_ID", hide_env_values = true)]
    pool: PoolId,
}

impl InOrg {
    /// `org/{orgId}`
    pub(super) fn place(&self) -> Place {
        Place::of(["org", self.org.as_str()])
    }
}

impl InEnv {
    /// `org/{orgId}/env/{envId}`
    pub(super) fn place(&self) -> Place {
        self.org.place().then("env").then(self.env.as_str())
    }
}

impl InDevice {
    /// `…/device/{deviceId}`
    pub(super) fn place(&self) -> Place {
        self.env.place().then("device").then(self.device.as_str())
    }
}

impl InPool {
    /// `{clientPoolId}`
    pub(super) fn place(&self) -> Place {
        Place::of([self.pool.to_string().as_str()])
    }
}
