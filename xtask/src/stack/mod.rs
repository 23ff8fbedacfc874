//! The local stack: real PostgreSQL, the control plane, the Worker in workerd. Each is a guard that ends what it
//! started, whatever happens to us.

pub mod control_plane;
pub mod port;
pub mod postgres;
pub mod process;
pub mod supervise;
pub mod whole;
pub mod worker;

/// Whether a GET is answered with 2xx; if not, what came instead.
async fn answers_ok(http: &reqwest::Client, url: &str) -> Result<(), String> {
    let answer = http.get(url).send().await.map_err(|error| format!("GET {url}: {error}"))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = answer.text().await.unwrap_or_default();
    Err(format!("GET {url} answered {status}: {}", body.chars().take(500).collect::<String>()))
}
