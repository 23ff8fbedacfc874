mod cors;
mod managed;
mod pools;
