//! Single sign-on.

mod agreement;
mod cors;
mod edge;
mod exchange;
mod managed;
mod openid;
mod passwords;
mod people;
mod pools;
mod resets;
mod sessions;
mod sign_in;
mod sign_up;
mod storm;
mod story;
