mod managed;
mod pools;
