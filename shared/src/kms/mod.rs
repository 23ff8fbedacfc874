//! AWS KMS, as far as the edge and the control plane must agree on it: what a key is called ([`KmsKeyArn`]), how a request
//! to it is signed ([`sigv4`]), and what `Sign` is asked and answers ([`sign`]).

mod arn;
pub mod sign;
pub mod sigv4;

pub use arn::{KmsKeyArn, NotAKeyArn};
pub use sigv4::Credentials;
