//! How a decision came about, step by step: for people who wonder why a terminal does not come up.

use std::fmt::Display;

use serde::Serialize;

use super::anchors::PoolAnchors;
use super::refusal::DeviceRefusal;
use crate::certificate::Step;

/// A step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TraceStep {
    /// Which rule was asked.
    pub rule: &'static str,
    /// Whether it held.
    pub holds: bool,
    /// Where it did not, the stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What was found.
    pub detail: String,
}

/// The steps of a decision, in order. The edge, which nobody watches, keeps none.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    steps: Option<Vec<TraceStep>>,
}

impl Trace {
    /// Keeps every step.
    pub fn kept() -> Self {
        Self { steps: Some(Vec::new()) }
    }

    /// Keeps none.
    pub fn discarded() -> Self {
        Self::default()
    }

    /// The steps that were kept.
    pub fn into_steps(self) -> Vec<TraceStep> {
        self.steps.unwrap_or_default()
    }

    pub(crate) fn holds(&mut self, rule: &'static str, detail: impl Display) {
        if let Some(steps) = &mut self.steps {
            steps.push(TraceStep { rule, holds: true, code: None, detail: detail.to_string() });
        }
    }

    pub(crate) fn refuse(&mut self, rule: &'static str, refusal: DeviceRefusal) -> DeviceRefusal {
        if let Some(steps) = &mut self.steps {
            let code = Some(refusal.code().to_string());
            steps.push(TraceStep { rule, holds: false, code, detail: refusal.to_string() });
        }
        refusal
    }

    /// A step of the chain's validation.
    pub(super) fn chain_step(&mut self, step: &Step, anchors: &PoolAnchors) {
        match step {
            Step::Read { certificates } => {
                self.holds("chain", format_args!("{certificates} certificates, in order"))
            }
            Step::Root { position, intermediates } => {
                let root = anchors.as_slice().get(*position).map(|root| root.fingerprint().to_string());
                let root = root.unwrap_or_default();
                self.holds(
                    "root",
                    format_args!("root {root} may have issued it; intermediates between: {intermediates}"),
                );
            }
            Step::RulesHold => {
                self.holds("chain", "validity, usage, path lengths and extensions are as they should be")
            }
            Step::SignatureHolds(place) => {
                self.holds("signature", format_args!("{place}: the signature verifies"))
            }
            Step::NamesAndPoliciesHold => self.holds("names", "name constraints and policies hold"),
            Step::Refused(refusal) => {
                self.refuse("chain", refusal.clone().into());
            }
        }
    }
}
