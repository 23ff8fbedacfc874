//! OpenID Connect, as an app, a browser and an attacker meet it.

mod codes;
mod gone;
mod pages;
mod sign_on;
mod tokens;
mod world;
